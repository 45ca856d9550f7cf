// Batched matrix product, one element of the result an invocation: no workgroup memory, no features. The portable
// variant.
//
//     out[i, m, n] = activation(scale · Σ_k a[i, m, k] · b[i, k, n] + bias[i, m, n]) + residual[i, m, n]
//
// Every operand but `out` is read through strides, in elements: 0 broadcasts, a negative one walks backwards (indices
// wrap in u32, so that their sum is right).

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

// [block matmul_flat: results in the order in which they lie]
const PER: u32 = 1u; // @slot PER: elements of an invocation: those of a word of out

// @slot write_word: to element `i` on, the first of a word
fn write_word(i: u32, x: vec2<f32>) { out[i] = x.x; }
// [end]

const WG: u32 = 64u; // @slot WG: invocations of a workgroup

fn element(index: u32, end: u32) -> f32 {
  let m = index / p.N % p.M;
  let n = index % p.N;
  let at = starts(index / (p.M * p.N));
  var i = at.x + m * p.a_m;
  var j = at.y + n * p.b_n;
  var product = 0.0;
  for (var k = 0u; k < end; k++) {
    product += load_a(i) * load_b(j);
    i += p.a_k;
    j += p.b_k;
  }
  return epilogue(product, at, m, n);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let index = ((group.x + group.y * groups.x) * WG + local) * PER;
  let elements = p.products * p.M * p.N;
  if index >= elements {
    return;
  }
  let end = bound(p.K, groups);
  // The last element stands for one past it.
  var x = vec2<f32>();
  // @unroll e PER
  x[/*e*/0u] = element(min(index + /*e*/0u, elements - 1u), end);
  // @end
  write_word(index, x);
}
