enable subgroups;

// Batched product of few rows (decoding, vectors) with a matrix, which is read once, by single subgroups: no workgroup memory
// and no barriers, which are slow on software adapters.
//
//     out[i, m, n] = activation(scale · Σ_k a[i, m, k] · b[i, k, n] + bias[i, m, n]) + residual[i, m, n]
//
// Where b is dense along k, as the weights of a linear layer are (BY_K), the lanes share out the sums of COLUMNS columns by
// eights, and shuffles add up what they have. Elsewhere each lane has eight columns, and the elements of a, of which each lane
// loads eight, are broadcast. Rows past M repeat the last one and are not written.
//
// A panel (matmul_panel.wgsl) holds what it has read until the last row has passed, and writes and reads sums for each. Measured on lavapipe, weights of a linear layer, CPU time:
//
//                    Mesa 22.3 (LLVM 15)                        Mesa 26.2 (LLVM 22)
//     4096 → 1024    1 row 3.0 ms, 4 4.2, 8 5.6                 1 row 1.0 ms, 4 1.8, 8 3.3
//       panel        4.0, 5.4, 6.3                              2.25, 3.2, 4.1
//     4096 → 4096    12.3, 17.9, 25.5 (panel 23, 26, 54)        5.1, 8.8, 16 (panel 11.4, 14.1, 21)
//     int8, int4     2.5, 3.9 for a row (panel 3.0, 4.7)        0.8, 1.4 (panel 1.6, 1.8)
//
// Of that time take: words of four with Mesa 26 1.5 (there, too, a word of 64 bits is a load, and each is used for few products);
// COLUMNS = 8 0.95 for a row and 1.3 for eight. b dense along n takes, of a panel's time, 0.7 to 0.95 for a row and 1.4 for four
// with Mesa 22, 0.66 and 0.84 with Mesa 26.
//
// Trusted: `eight` and `min` keep each index of a, b, bias and residual below the size of its axis; `out` is written where n < N
// and m < M. The loop counts a u32 up to a bound below 2³¹. A word of several elements, eight, four or of few bits, is read where
// the axis is whole words: the word of an element in range is in range, and so are its group's scale and zero point.

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

const LANES: u32 = 8u; // @slot LANES: invocations of a subgroup, and of a workgroup
const HALVINGS: u32 = 3u; // @slot HALVINGS: log2 of LANES
const TM: u32 = 1u; // @slot TM: rows
const COLUMNS: u32 = 16u; // @slot COLUMNS: columns of a workgroup, by k
const QUADS: u32 = 4u; // @slot QUADS: COLUMNS / 4
const ROUNDS: u32 = 1u; // @slot ROUNDS: QUADS / LANES, rounded up
const WIDTH: u32 = 16u; // @slot WIDTH: columns of a workgroup: COLUMNS by k, else 8·LANES
const DEPTH: u32 = LANES * 8u;
const_assert COLUMNS == 4u * QUADS && ROUNDS * LANES >= QUADS && 1u << HALVINGS == LANES && (WIDTH == COLUMNS || WIDTH == DEPTH);

// @slot row_b: eight elements of b along its dense axis, of one word where b_word is as long
fn row_b(i: Places) -> Eight { return Eight(load_b4(i.low), load_b4(i.high)); }

// Terms from `k` on, with 0 for those past the end.
fn ended(x: Eight, k: u32) -> Eight {
  let terms = k + vec4<u32>(0u, 1u, 2u, 3u);
  let none = vec4<f32>();
  return Eight(select(none, x.low, terms < vec4<u32>(p.K)), select(none, x.high, terms + 4u < vec4<u32>(p.K)));
}

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let strips = (p.N + WIDTH - 1u) / WIDTH;
  let w = group.x + group.y * groups.x;
  if w >= p.products * strips {
    return;
  }
  let n0 = w % strips * WIDTH;
  let product = w / strips;
  let at = starts(product);
  // @unroll m TM
  let row_m0 = at.x + min(/*m*/0u, p.M - 1u) * p.a_m;
  // @end
  // @region BY_K
  // @unroll c COLUMNS
  let column_c0 = at.y + min(n0 + /*c*/0u, p.N - 1u) * p.b_n;
  // @end
  // @unroll m TM
  var sums_m0: array<f32, COLUMNS>;
  // @end
  // @end
  // @region !BY_K
  let n = n0 + lane * 8u;
  let columns = eight(n, p.N, p.b_n);
  // @unroll m TM
  var acc_m0: Eight;
  // @end
  // @end

  let a_k = p.a_k;
  let b_k = p.b_k;
  let end = bound(p.K, groups);
  for (var k0 = 0u; k0 < end; k0 += DEPTH) {
    let k = k0 + lane * 8u;
    let terms = eight(k, p.K, a_k);
    // @unroll m TM
    var a_m0 = row_a(Places(row_m0 + terms.low, row_m0 + terms.high));
    // @region TAIL
    a_m0 = ended(a_m0, k);
    // @end
    // @end
    // @region BY_K
    let own = eight(k, p.K, b_k);
    // @unroll c COLUMNS
    var b_c0 = row_b(Places(column_c0 + own.low, column_c0 + own.high));
    // @region TAIL
    b_c0 = ended(b_c0, k);
    // @end
    // @unroll m TM
    let x_m0_c0 = a_m0.low * b_c0.low + a_m0.high * b_c0.high;
    sums_m0[/*c*/0u] += (x_m0_c0.x + x_m0_c0.y) + (x_m0_c0.z + x_m0_c0.w);
    // @end
    // @end
    // @end
    // @region !BY_K
    // @unroll m TM
    let halves_m0 = array<vec4<f32>, 2>(a_m0.low, a_m0.high);
    // @end
    // @unroll s LANES
    // @unroll h 2
    // @unroll e 4
    let k_s0_h0_e0 = k0 + 8u * /*s*/0u + 4u * /*h*/0u + /*e*/0u;
    let at_s0_h0_e0 = at.y + min(k_s0_h0_e0, p.K - 1u) * b_k;
    var b_s0_h0_e0 = row_b(Places(at_s0_h0_e0 + columns.low, at_s0_h0_e0 + columns.high));
    // @region TAIL
    if k_s0_h0_e0 >= p.K {
      b_s0_h0_e0 = Eight();
    }
    // @end
    // @unroll m TM
    let a_m0_s0_h0_e0 = subgroupBroadcast(halves_m0[/*h*/0u][/*e*/0u], /*s*/0u);
    acc_m0.low += a_m0_s0_h0_e0 * b_s0_h0_e0.low;
    acc_m0.high += a_m0_s0_h0_e0 * b_s0_h0_e0.high;
    // @end
    // @end
    // @end
    // @end
    // @end
  }

  // @region BY_K
  // @unroll m TM
  // @unroll c COLUMNS
  // @unroll s HALVINGS
  sums_m0[/*c*/0u] += subgroupShuffleXor(sums_m0[/*c*/0u], 1u << /*s*/0u);
  // @end
  // @end
  // @end
  // All lanes have all sums: each finishes four columns of a row.
  // @unroll m TM
  // @unroll r ROUNDS
  let quad_m0_r0 = /*r*/0u * LANES + lane;
  var four_m0_r0 = vec4<f32>();
  // @unroll q QUADS
  four_m0_r0 = select(four_m0_r0, vec4<f32>(sums_m0[4u * /*q*/0u], sums_m0[4u * /*q*/0u + 1u], sums_m0[4u * /*q*/0u + 2u], sums_m0[4u * /*q*/0u + 3u]), quad_m0_r0 == /*q*/0u);
  // @end
  if quad_m0_r0 < QUADS && /*m*/0u < p.M {
    let n_m0_r0 = n0 + 4u * quad_m0_r0;
    write_out4((product * p.M + /*m*/0u) * p.N + n_m0_r0, p.N - min(n_m0_r0, p.N), epilogue4(four_m0_r0, at, /*m*/0u, n_m0_r0));
  }
  // @end
  // @end
  // @end
  // @region !BY_K
  // @unroll m TM
  if /*m*/0u < p.M {
    let row_out_m0 = (product * p.M + /*m*/0u) * p.N + n;
    write_out4(row_out_m0, p.N - min(n, p.N), epilogue4(acc_m0.low, at, /*m*/0u, n));
    write_out4(row_out_m0 + 4u, p.N - min(n + 4u, p.N), epilogue4(acc_m0.high, at, /*m*/0u, n + 4u));
  }
  // @end
  // @end
}
