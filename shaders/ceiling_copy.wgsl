// What memory gives to a kernel that only copies: the ceiling of all that read about as much as they write.
//
//     y[i] = x[i]
//
// Each word is read once and written once, in whole vectors, side by side over the lanes; UNROLL loads are under way before the
// first store. The size of x and y says which memory is measured: within the caches, or past them.
//
// On lavapipe a vector costs its instructions, wherever it lies, and eight invocations as much to begin as five vectors each.
// The fastest there is one long line without a loop, each vector stored before the next is loaded, 256 invocations, in words of
// 64 bits. Times of it (Mesa 22.3, Mesa 26.2): in words of 32 bits (1.4, 1.6), with all loads first (1.5, 1.8), in turns of a
// loop (1.6, 2.0), 64 invocations (1.05, 1.02), two words of 64 bits a vector (1.2, 1.2), single words of 32 (3, 2.9). Words of
// 64 bits that go straight from load to store take 2.5 times as long on Mesa 22.3: they have to be taken apart on the way.
//
// Trusted: the host makes x and y `workgroups · turns · UNROLL · LANES` vectors long, and `turns` rounds end the loop.

const UNROLL: u32 = 4u; // @slot UNROLL: vectors of an invocation in one turn
const LANES: u32 = 64u; // @slot LANES: invocations of a workgroup

struct Params {
  // Rounds of an invocation; 1 without the loop.
  turns: u32,
  // 0, which no compiler knows.
  zero: u32,
}

alias word = vec4<f32>; // @slot word: vec4<f32> | vec4<u64>

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<word>; // (workgroups, turns, UNROLL, LANES)
@group(0) @binding(2) var<storage, read_write> y: array<word>; // (workgroups, turns, UNROLL, LANES)

const_assert UNROLL >= 1u;
const_assert LANES <= 256u;

// @slot carry: a vector on its way
fn carry(w: word) -> word { return w; }

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  var i = (group.x + group.y * groups.x) * p.turns * UNROLL * LANES + lane;
  // @region TURNS
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
  // @end
  // @region !TURNS
  // @unroll k UNROLL
  y[i + /*k*/0u * LANES] = carry(x[i + /*k*/0u * LANES]);
  // @end
  // @end
}
