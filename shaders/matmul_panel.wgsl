enable subgroups;

// Batched matrix product for software adapters (lavapipe, SwiftShader): a panel of b, BK rows by eight columns a lane,
// stands in `let`s, which the driver keeps on its stack as memory operands of multiplications, and the rows of a pass by
// it, one element at a time broadcast to all lanes. No workgroup memory, no barriers.
//
//     out[i, m, n] = activation(scale · Σ_k a[i, m, k] · b[i, k, n] + bias[i, m, n]) + residual[i, m, n]
//
// A workgroup takes `part` rows and 8·LANES columns. Each panel adds its part of the sum to `out`, or to `sums` where `out`
// is of 16 bits. Eight elements are a word wherever they lie together (vec4<u64>, or vec4<u32> of halves): a load is a loop
// over the lanes, and it is the loads in the text that take the time to compile.
//
// Rows go through in pairs where there are many, so that b is loaded once for two products.
//
// Trusted: m < M; terms and columns are clamped by `four` to the last there is, and so are the reads of sums; writes ask for
// n < N. The loops are over K in steps of BK, and over the rows of a part.
//
// Measured at 512³, in CPU time; lavapipe of Mesa 22.3 (LLVM 15), two threads that reach 148 GFLOP/s on registers alone:
// - words of eight, BK = 128: 80 GFLOP/s, 1.2 s to compile. BK = 64 0.8; BK = 192, 256 1.0 and 1.08, 2.5 and 6 s.
// - words of four: 0.68 of that with BK = 64 (0.8 s to compile), 0.82 with BK = 128 (3 s, `panel_deep`), which is for large
//   products only where there are no words of eight. Of 250 ns for a row and a panel of 64, 130 are multiplications and
//   additions, 95 loads of a and loads and stores of sums.
// - checked in place of trusted: 0.93. An epilogue that only multiplies by 1: 0.97. All loads of a row of a at its begin: 0.8.
// - branches run masked: a bias in each of K = 1536's panels took 0.2 of the time, with GELU 0.3, and 0.03 and 0.05 since the
//   epilogue has a loop of its own (APART). A bias loaded once for all rows saves 0.1 where there is one panel. Parameters
//   read before the loops instead of in them: 0.98 to 1.
// - b in an array for each column, filled by a loop, 1.0, and 20 s to compile; in one array 0.35 and 36 s.
// - 16 columns a lane and BK = 32 0.77; columns and terms loaded one by one 0.68 and 3 s to compile; `fma` 0.95.
// - shorter `part`s (64 rows) 0.8, since filling a panel costs as much as 20 rows.
// - pairs of rows 1.03, at 1024³ 1.1; three 1.0. Below 128 rows 0.9 to 1.
// Mesa 26 (LLVM 22), which loads once what is uniform, and compiles any of these in 0.9 s: UNIFORM with `fma`, words of eight for
// a alone, pairs of rows and BK = 128: 137 GFLOP/s. It reads the components of a word one by one and asks each for its bounds, so
// words of four 0.86 (one row at once 0.8), of eight for `out` as well 0.4; one row at once 0.9, three 0.77; BK = 64 0.92, 192 and
// 256 0.8 and 0.88. Without `fma` 0.78 of that. BROADCAST (with words of four, a row at once) 0.77. What remains: 19 % of
// the samples are reads and writes of sums, 12 % reads of a, the rest is multiplications and the loads of b for them.
// SwiftShader: pairs of rows 0.5.
// Sums that end within a panel (TAIL) take 1.02 and 1.09 of the time they took when only b became 0, and 0 · ∞ was NaN.

// [block matmul_parameters]
const BATCH_AXES: u32 = 1u; // @slot BATCH_AXES: batch axes that no common stride covers

struct Params {
  M: u32,
  N: u32,
  K: u32,
  // Number of products.
  products: u32,
  // What a workgroup takes of the axis that is cut: rows (panel) or terms of the sum (tiled).
  part: u32,
  scale: f32,
  // First elements, and strides along m, n and k.
  a: u32,
  a_m: u32,
  a_k: u32,
  b: u32,
  b_k: u32,
  b_n: u32,
  bias: u32,
  bias_m: u32,
  bias_n: u32,
  residual: u32,
  residual_m: u32,
  residual_n: u32,
  // Batch axes, innermost first.
  // @unroll d BATCH_AXES
  size_d0: u32,
  a_d0: u32,
  b_d0: u32,
  bias_d0: u32,
  residual_d0: u32,
  // @end
}

@group(0) @binding(0) var<uniform> p: Params;

// Where product `i` starts in a, b, bias and residual.
fn starts(i: u32) -> vec4<u32> {
  var at = vec4<u32>(p.a, p.b, p.bias, p.residual);
  var rest = i;
  // @unroll d BATCH_AXES
  at += (rest % p.size_d0) * vec4<u32>(p.a_d0, p.b_d0, p.bias_d0, p.residual_d0);
  rest /= p.size_d0;
  // @end
  return at;
}

// Four indices from `i` on; the last of `size` stands for those past it.
fn four(i: u32, size: u32) -> vec4<u32> {
  return min(i + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(size - 1u));
}

// `n` as the end of a loop; the factor is 1. Mesa compiles a uniform that alone ends a loop into the shader, and Mesa 22.3
// may then compile it again at every dispatch (README.md).
fn bound(n: u32, groups: vec3<u32>) -> u32 {
  return n * groups.z;
}
// [end]

// [block matmul_operands]
alias a_word = f32; // @slot a_word: f32 | vec4<f32> | u32 (two halves) | vec2<u32>
alias b_word = f32; // @slot b_word: f32 | vec4<f32> | u32 (two halves) | vec2<u32>

@group(0) @binding(1) var<storage, read> a: array<a_word>; // (batch, M, K) strided
@group(0) @binding(2) var<storage, read> b: array<b_word>; // (batch, K, N) strided

// @slot load_a: one element
fn load_a(i: u32) -> f32 { return a[i]; }
// @slot load_a4: four elements, of one word where a_word is as long
fn load_a4(i: vec4<u32>) -> vec4<f32> { return vec4<f32>(a[i.x], a[i.y], a[i.z], a[i.w]); }
// @slot load_b: one element
fn load_b(i: u32) -> f32 { return b[i]; }
// @slot load_b4: four elements, of one word where b_word is as long
fn load_b4(i: vec4<u32>) -> vec4<f32> { return vec4<f32>(b[i.x], b[i.y], b[i.z], b[i.w]); }
// Of a b of few bits: the scales and zero points of groups of a column.
// @region SCALES
alias scales_word = f32; // @slot scales_word: f32 | u32 (two halves)
@group(0) @binding(7) var<storage, read> scales: array<scales_word>; // (N, K / group)
// @slot load_scales: one element
fn load_scales(i: u32) -> f32 { return scales[i]; }
// @end
// @region ZEROS
@group(0) @binding(8) var<storage, read> zeros: array<u32>; // (N, K / group) of few bits
// @slot load_zeros: one element
fn load_zeros(i: u32) -> f32 { return f32(zeros[i]); }
// @end
// @slot load_b4x4: four rows of four columns from element `i` on; `k` and `n` step to rows and columns
fn load_b4x4(i: u32, k: vec4<u32>, n: vec4<u32>) -> mat4x4<f32> { return mat4x4<f32>(load_b4(i + k.x + n), load_b4(i + k.y + n), load_b4(i + k.z + n), load_b4(i + k.w + n)); }
// [end]

// @region NARROW
// [block narrow: f32 to the bits of narrower floats]
// The bits of the nearest f16, halves to even: drivers may truncate in pack2x16float.
fn f16_bits(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let a = bits & 0x7fffffffu;
  let subnormal = bitcast<u32>(abs(x) + 0.5) - 0x3f000000u;
  let normal = (a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u;
  let large = select(0x7c00u, 0x7e00u, a > 0x7f800000u);
  return ((bits >> 16u) & 0x8000u) | select(select(normal, subnormal, a < 0x38800000u), large, a >= 0x47800000u);
}

// The bits of the nearest bf16, halves to even.
fn bf16_bits(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  return select((bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u, (bits >> 16u) | 0x40u, (bits & 0x7fffffffu) > 0x7f800000u);
}
// [end]
// @end

// [block matmul_result]
// Of a b of few bits with a scale for each column.
// @region FACTOR
alias factor_word = f32; // @slot factor_word: f32 | u32 (two halves)
@group(0) @binding(9) var<storage, read> factor: array<factor_word>; // (N)
// @slot load_factor: one element
fn load_factor(i: u32) -> f32 { return factor[i]; }
// @end

alias bias_word = f32; // @slot bias_word: f32 | vec4<f32> | u32 (two halves) | vec2<u32>
alias residual_word = f32; // @slot residual_word: f32 | vec4<f32> | u32 (two halves) | vec2<u32>
alias out_word = f32; // @slot out_word: f32 | vec4<f32> | u32 (two halves) | vec2<u32>

// @region BIAS
@group(0) @binding(3) var<storage, read> bias: array<bias_word>; // (batch, M, N) strided
// @slot load_bias: one element
fn load_bias(i: u32) -> f32 { return bias[i]; }
// @slot load_bias4: four elements, of one word where bias_word is as long
fn load_bias4(i: vec4<u32>) -> vec4<f32> { return vec4<f32>(bias[i.x], bias[i.y], bias[i.z], bias[i.w]); }
// @end
// @region RESIDUAL
@group(0) @binding(4) var<storage, read> residual: array<residual_word>; // (batch, M, N) strided
// @slot load_residual: one element
fn load_residual(i: u32) -> f32 { return residual[i]; }
// @slot load_residual4: four elements, of one word where residual_word is as long
fn load_residual4(i: vec4<u32>) -> vec4<f32> { return vec4<f32>(residual[i.x], residual[i.y], residual[i.z], residual[i.w]); }
// @end
@group(0) @binding(5) var<storage, read_write> out: array<out_word>; // (batch, M, N)

// @slot activation: applied to each element of the scaled and biased product
fn activation(x: f32) -> f32 { return x; }

// The element at (m, n) of a product that starts at `at`.
fn epilogue(product: f32, at: vec4<u32>, m: u32, n: u32) -> f32 {
  var x = p.scale * product;
  // @region FACTOR
  x *= load_factor(n);
  // @end
  // @region BIAS
  x += load_bias(at.z + m * p.bias_m + n * p.bias_n);
  // @end
  x = activation(x);
  // @region RESIDUAL
  x += load_residual(at.w + m * p.residual_m + n * p.residual_n);
  // @end
  return x;
}

// The bias of four columns from `n` on; the last column stands for those past it.
fn bias4(at: vec4<u32>, m: u32, n: u32) -> vec4<f32> {
  var x = vec4<f32>();
  // @region BIAS
  x = load_bias4(at.z + m * p.bias_m + four(n, p.N) * p.bias_n);
  // @end
  return x;
}

// Four columns from `n` on, likewise, with their bias.
fn finish4(product: vec4<f32>, bias: vec4<f32>, at: vec4<u32>, m: u32, n: u32) -> vec4<f32> {
  let columns = four(n, p.N);
  var x = p.scale * product;
  // @region FACTOR
  x *= vec4<f32>(load_factor(columns.x), load_factor(columns.y), load_factor(columns.z), load_factor(columns.w));
  // @end
  // @region BIAS
  x += bias;
  // @end
  x = vec4<f32>(activation(x.x), activation(x.y), activation(x.z), activation(x.w));
  // @region RESIDUAL
  x += load_residual4(at.w + m * p.residual_m + columns * p.residual_n);
  // @end
  return x;
}

fn epilogue4(product: vec4<f32>, at: vec4<u32>, m: u32, n: u32) -> vec4<f32> {
  return finish4(product, bias4(at, m, n), at, m, n);
}

// @region NARROW
// @slot pack: two elements of out as a word
fn pack(x: vec2<f32>) -> u32 { return f16_bits(x.x) | (f16_bits(x.y) << 16u); }
// @end
// @slot write_out4: the first `columns` of four columns, to element `i` on
fn write_out4(i: u32, columns: u32, x: vec4<f32>) { if columns > 0u { out[i] = x.x; } if columns > 1u { out[i + 1u] = x.y; } if columns > 2u { out[i + 2u] = x.z; } if columns > 3u { out[i + 3u] = x.w; } }
// [end]

// @region SUMS
@group(0) @binding(6) var<storage, read_write> sums: array<vec4<f32>>; // (batch, M, N / 4) quads along n
// @end

const LANES: u32 = 8u; // @slot LANES: invocations of a workgroup; with BROADCAST the subgroup size
const OWN: u32 = 1u; // @slot OWN: eights of a row of a that a lane holds
const SLICES: u32 = 8u; // @slot SLICES: lanes whose eights are in the panel
const ROWS: u32 = 1u; // @slot ROWS: rows of a at once
const BK: u32 = OWN * SLICES * 8u;
const BN: u32 = LANES * 8u;

const_assert SLICES <= LANES && (OWN == 1u || SLICES == LANES);

// [block matmul_eights]
// Eight elements, or where they are.
struct Eight {
  low: vec4<f32>,
  high: vec4<f32>,
}
struct Places {
  low: vec4<u32>,
  high: vec4<u32>,
}

// Eight indices from `i` on, as `four`.
fn eight(i: u32, size: u32, stride: u32) -> Places {
  return Places(four(i, size) * stride, four(i + 4u, size) * stride);
}

// @slot load_a8: eight elements of one word
fn load_a8(i: u32) -> Eight { return Eight(load_a4(i + vec4<u32>(0u, 1u, 2u, 3u)), load_a4(i + vec4<u32>(4u, 5u, 6u, 7u))); }
// @slot load_b8: eight elements of one word
fn load_b8(i: u32) -> Eight { return Eight(load_b4(i + vec4<u32>(0u, 1u, 2u, 3u)), load_b4(i + vec4<u32>(4u, 5u, 6u, 7u))); }
// @slot row_a: eight elements of a row, of one word where a_word is as long
fn row_a(i: Places) -> Eight { return Eight(load_a4(i.low), load_a4(i.high)); }
// [end]

// Eight rows of b, the lower four and the higher, by the left four columns and the right.
struct Square {
  low_left: mat4x4<f32>,
  high_left: mat4x4<f32>,
  low_right: mat4x4<f32>,
  high_right: mat4x4<f32>,
}

// @slot load_b8x8: eight rows of eight columns from element `i` on; `k` and `n` step to rows and columns
fn load_b8x8(i: u32, k: Places, n: Places) -> Square { return Square(load_b4x4(i, k.low, n.low), load_b4x4(i, k.high, n.low), load_b4x4(i, k.low, n.high), load_b4x4(i, k.high, n.high)); }

// @region !SUMS
// @slot read_out4: four columns, of which the first `columns` are there
fn read_out4(i: u32, columns: u32) -> vec4<f32> { let last = columns - 1u; return vec4<f32>(out[i], out[i + min(1u, last)], out[i + min(2u, last)], out[i + min(3u, last)]); }
// @slot read_out8: columns from `n` on of a row that begins at `row`; the last stands for those past it
fn read_out8(row: u32, n: u32) -> Eight { let low = min(n, p.N - 1u); let high = min(n + 4u, p.N - 1u); return Eight(read_out4(row + low, p.N - low), read_out4(row + high, p.N - high)); }
// @end
// @slot write_out8: columns from `n` on, as far as there are some
fn write_out8(row: u32, n: u32, x: Eight) { write_out4(row + n, p.N - min(n, p.N), x.low); write_out4(row + n + 4u, p.N - min(n + 4u, p.N), x.high); }

// [block matmul_tail]
// Four terms from `k` on, with 0 for those past the end, for which the last stand: as it may be infinite, of both operands.
fn ended(x: vec4<f32>, k: u32) -> vec4<f32> {
  var terms = x;
  // @region TAIL
  terms = select(vec4<f32>(), x, k + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.K));
  // @end
  return terms;
}

// Four rows of b from `k` on, likewise.
fn ended_rows(x: mat4x4<f32>, k: u32) -> mat4x4<f32> {
  var rows = x;
  // @region TAIL
  let there = k + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.K);
  let none = vec4<f32>();
  rows = mat4x4<f32>(
    select(none, x[0], there.x), select(none, x[1], there.y), select(none, x[2], there.z), select(none, x[3], there.w)
  );
  // @end
  return rows;
}
// [end]

// Eight terms of a from `k` on, likewise.
fn ended8(x: Eight, k: u32) -> Eight {
  return Eight(ended(x.low, k), ended(x.high, k + 4u));
}

// @region SUMS
// Columns from `n` on of a row that begins at quad `row`; the last quad stands for those past it.
fn read_sums(row: u32, n: u32) -> Eight {
  let last = (p.N - 1u) / 4u;
  return Eight(sums[row + min(n / 4u, last)], sums[row + min(n / 4u + 1u, last)]);
}

fn write_sums(row: u32, n: u32, x: Eight) {
  if n < p.N {
    sums[row + n / 4u] = x.low;
  }
  if n + 4u < p.N {
    sums[row + n / 4u + 1u] = x.high;
  }
}
// @end

fn finish8(product: Eight, bias: Eight, at: vec4<u32>, m: u32, n: u32) -> Eight {
  return Eight(finish4(product.low, bias.low, at, m, n), finish4(product.high, bias.high, at, m, n + 4u));
}

// @slot sum: the sum so far, and an element of a times four of b
fn sum(acc: vec4<f32>, x: f32, y: vec4<f32>) -> vec4<f32> { return acc + x * y; }

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
  // @region BROADCAST
  @builtin(subgroup_invocation_id) own: u32,
  // @end
) {
  var lane = local;
  // @region BROADCAST
  lane = own;
  // @end
  let strips = (p.N + BN - 1u) / BN;
  let parts = (p.M + p.part - 1u) / p.part;
  let w = group.x + group.y * groups.x;
  if w >= p.products * strips * parts {
    return;
  }
  let product = w / (strips * parts);
  let first = w / strips % parts * p.part;
  let end = min(first + p.part, p.M);
  let at = starts(product);
  let n = (w % strips * LANES + lane) * 8u;
  let columns = eight(n, p.N, p.b_n);
  // The bias of the columns, which is that of each row unless bias_m is a stride (BIAS_ROWS).
  var shift: Eight;
  // @region EPILOGUE
  shift = Eight(bias4(at, first, n), bias4(at, first, n + 4u));
  // @end

  let depth = bound(p.K, groups);
  for (var k0 = 0u; k0 < depth; k0 += BK) {
    // @unroll q OWN
    // @unroll s SLICES
    let k_q0_s0 = k0 + (/*q*/0u * LANES + /*s*/0u) * 8u;
    let b_q0_s0 = load_b8x8(at.y, eight(k_q0_s0, p.K, p.b_k), columns);
    let low_left_q0_s0 = ended_rows(b_q0_s0.low_left, k_q0_s0);
    let high_left_q0_s0 = ended_rows(b_q0_s0.high_left, k_q0_s0 + 4u);
    let low_right_q0_s0 = ended_rows(b_q0_s0.low_right, k_q0_s0);
    let high_right_q0_s0 = ended_rows(b_q0_s0.high_right, k_q0_s0 + 4u);
    // @end
    // @region BROADCAST
    let first_q0 = k0 + (/*q*/0u * LANES + lane) * 8u;
    let own_k_q0 = eight(first_q0, p.K, p.a_k);
    // @end
    // @end

    for (var m0 = first; m0 < end; m0 += ROWS) {
      // @unroll r ROWS
      // The last row once more in place of those that follow it.
      let m_r0 = min(m0 + /*r*/0u, end - 1u);
      let row_r0 = at.x + m_r0 * p.a_m;
      let result_r0 = (product * p.M + m_r0) * p.N;
      // @region SUMS
      let sums_row_r0 = (product * p.M + m_r0) * ((p.N + 3u) / 4u);
      // @end
      var acc_r0: Eight;
      // @end
      // @region AGAIN
      if k0 > 0u {
        // @unroll r ROWS
        // @region !SUMS
        acc_r0 = read_out8(result_r0, n);
        // @end
        // @region SUMS
        acc_r0 = read_sums(sums_row_r0, n);
        // @end
        // @end
      }
      // @end
      // @unroll q OWN
      // @region BROADCAST
      // @unroll r ROWS
      let own_a_q0_r0 = ended8(row_a(Places(row_r0 + own_k_q0.low, row_r0 + own_k_q0.high)), first_q0);
      // @end
      // @end
      // @unroll s SLICES
      // @unroll r ROWS
      var a_q0_s0_r0: Eight;
      // @region BROADCAST
      a_q0_s0_r0.low = subgroupBroadcast(own_a_q0_r0.low, /*s*/0u);
      a_q0_s0_r0.high = subgroupBroadcast(own_a_q0_r0.high, /*s*/0u);
      // @end
      // @region UNIFORM
      let places_q0_s0_r0 = Places(row_r0 + four(k_q0_s0, p.K) * p.a_k, row_r0 + four(k_q0_s0 + 4u, p.K) * p.a_k);
      a_q0_s0_r0 = ended8(row_a(places_q0_s0_r0), k_q0_s0);
      // @end
      // @end
      // @unroll r ROWS
      acc_r0.low = sum(acc_r0.low, a_q0_s0_r0.low.x, low_left_q0_s0[0]);
      acc_r0.high = sum(acc_r0.high, a_q0_s0_r0.low.x, low_right_q0_s0[0]);
      // @end
      // @unroll r ROWS
      acc_r0.low = sum(acc_r0.low, a_q0_s0_r0.low.y, low_left_q0_s0[1]);
      acc_r0.high = sum(acc_r0.high, a_q0_s0_r0.low.y, low_right_q0_s0[1]);
      // @end
      // @unroll r ROWS
      acc_r0.low = sum(acc_r0.low, a_q0_s0_r0.low.z, low_left_q0_s0[2]);
      acc_r0.high = sum(acc_r0.high, a_q0_s0_r0.low.z, low_right_q0_s0[2]);
      // @end
      // @unroll r ROWS
      acc_r0.low = sum(acc_r0.low, a_q0_s0_r0.low.w, low_left_q0_s0[3]);
      acc_r0.high = sum(acc_r0.high, a_q0_s0_r0.low.w, low_right_q0_s0[3]);
      // @end
      // @unroll r ROWS
      acc_r0.low = sum(acc_r0.low, a_q0_s0_r0.high.x, high_left_q0_s0[0]);
      acc_r0.high = sum(acc_r0.high, a_q0_s0_r0.high.x, high_right_q0_s0[0]);
      // @end
      // @unroll r ROWS
      acc_r0.low = sum(acc_r0.low, a_q0_s0_r0.high.y, high_left_q0_s0[1]);
      acc_r0.high = sum(acc_r0.high, a_q0_s0_r0.high.y, high_right_q0_s0[1]);
      // @end
      // @unroll r ROWS
      acc_r0.low = sum(acc_r0.low, a_q0_s0_r0.high.z, high_left_q0_s0[2]);
      acc_r0.high = sum(acc_r0.high, a_q0_s0_r0.high.z, high_right_q0_s0[2]);
      // @end
      // @unroll r ROWS
      acc_r0.low = sum(acc_r0.low, a_q0_s0_r0.high.w, high_left_q0_s0[3]);
      acc_r0.high = sum(acc_r0.high, a_q0_s0_r0.high.w, high_right_q0_s0[3]);
      // @end
      // @end
      // @end
      // @region !APART
      let last = k0 + BK >= p.K;
      // @unroll r ROWS
      // @region EPILOGUE
      if last {
        // @region BIAS_ROWS
        shift = Eight(bias4(at, m_r0, n), bias4(at, m_r0, n + 4u));
        // @end
        acc_r0 = finish8(acc_r0, shift, at, m_r0, n);
      }
      // @end
      // @region !SUMS
      write_out8(result_r0, n, acc_r0);
      // @end
      // @region SUMS
      if last {
        write_out8(result_r0, n, acc_r0);
      } else {
        write_sums(sums_row_r0, n, acc_r0);
      }
      // @end
      // @end
      // @end
      // @region APART
      // @unroll r ROWS
      // @region !SUMS
      write_out8(result_r0, n, acc_r0);
      // @end
      // @region SUMS
      write_sums(sums_row_r0, n, acc_r0);
      // @end
      // @end
      // @end
    }
  }

  // @region APART
  for (var m = first; m < end; m++) {
    let result = (product * p.M + m) * p.N;
    var acc: Eight;
    // @region !SUMS
    acc = read_out8(result, n);
    // @end
    // @region SUMS
    acc = read_sums((product * p.M + m) * ((p.N + 3u) / 4u), n);
    // @end
    // @region EPILOGUE
    // @region BIAS_ROWS
    shift = Eight(bias4(at, m, n), bias4(at, m, n + 4u));
    // @end
    acc = finish8(acc, shift, at, m, n);
    // @end
    write_out8(result, n, acc);
  }
  // @end
}
