// The second half of split-K: adds up the parts of each sum, in order, and applies the epilogue.
//
//     out[i, m, n] = activation(scale · Σ_s partial[s, i, m, n] + bias[i, m, n]) + residual[i, m, n]

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

@group(0) @binding(1) var<storage, read> partials: array<f32>; // (parts, batch, M, N)

// [block matmul_result]
alias bias_word = f32; // @slot bias_word: f32 | vec4<f32>
alias residual_word = f32; // @slot residual_word: f32 | vec4<f32>
alias out_word = f32; // @slot out_word: f32 | vec4<f32>

// @region BIAS
@group(0) @binding(3) var<storage, read> bias: array<bias_word>; // (batch, M, N) strided
// @slot load_bias: one element
fn load_bias(i: u32) -> f32 { return bias[i]; }
// @slot load_bias4: four elements, of one word where bias_word is a vector
fn load_bias4(i: vec4<u32>) -> vec4<f32> { return vec4<f32>(bias[i.x], bias[i.y], bias[i.z], bias[i.w]); }
// @end
// @region RESIDUAL
@group(0) @binding(4) var<storage, read> residual: array<residual_word>; // (batch, M, N) strided
// @slot load_residual: one element
fn load_residual(i: u32) -> f32 { return residual[i]; }
// @slot load_residual4: four elements, of one word where residual_word is a vector
fn load_residual4(i: vec4<u32>) -> vec4<f32> { return vec4<f32>(residual[i.x], residual[i.y], residual[i.z], residual[i.w]); }
// @end
@group(0) @binding(5) var<storage, read_write> out: array<out_word>; // (batch, M, N)

// @slot activation: applied to each element of the scaled and biased product
fn activation(x: f32) -> f32 { return x; }

// The element at (m, n) of a product that starts at `at`.
fn epilogue(product: f32, at: vec4<u32>, m: u32, n: u32) -> f32 {
  var x = p.scale * product;
  // @region BIAS
  x += load_bias(at.z + m * p.bias_m + n * p.bias_n);
  // @end
  x = activation(x);
  // @region RESIDUAL
  x += load_residual(at.w + m * p.residual_m + n * p.residual_n);
  // @end
  return x;
}

// Four columns from `n` on; the last column stands for those past it.
fn epilogue4(product: vec4<f32>, at: vec4<u32>, m: u32, n: u32) -> vec4<f32> {
  let columns = four(n, p.N);
  var x = p.scale * product;
  // @region BIAS
  x += load_bias4(at.z + m * p.bias_m + columns * p.bias_n);
  // @end
  x = vec4<f32>(activation(x.x), activation(x.y), activation(x.z), activation(x.w));
  // @region RESIDUAL
  x += load_residual4(at.w + m * p.residual_m + columns * p.residual_n);
  // @end
  return x;
}

// @slot write_out4: the first `columns` of four columns, to element `i` on
fn write_out4(i: u32, columns: u32, x: vec4<f32>) { if columns > 0u { out[i] = x.x; } if columns > 1u { out[i + 1u] = x.y; } if columns > 2u { out[i + 2u] = x.z; } if columns > 3u { out[i + 3u] = x.w; } }
// [end]

const WG: u32 = 64u; // @slot WG: invocations of a workgroup

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let index = (group.x + group.y * groups.x) * WG + local;
  let elements = p.products * p.M * p.N;
  if index >= elements {
    return;
  }
  let parts = bound((p.K + p.part - 1u) / p.part, groups);
  var sum = 0.0;
  for (var s = 0u; s < parts; s++) {
    sum += partials[s * elements + index];
  }
  let at = starts(index / (p.M * p.N));
  out[index] = epilogue(sum, at, index / p.N % p.M, index % p.N);
}
