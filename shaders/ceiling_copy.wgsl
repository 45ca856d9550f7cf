// What memory gives to a kernel that only copies: the ceiling of all that read about as much as they write.
//
//     y[i] = x[i]
//
// Each word is read once and written once, in whole vectors, side by side over the lanes; UNROLL loads are under way before the
// first store. The size of x and y says which memory is measured: within the caches, or past them.
//
// On lavapipe a vector costs its instructions, wherever it lies, and a workgroup costs as much as 20 of them, so an invocation
// takes several turns there.
//
// Trusted: the host makes x and y `workgroups · turns · UNROLL · LANES` vectors long, and `turns` rounds end the loop.

const UNROLL: u32 = 4u; // @slot UNROLL: vectors of an invocation in one turn
const LANES: u32 = 64u; // @slot LANES: invocations of a workgroup

struct Params {
  // Rounds of an invocation.
  turns: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (workgroups, turns, UNROLL, LANES)
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>; // (workgroups, turns, UNROLL, LANES)

const_assert UNROLL >= 1u;
const_assert LANES <= 256u;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  var i = (group.x + group.y * groups.x) * p.turns * UNROLL * LANES + lane;
  // The factor is 1: see README.md on uniforms that alone end a loop.
  for (var turn = 0u; turn < p.turns * groups.z; turn++) {
    // @unroll k UNROLL
    let v_k0 = x[i + /*k*/0u * LANES];
    // @end
    // @unroll k UNROLL
    y[i + /*k*/0u * LANES] = v_k0;
    // @end
    i += UNROLL * LANES;
  }
}
