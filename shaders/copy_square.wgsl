// Copy of a transposed view by squares of four times four elements in registers: reads and writes are of whole blocks.
//
//   out[r, t, j] = x[base(r) + t + j * step]        t: the axis along which x is dense, j: the last axis of the output
//
// An invocation reads four blocks, each of four elements along t, and writes four blocks, each of four elements along j.
// Elements travel as bits. It needs neither workgroup memory nor barriers, which are slow on software adapters; each
// block that is not a gather of single elements saves them the most.
//
// Tried on lavapipe (4096x768, 1024x1024; processor time, Mesa 22.3 and 26): squares one after the other along t 24, 5.1 and
// 8.6, 2.8 ms; by tiles of 8 by 8 17, 3.9 and 6.1, 2.1; by 64 along j, as now, 11, 3.2 and 5.6, 1.7; by 1024 26, 3.6 and 13,
// 2.5.

const WORKGROUP: u32 = 64u; // @slot WORKGROUP: invocations of a workgroup
const WORDS: u32 = 1u; // @slot WORDS: vectors of parameters

struct Params {
  squares: u32, // in all
  step: u32, // of j in x, in blocks
  row: u32, // of t in the output, in blocks
  unused: u32,
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

alias block = vec4<u32>; // @slot block: vec4<u32> | vec2<u32> | u32
@group(0) @binding(1) var<storage, read> x: array<block>; // four elements each
@group(0) @binding(2) var<storage, read_write> out: array<block>; // likewise

// @slot pack: four elements as a block
fn pack(y: vec4<u32>) -> block { return y; }

// @slot unpack: the bits of the four elements of a block
fn unpack(w: block) -> vec4<u32> { return w; }

// @slot read_base: the first block of square i in x
fn read_base(i: u32) -> u32 { return i; }

// @slot write_base: the first block of square i in the output
fn write_base(i: u32) -> u32 { return i; }

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * WORKGROUP + lane;
  if i >= p.squares {
    return;
  }
  let first = read_base(i);
  let a = unpack(x[first]);
  let b = unpack(x[first + p.step]);
  let c = unpack(x[first + 2u * p.step]);
  let d = unpack(x[first + 3u * p.step]);
  let to = write_base(i);
  out[to] = pack(vec4<u32>(a.x, b.x, c.x, d.x));
  out[to + p.row] = pack(vec4<u32>(a.y, b.y, c.y, d.y));
  out[to + 2u * p.row] = pack(vec4<u32>(a.z, b.z, c.z, d.z));
  out[to + 3u * p.row] = pack(vec4<u32>(a.w, b.w, c.w, d.w));
}
