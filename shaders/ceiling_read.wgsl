// What memory gives to a kernel that only reads: the ceiling of reductions and of products with one row, which write next to
// nothing.
//
//     y[g] = Σ x[i] over what an invocation g reads
//
// As in ceiling_copy.wgsl, with a sum in place of the stores; UNROLL sums are independent, or one over those of a turn, which on
// lavapipe saves storing what the loop carries. That each invocation writes its sum keeps the loads from being left out.
//
// The fastest on lavapipe are words of 64 bits; times of them (Mesa 22.3, Mesa 26.2): words of 32 bits (1.4, 1.35),
// independent sums (1.15, 1.07), no loop (1.02, 1.0).
//
// Trusted: the host makes x `workgroups · turns · UNROLL · LANES` vectors long and y `workgroups · LANES`, and `turns` rounds
// end the loop.

const UNROLL: u32 = 4u; // @slot UNROLL: vectors of an invocation in one turn
const LANES: u32 = 64u; // @slot LANES: invocations of a workgroup

struct Params {
  // Rounds of an invocation.
  turns: u32,
  unused: u32,
}

alias word = vec4<f32>; // @slot word: vec4<f32> | vec4<u64>

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<word>; // (workgroups, turns, UNROLL, LANES)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (workgroups, LANES)

const_assert UNROLL >= 1u;
const_assert LANES <= 256u;

// @slot floats: a vector as numbers that have its sum
fn floats(w: word) -> vec4<f32> { return w; }

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let number = group.x + group.y * groups.x;
  var i = number * p.turns * UNROLL * LANES + lane;
  // @unroll k UNROLL
  var sum_k0 = vec4<f32>();
  // @end
  // The factor is 1: see README.md on uniforms that alone end a loop.
  for (var turn = 0u; turn < p.turns * groups.z; turn++) {
    // @region APART
    // @unroll k UNROLL
    sum_k0 += floats(x[i + /*k*/0u * LANES]);
    // @end
    // @end
    // @region !APART
    var part = vec4<f32>();
    // @unroll k UNROLL
    part += floats(x[i + /*k*/0u * LANES]);
    // @end
    sum_k0 += part;
    // @end
    i += UNROLL * LANES;
  }
  var total = vec4<f32>();
  // @unroll k UNROLL
  total += sum_k0;
  // @end
  y[number * LANES + lane] = total.x + total.y + total.z + total.w;
}
