// Rotary position embedding: the features of a row turn pairwise by the angles of its position.
//
//   y[i] = x[i] cos - x[j] sin,  y[j] = x[j] cos + x[i] sin        cos, sin: row clamp(positions[b, t]) of the tables
//
// for pairs (i, j) = (2i, 2i + 1), or (i, i + R/2); features from R on are copied. Su et al., "RoFormer", 2021.
// An invocation makes one feature and reads its partner's too: twice the loads of x, which caches serve, for outputs
// that are written in order.

const WORKGROUP: u32 = 64u; // @slot WORKGROUP: invocations of a workgroup
const INTERLEAVED: bool = false; // @slot INTERLEAVED: pairs are neighbours, not halves

struct Params {
  elements: u32, // B H T D
  heads: u32, // H
  tokens: u32, // T
  width: u32, // D
  pairs: u32, // R/2
  rows: u32, // of the tables, at least 1
  offset: u32, // of x
  stride_b: u32,
  stride_h: u32,
  stride_t: u32,
  stride_d: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (B, H, T, D), strided
@group(0) @binding(2) var<storage, read> cos_table: array<f32>; // (P, R/2)
@group(0) @binding(3) var<storage, read> sin_table: array<f32>; // (P, R/2)
@group(0) @binding(4) var<storage, read> positions: array<i32>; // (B, T)
@group(0) @binding(5) var<storage, read_write> y: array<f32>; // (B, H, T, D)

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let e = (group.x + group.y * groups.x) * WORKGROUP + lane;
  if e >= p.elements {
    return;
  }
  let d = e % p.width;
  let row = e / p.width;
  let t = row % p.tokens;
  let h = (row / p.tokens) % p.heads;
  let b = row / p.tokens / p.heads;
  let base = p.offset + b * p.stride_b + h * p.stride_h + t * p.stride_t;
  let own = x[base + d * p.stride_d];
  if d >= 2u * p.pairs {
    y[e] = own;
    return;
  }
  var pair = select(d, d - p.pairs, d >= p.pairs);
  var second = d >= p.pairs;
  var partner = select(d + p.pairs, d - p.pairs, second);
  if INTERLEAVED {
    pair = d / 2u;
    second = (d & 1u) == 1u;
    partner = d ^ 1u;
  }
  let other = x[base + partner * p.stride_d];
  let at = u32(clamp(positions[b * p.tokens + t], 0, i32(p.rows) - 1)) * p.pairs + pair;
  let turned = other * sin_table[at];
  y[e] = own * cos_table[at] + select(-turned, turned, second);
}
