enable f16;
enable wgpu_cooperative_matrix;

// Batched matrix product of f16 with f32 sums, on the units that GPUs have for small matrices: subgroups multiply matrices of
// S by S elements (KHR_cooperative_matrix, simdgroup_matrix). Native only: browsers have no such extension yet.
//
//     out[i, m, n] = activation(scale · Σ_k a[i, m, k] · b[i, k, n] + bias[i, m, n]) + residual[i, m, n]
//
// A workgroup of SM by SN subgroups, each with TM by TN matrices of sums, goes along K by slabs of BK terms, staged through
// workgroup memory: so M, N, K and strides may be any, and each slab lies as its operand does (A_BY_M, B_BY_K), loaded by
// rows or by columns. The next slab is on its way from memory while this one is multiplied. Sums leave through workgroup
// memory, because no element of such a matrix can be touched, and there are no f16 ones of f32 sums.
//
// A subgroup must have exactly LANES invocations, always, and the workgroup be cut into subgroups without a rest.
//
// Not covered by a specification: modules with such matrices are in Vulkan's memory model, and naga writes no availability
// and visibility operations for workgroup memory between barriers; formally slabs could be read stale. Drivers make workgroup
// memory visible at a barrier anyway; every device is asked once before it is trusted (see gpu/self_test.rs), and a test
// repeats products and wants the same bits. Arrays of such matrices become invalid SPIR-V: they are unrolled by name.
//
// On lavapipe (Mesa 26.2, which has 8x8) this is several times slower than matmul_panel.wgsl: for tests of its correctness.
//
// Trusted: each index of a, b, bias and residual is a sum over axes of strides times an index below the axis' size (`four` and
// `min` see to it where a slab hangs over), as the layouts have it; `out` is written where n < N and m < M; places in slabs
// are below ROWS times QUADS by the tests before the stores, those of matrices below SM·TM·S, SN·TN·S and KS·S, since there
// are SM·SN subgroups; `sums` has S rows for each. The loop counts a u32 up to a bound below 2³¹.

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

alias a_word = f16; // @slot a_word: f16 | vec4<f16>
alias b_word = f16; // @slot b_word: f16 | vec4<f16>

@group(0) @binding(1) var<storage, read> a: array<a_word>; // (batch, M, K) strided
@group(0) @binding(2) var<storage, read> b: array<b_word>; // (batch, K, N) strided

// @slot load_a4: four elements, of one word where a_word is as long
fn load_a4(i: vec4<u32>) -> vec4<f16> { return vec4<f16>(a[i.x], a[i.y], a[i.z], a[i.w]); }
// @slot load_b4: four elements, of one word where b_word is as long
fn load_b4(i: vec4<u32>) -> vec4<f16> { return vec4<f16>(b[i.x], b[i.y], b[i.z], b[i.w]); }

// @region NARROW
// [block narrow: f32 to 16 bits]
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

const S: u32 = 16u; // @slot S: rows and columns of a cooperative matrix
const LANES: u32 = 32u; // @slot LANES: invocations of a subgroup, always
const SM: u32 = 2u; // @slot SM: subgroups of a workgroup along m
const SN: u32 = 2u; // @slot SN: subgroups along n
const TM: u32 = 4u; // @slot TM: matrices of a subgroup along m
const TN: u32 = 4u; // @slot TN: matrices along n
const KS: u32 = 2u; // @slot KS: matrices along k of a slab
const BM: u32 = SM * TM * S;
const BN: u32 = SN * TN * S;
const BK: u32 = KS * S;
const WG: u32 = SM * SN * LANES;
// Rows of the slabs in workgroup memory and quads of a row: along k unless that is not how the operand lies.
const ROWS_A: u32 = 128u; // @slot ROWS_A: BM, or BK where a is dense along m
const ROWS_B: u32 = 32u; // @slot ROWS_B: BK, or BN where b is dense along k
const QUADS_A: u32 = BM * BK / ROWS_A / 4u;
const QUADS_B: u32 = BK * BN / ROWS_B / 4u;
// Two quads of padding keep rows aligned to 16 bytes, and in different banks.
const PITCH_A: u32 = QUADS_A + 2u;
const PITCH_B: u32 = QUADS_B + 2u;
const LA: u32 = 8u; // @slot LA: quads of a that an invocation stages
const LB: u32 = 8u; // @slot LB: quads of b that an invocation stages
// A matrix of sums on its way to memory, in quads along n; a quad of padding.
const QUADS_C: u32 = S / 4u;
const PITCH_C: u32 = QUADS_C + 1u;
const LC: u32 = 2u; // @slot LC: quads of a matrix of sums that an invocation writes, at the most
const_assert LA * WG >= ROWS_A * QUADS_A && LB * WG >= ROWS_B * QUADS_B && LC * LANES >= S * QUADS_C;
const_assert WG * (LA - 1u) < ROWS_A * QUADS_A && WG * (LB - 1u) < ROWS_B * QUADS_B;

alias mat_a = coop_mat16x16<f16, A>; // @slot mat_a: of S x S
alias mat_b = coop_mat16x16<f16, B>; // @slot mat_b: of S x S
alias mat_c = coop_mat16x16<f32, C>; // @slot mat_c: of S x S

var<workgroup> slab_a: array<vec4<f16>, ROWS_A * PITCH_A>; // (BM, BK), or (BK, BM) with A_BY_M
var<workgroup> slab_b: array<vec4<f16>, ROWS_B * PITCH_B>; // (BK, BN), or (BN, BK) with B_BY_K
var<workgroup> sums: array<vec4<f32>, SM * SN * S * PITCH_C>; // (subgroups, S, S)

// @slot matrix_a: the S x S from row `m` of the slab and term `k` on
fn matrix_a(m: u32, k: u32) -> mat_a { return coopLoadT<mat_a>(&slab_a[m * PITCH_A + k / 4u], PITCH_A); }
// @slot matrix_b: the S x S from term `k` and column `n` of the slab on
fn matrix_b(k: u32, n: u32) -> mat_b { return coopLoadT<mat_b>(&slab_b[k * PITCH_B + n / 4u], PITCH_B); }

// Four elements of a's slab from term `k0` on; `start` has their row or columns. The last terms stand for those past the end: as
// they may be infinite, those of both operands become 0.
fn fetch_a(start: vec4<u32>, row: u32, quad: u32, k0: u32) -> vec4<f16> {
  var x = vec4<f16>();
  // @region !A_BY_M
  let k = k0 + quad;
  x = load_a4(start + four(k, p.K) * p.a_k);
  // @region TAIL
  x = select(vec4<f16>(), x, k + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.K));
  // @end
  // @end
  // @region A_BY_M
  x = load_a4(start + min(k0 + row, p.K - 1u) * p.a_k);
  // @region TAIL
  x = select(vec4<f16>(), x, k0 + row < p.K);
  // @end
  // @end
  return x;
}

// Four elements of b's slab, likewise.
fn fetch_b(start: vec4<u32>, row: u32, quad: u32, k0: u32) -> vec4<f16> {
  var x = vec4<f16>();
  // @region !B_BY_K
  x = load_b4(start + min(k0 + row, p.K - 1u) * p.b_k);
  // @region TAIL
  x = select(vec4<f16>(), x, k0 + row < p.K);
  // @end
  // @end
  // @region B_BY_K
  let k = k0 + quad;
  x = load_b4(start + four(k, p.K) * p.b_k);
  // @region TAIL
  x = select(vec4<f16>(), x, k + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.K));
  // @end
  // @end
  return x;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let across = (p.N + BN - 1u) / BN;
  let down = (p.M + BM - 1u) / BM;
  let w = group.x + group.y * groups.x;
  if w >= p.products * down * across {
    return;
  }
  let n0 = w % across * BN;
  let m0 = w / across % down * BM;
  let result = w / (across * down);
  let at = starts(result);

  // What an invocation stages: the same place of each slab.
  // @unroll l LA
  let e_a_l0 = /*l*/0u * WG + local;
  let row_a_l0 = e_a_l0 / QUADS_A;
  let quad_a_l0 = e_a_l0 % QUADS_A * 4u;
  var start_a_l0 = vec4<u32>(at.x);
  // @region !A_BY_M
  start_a_l0 += min(m0 + row_a_l0, p.M - 1u) * p.a_m;
  // @end
  // @region A_BY_M
  start_a_l0 += four(m0 + quad_a_l0, p.M) * p.a_m;
  // @end
  // @end
  // @unroll l LB
  let e_b_l0 = /*l*/0u * WG + local;
  let row_b_l0 = e_b_l0 / QUADS_B;
  let quad_b_l0 = e_b_l0 % QUADS_B * 4u;
  var start_b_l0 = vec4<u32>(at.y);
  // @region !B_BY_K
  start_b_l0 += four(n0 + quad_b_l0, p.N) * p.b_n;
  // @end
  // @region B_BY_K
  start_b_l0 += min(n0 + row_b_l0, p.N - 1u) * p.b_n;
  // @end
  // @end

  let m_s = subgroup / SN * TM * S;
  let n_s = subgroup % SN * TN * S;
  // @unroll n TN
  // @unroll m TM
  var acc_m0_n0 = mat_c();
  // @end
  // @end

  // naga wants no branch around what subgroups do together, so the first slab is fetched before the loop.
  // @unroll l LA
  var next_a_l0 = fetch_a(start_a_l0, row_a_l0, quad_a_l0, 0u);
  // @end
  // @unroll l LB
  var next_b_l0 = fetch_b(start_b_l0, row_b_l0, quad_b_l0, 0u);
  // @end
  for (var k0 = 0u; k0 < p.K; k0 += BK) {
    workgroupBarrier();
    // @unroll l LA
    if e_a_l0 < ROWS_A * QUADS_A {
      slab_a[row_a_l0 * PITCH_A + quad_a_l0 / 4u] = next_a_l0;
    }
    // @end
    // @unroll l LB
    if e_b_l0 < ROWS_B * QUADS_B {
      slab_b[row_b_l0 * PITCH_B + quad_b_l0 / 4u] = next_b_l0;
    }
    // @end
    workgroupBarrier();
    if k0 + BK < p.K {
      // @unroll l LA
      next_a_l0 = fetch_a(start_a_l0, row_a_l0, quad_a_l0, k0 + BK);
      // @end
      // @unroll l LB
      next_b_l0 = fetch_b(start_b_l0, row_b_l0, quad_b_l0, k0 + BK);
      // @end
    }
    // @unroll k KS
    // @unroll m TM
    let a_k0_m0 = matrix_a(m_s + /*m*/0u * S, /*k*/0u * S);
    // @end
    // @unroll n TN
    let b_k0_n0 = matrix_b(/*k*/0u * S, n_s + /*n*/0u * S);
    // @unroll m TM
    acc_m0_n0 = coopMultiplyAdd(a_k0_m0, b_k0_n0, acc_m0_n0);
    // @end
    // @end
    // @end
  }

  // No element of a cooperative matrix can be touched: sums go through workgroup memory, one matrix of each subgroup at a time.
  let own = subgroup * S * PITCH_C;
  // @unroll m TM
  // @unroll n TN
  workgroupBarrier();
  coopStoreT(acc_m0_n0, &sums[own], PITCH_C);
  workgroupBarrier();
  // @unroll l LC
  write_quad(/*l*/0u * LANES + lane, own, at, result, m0 + m_s + /*m*/0u * S, n0 + n_s + /*n*/0u * S);
  // @end
  // @end
  // @end
}

// Quad `e` of the matrix at `own`, whose first element is at (m, n) of the result.
fn write_quad(e: u32, own: u32, at: vec4<u32>, result: u32, m: u32, n: u32) {
  let row = e / QUADS_C;
  let quad = e % QUADS_C;
  if row < S && m + row < p.M {
    let column = n + quad * 4u;
    let x = epilogue4(sums[own + row * PITCH_C + quad], at, m + row, column);
    write_out4((result * p.M + m + row) * p.N + column, p.N - min(column, p.N), x);
  }
}
