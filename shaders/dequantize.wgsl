// Weights of few bits as f32, a word of them an invocation.
//
//     w[n, k] = scale[n, k / GROUP] · (q[n, k] - zero[n, k / GROUP])
//
// For readers other than a matmul, which takes the words as they are.

const BITS: u32 = 4u; // @slot BITS: of a number, 4 or 8
const GROUP: u32 = 32u; // @slot GROUP: numbers that share a scale; 0: those of a row
const PER_WORD: u32 = 32u / BITS;
const MASK: u32 = (1u << BITS) - 1u;
const WORKGROUP: u32 = 64u; // @slot WORKGROUP: invocations of a workgroup

struct Params {
  rows: u32,
  columns: u32,
  // Words of a row of q.
  words: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

alias scale_word = f32; // @slot scale_word: f32 | u32 (two halves)
@group(0) @binding(1) var<storage, read> q: array<u32>; // (rows, words)
@group(0) @binding(2) var<storage, read> scale: array<scale_word>; // (rows, groups)
// @region ZEROS
@group(0) @binding(3) var<storage, read> zeros: array<u32>; // (rows, groups), packed as q
// @end
@group(0) @binding(4) var<storage, read_write> w: array<f32>; // (rows, columns)

// @slot load_scale: one element
fn load_scale(i: u32) -> f32 { return scale[i]; }

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let at = (group.x + group.y * groups.x) * WORKGROUP + local;
  if at >= p.rows * p.words {
    return;
  }
  let n = at / p.words;
  let first = at % p.words * PER_WORD;
  // Rows are of whole groups, and groups of whole words.
  var g = n;
  if GROUP > 0u {
    g = at * PER_WORD / max(GROUP, 1u);
  }
  var zero = f32(1u << (BITS - 1u));
  // @region ZEROS
  zero = f32((zeros[g / PER_WORD] >> (g % PER_WORD * BITS)) & MASK);
  // @end
  let s = load_scale(g);
  var word = q[at];
  let end = min(PER_WORD, p.columns - min(first, p.columns));
  for (var i = 0u; i < end; i++) {
    w[n * p.columns + first + i] = s * (f32(word & MASK) - zero);
    word >>= BITS;
  }
}
