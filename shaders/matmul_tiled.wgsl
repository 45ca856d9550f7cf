// Batched matrix product by tiles in workgroup memory, TM rows by 4·TQ columns an invocation in registers; the next
// tiles are on their way from memory while these are multiplied. For GPUs.
//
//     out[i, m, n] = activation(scale · Σ_k a[i, m, k] · b[i, k, n] + bias[i, m, n]) + residual[i, m, n]
//
// A workgroup sums `part` terms. With several parts (split-K) `out` holds one sum after the other, for matmul_reduce.wgsl.
// Staging goes along whichever axis is dense in memory, so that neighbours read neighbours (A_BY_M, B_BY_K).
//
// On lavapipe tiles of 128x128 reach 16 GFLOP/s at 512³, of 64x64 9, of 32x32 8: a quarter of matmul_panel.wgsl at best.
//
// Trusted: each index of a, b, bias and residual is a sum over axes of strides times an index below the axis' size (`four`
// and `min` see to it where a tile hangs over), as the layouts have it; each index of `out` is below parts·products·M·N
// (rows are tested, write_out4 counts columns); indices of tiles are below the sizes that the const_asserts tie to WG. Each
// loop counts a u32 up to a bound below 2³¹. Of 16-bit elements, the word of an element in range is in range.

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

const BM: u32 = 64u; // @slot BM: rows of a tile
const BN: u32 = 64u; // @slot BN: columns of a tile
const KQ: u32 = 4u; // @slot KQ: quads of terms of a tile
const TM: u32 = 4u; // @slot TM: rows of an invocation
const TQ: u32 = 1u; // @slot TQ: quads of columns of an invocation
const LA: u32 = 1u; // @slot LA: quads of a that an invocation stages
const LB: u32 = 1u; // @slot LB: quads of b that an invocation stages
const BK: u32 = 4u * KQ;
const BQ: u32 = BN / 4u;
const ROWS: u32 = BM / TM;
const QUADS: u32 = BQ / TQ;
const WG: u32 = ROWS * QUADS;
// One quad of padding keeps rows in different banks.
const PITCH: u32 = KQ + 1u;
const_assert BM % TM == 0u && BQ % TQ == 0u && BN % 4u == 0u;
const_assert LA * WG == BM * KQ && LB * WG == BK * BQ;
const_assert 16u * (BM * PITCH + BK * BQ) <= 16384u && WG <= 256u;

var<workgroup> tile_a: array<vec4<f32>, BM * PITCH>; // (BM, KQ) quads along k
var<workgroup> tile_b: array<vec4<f32>, BK * BQ>; // (BK, BQ) quads along n

// Row and quad of a's tile that an invocation stages.
fn place_a(e: u32) -> vec2<u32> {
  var place = vec2<u32>(e / KQ, e % KQ);
  // @region A_BY_M
  place = vec2<u32>(e % BM, e / BM);
  // @end
  return place;
}

// Row and quad of b's tile that an invocation stages.
fn place_b(e: u32) -> vec2<u32> {
  var place = vec2<u32>(e / BQ, e % BQ);
  // @region B_BY_K
  place = vec2<u32>(e % BK, e / BK);
  // @end
  return place;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let across = (p.N + BN - 1u) / BN;
  let down = (p.M + BM - 1u) / BM;
  let parts = (p.K + p.part - 1u) / p.part;
  let w = group.x + group.y * groups.x;
  if w >= parts * p.products * down * across {
    return;
  }
  let n0 = w % across * BN;
  let m0 = w / across % down * BM;
  let result = w / (across * down);
  let at = starts(result % p.products);
  let first = result / p.products * p.part;
  let end = min(first + p.part, p.K);

  // @unroll l LA
  let place_a_l0 = place_a(/*l*/0u * WG + local);
  let row_a_l0 = at.x + min(m0 + place_a_l0.x, p.M - 1u) * p.a_m;
  var next_a_l0 = vec4<f32>();
  // @end
  // @unroll l LB
  let place_b_l0 = place_b(/*l*/0u * WG + local);
  let columns_b_l0 = at.y + four(n0 + place_b_l0.y * 4u, p.N) * p.b_n;
  var next_b_l0 = vec4<f32>();
  // @end
  let y = local / QUADS;
  let x = local % QUADS;
  // @unroll c TQ
  // @unroll r TM
  var acc_r0_c0 = vec4<f32>();
  // @end
  // @end

  for (var k0 = first; k0 < end + BK; k0 += BK) {
    if k0 > first {
      workgroupBarrier();
      // @unroll l LA
      tile_a[place_a_l0.x * PITCH + place_a_l0.y] = next_a_l0;
      // @end
      // @unroll l LB
      tile_b[place_b_l0.x * BQ + place_b_l0.y] = next_b_l0;
      // @end
      workgroupBarrier();
    }
    if k0 < end {
      // The last elements stand for those past the end: as they may be infinite, those of both operands become 0.
      // @unroll l LA
      let k_a_l0 = k0 + place_a_l0.y * 4u;
      next_a_l0 = load_a4(row_a_l0 + four(k_a_l0, p.K) * p.a_k);
      // @region TAIL
      next_a_l0 = select(vec4<f32>(), next_a_l0, k_a_l0 + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.K));
      // @end
      // @end
      // @unroll l LB
      let k_b_l0 = k0 + place_b_l0.x;
      next_b_l0 = load_b4(columns_b_l0 + min(k_b_l0, p.K - 1u) * p.b_k);
      // @region TAIL
      next_b_l0 = select(vec4<f32>(), next_b_l0, k_b_l0 < p.K);
      // @end
      // @end
    }
    if k0 > first {
      // @unroll q KQ
      // @unroll c TQ
      let b_x_q0_c0 = tile_b[(/*q*/0u * 4u) * BQ + x + /*c*/0u * QUADS];
      let b_y_q0_c0 = tile_b[(/*q*/0u * 4u + 1u) * BQ + x + /*c*/0u * QUADS];
      let b_z_q0_c0 = tile_b[(/*q*/0u * 4u + 2u) * BQ + x + /*c*/0u * QUADS];
      let b_w_q0_c0 = tile_b[(/*q*/0u * 4u + 3u) * BQ + x + /*c*/0u * QUADS];
      // @end
      // @unroll r TM
      let a_q0_r0 = tile_a[(y + /*r*/0u * ROWS) * PITCH + /*q*/0u];
      // @unroll c TQ
      acc_r0_c0 += a_q0_r0.x * b_x_q0_c0;
      acc_r0_c0 += a_q0_r0.y * b_y_q0_c0;
      acc_r0_c0 += a_q0_r0.z * b_z_q0_c0;
      acc_r0_c0 += a_q0_r0.w * b_w_q0_c0;
      // @end
      // @end
      // @end
    }
  }

  // @unroll r TM
  let m_r0 = m0 + y + /*r*/0u * ROWS;
  if m_r0 < p.M {
    // @unroll c TQ
    let n_r0_c0 = n0 + (x + /*c*/0u * QUADS) * 4u;
    let i_r0_c0 = (result * p.M + m_r0) * p.N + n_r0_c0;
    write_out4(i_r0_c0, p.N - min(n_r0_c0, p.N), epilogue4(acc_r0_c0, at, m_r0, n_r0_c0));
    // @end
  }
  // @end
}
