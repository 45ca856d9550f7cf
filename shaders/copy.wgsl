// Copies, concatenation and padding: an output put together from parts, four consecutive elements together.
//
//   out[e] = x_n[…] for the last part n that e is in, else what was there before (a fill value, or what `out` has)
//
// A part is a strided operand and a box in the output. Elements travel as bits, so that every value of every dtype arrives
// as it is, and narrow outputs are written in whole words: the owner of a word finds out where each element comes from.
// Sizes, strides, offsets and boxes are in `p.words`, so that a new shape compiles nothing. UNROLL is as in pointwise.wgsl.
//
// Tried: one dispatch an operand; each then needs atomics, or reads the words back that it shares with its neighbour.

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

// @region X0
alias block0 = vec4<u32>; // @slot block0: vec4<u32> | vec2<u32> | u32
@group(0) @binding(1) var<storage, read> x0: array<block0>;
// @slot read0: the bits of elements 4i … 4i + 3; those outside of part 0 are as in y
fn read0(i: u32, y: vec4<u32>) -> vec4<u32> { return x0[i]; }
// @end
// @region X1
alias block1 = vec4<u32>; // @slot block1: vec4<u32> | vec2<u32> | u32
@group(0) @binding(2) var<storage, read> x1: array<block1>;
// @slot read1: the bits of elements 4i … 4i + 3; those outside of part 1 are as in y
fn read1(i: u32, y: vec4<u32>) -> vec4<u32> { return x1[i]; }
// @end
// @region X2
alias block2 = vec4<u32>; // @slot block2: vec4<u32> | vec2<u32> | u32
@group(0) @binding(3) var<storage, read> x2: array<block2>;
// @slot read2: the bits of elements 4i … 4i + 3; those outside of part 2 are as in y
fn read2(i: u32, y: vec4<u32>) -> vec4<u32> { return x2[i]; }
// @end
// @region X3
alias block3 = vec4<u32>; // @slot block3: vec4<u32> | vec2<u32> | u32
@group(0) @binding(4) var<storage, read> x3: array<block3>;
// @slot read3: the bits of elements 4i … 4i + 3; those outside of part 3 are as in y
fn read3(i: u32, y: vec4<u32>) -> vec4<u32> { return x3[i]; }
// @end
// @region X4
alias block4 = vec4<u32>; // @slot block4: vec4<u32> | vec2<u32> | u32
@group(0) @binding(5) var<storage, read> x4: array<block4>;
// @slot read4: the bits of elements 4i … 4i + 3; those outside of part 4 are as in y
fn read4(i: u32, y: vec4<u32>) -> vec4<u32> { return x4[i]; }
// @end
// @region X5
alias block5 = vec4<u32>; // @slot block5: vec4<u32> | vec2<u32> | u32
@group(0) @binding(6) var<storage, read> x5: array<block5>;
// @slot read5: the bits of elements 4i … 4i + 3; those outside of part 5 are as in y
fn read5(i: u32, y: vec4<u32>) -> vec4<u32> { return x5[i]; }
// @end
// @region X6
alias block6 = vec4<u32>; // @slot block6: vec4<u32> | vec2<u32> | u32
@group(0) @binding(7) var<storage, read> x6: array<block6>;
// @slot read6: the bits of elements 4i … 4i + 3; those outside of part 6 are as in y
fn read6(i: u32, y: vec4<u32>) -> vec4<u32> { return x6[i]; }
// @end

alias block = vec4<u32>; // @slot block: vec4<u32> | vec2<u32> | u32
@group(0) @binding(8) var<storage, read_write> out: array<block>; // (elements / 4)

// @slot pack: four elements as a block
fn pack(y: vec4<u32>) -> block { return y; }

// @slot before: the bits of elements 4i … 4i + 3 where there is no part
fn before(i: u32) -> vec4<u32> { return vec4<u32>(0u); }

// @slot elements: the bits of elements 4i … 4i + 3 of the output
fn elements(i: u32) -> vec4<u32> { return read1(i, read0(i, before(i))); }

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
