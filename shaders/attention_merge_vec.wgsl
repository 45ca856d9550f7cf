// Attention over parts of the keys, joined: attention_merge.wgsl for dense f32 results with whole vectors of columns.
//
//     m = max_s lse_s, l = Σ_s exp(lse_s − m), out = Σ_s out_s·exp(lse_s − m) / l, lse = m + log l        over the parts with lse_s > LOWEST
//
// "Flash-Decoding for long-context inference", 2023. An invocation takes VECTORS vectors of a row, `columns / VECTORS` apart, so that
// neighbours read neighbouring vectors; it goes through the parts once for m, and once for the rest.
//
// Tried on lavapipe, 8 parts of 8×512 rows of 64, times the present one with eight vectors (Mesa 22.3, Mesa 26.2): an element an
// invocation, attention_merge.wgsl (7, 15); one vector (1.8, 2.8), four (1.0, 1.3); four with two parts at a time (1.0, 1.1).
//
// Trusted: the host makes the grid, and rows past the last return; `columns` is a multiple of VECTORS, and each loop ends after
// `parts` rounds.

const WG: u32 = 64u;
const VECTORS: u32 = 1u; // @slot VECTORS: of a row, that an invocation takes
const LOWEST: f32 = -3.40282346e+38f;

struct Params {
  parts: u32,
  rows: u32,
  // Vectors of a row.
  columns: u32,
  unused: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> outs: array<vec4<f32>>; // (parts, rows, columns)
@group(0) @binding(2) var<storage, read> lses: array<f32>; // (parts, rows)
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>; // (rows, columns)
// @region LSE
@group(0) @binding(4) var<storage, read_write> lse: array<f32>; // (rows)
// @end

const_assert VECTORS >= 1u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  let invocations = p.columns / VECTORS;
  let x = (workgroup.x + workgroup.y * grid.x) * WG + t;
  let r = x / invocations;
  if r >= p.rows {
    return;
  }
  let c = x - r * invocations;

  // The factor is 1: see README.md on uniforms that alone end a loop.
  let parts = p.parts * grid.z;
  var m = LOWEST;
  for (var s = 0u; s < parts; s++) {
    let lse_s = lses[s * p.rows + r];
    m = select(m, max(m, lse_s), lse_s > LOWEST);
  }
  var l = 0.0;
  // @unroll v VECTORS
  var acc_v0 = vec4<f32>();
  // @end
  for (var s = 0u; s < parts; s++) {
    let row = s * p.rows + r;
    let lse_s = lses[row];
    let keep = select(0.0, exp(max(lse_s - m, -200.0)), lse_s > LOWEST);
    l += keep;
    // @unroll v VECTORS
    acc_v0 += select(vec4<f32>(), keep * outs[row * p.columns + c + /*v*/0u * invocations], keep > 0.0);
    // @end
  }
  // @unroll v VECTORS
  out[r * p.columns + c + /*v*/0u * invocations] = select(vec4<f32>(), acc_v0 / l, l > 0.0);
  // @end
  // @region LSE
  if c == 0u {
    lse[r] = select(LOWEST, m + log(l), l > 0.0);
  }
  // @end
}
