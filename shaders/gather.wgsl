// Embedding lookup: slices of a tensor along an axis, picked by indices; four consecutive elements together.
//
//   out[b, i, a] = data[b, pick(indices[i]), a]       pick(k) = clamp(k < 0 ? k + N : k, 0, N - 1)
//
// with b over the axes before the picked one, a over those after it, i over those of the indices. Elements travel as bits,
// and narrow outputs are written in whole words. Where the four elements come from one slice and lie in one block, an
// index is read once and the block is read whole. Sizes, strides and offsets are in `p.words`. UNROLL is as in pointwise.wgsl.

const WORKGROUP: u32 = 256u;
const UNROLL: u32 = 1u; // @slot UNROLL: blocks of an invocation, a workgroup's width apart
const WORDS: u32 = 1u; // @slot WORDS: vectors of parameters

struct Params {
  blocks: u32, // of four elements, in the output; the last may be part
  last: u32, // the output's last element
  words: array<vec4<u32>, WORDS>,
}

@group(0) @binding(0) var<uniform> p: Params;

// n / d for n < 2^31, by a multiplication: m = ceil(2^(31 + s) / d) and s = ceil(log2 d) come from the host. Granlund and
// Montgomery, "Division by invariant integers using multiplication", 1994. (n / d is several times slower on adapters
// that divide lane by lane.)
fn quotient(n: u32, m: u32, s: u32) -> u32 {
  let a = 2u * n;
  let low = (a & 0xffffu) * (m & 0xffffu);
  let middle = (a >> 16u) * (m & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (m >> 16u) + (middle & 0xffffu);
  return ((a >> 16u) * (m >> 16u) + (middle >> 16u) + (other >> 16u)) >> s;
}

alias data_block = vec4<u32>; // @slot data_block: vec4<u32> | vec2<u32> | u32
@group(0) @binding(1) var<storage, read> data: array<data_block>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;

alias block = vec4<u32>; // @slot block: vec4<u32> | vec2<u32> | u32
@group(0) @binding(3) var<storage, read_write> out: array<block>; // (elements / 4)

// @slot pack: four elements as a block
fn pack(y: vec4<u32>) -> block { return y; }

// The place of an index on an axis of size n.
fn pick(index: u32, n: u32) -> u32 {
  let k = bitcast<i32>(index);
  return u32(clamp(select(k, k + i32(n), k < 0), 0, i32(n) - 1));
}

// @slot elements: the bits of elements 4i … 4i + 3 of the output
fn elements(i: u32) -> vec4<u32> { return data[pick(indices[i], 1u)]; }

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * WORKGROUP * UNROLL + lane;
  // @unroll k UNROLL
  let i_k0 = i + /*k*/0u * WORKGROUP;
  let y_k0 = elements(min(i_k0, p.blocks - 1u));
  if i_k0 < p.blocks {
    out[i_k0] = pack(y_k0);
  }
  // @end
}
