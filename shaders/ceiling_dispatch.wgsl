// As little as a dispatch can do: one invocation writes one word. What many of them take is the cost of a dispatch, below which no
// step of a program comes.
//
//     y[0] = word
//
// Trusted: the host makes y one word long, and there is one workgroup of one invocation.

struct Params {
  word: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<u32>; // (1)

@compute @workgroup_size(1)
fn main() {
  y[0] = p.word;
}
