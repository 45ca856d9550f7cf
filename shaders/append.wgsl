// Rows written into a cache at a position per batch item; the rest of the cache stays as it is.
//
//   cache[b, m, positions[b] + t, i] = update[b, m, t, i]         circular: the place is taken modulo the cache's size
//
// with m over the axes between the item and the one that grows, i over the words of a row. A row whose place is outside
// is dropped; the first invocation counts those rows for all items. Elements travel as bits.

const WORKGROUP: u32 = 64u; // @slot WORKGROUP: invocations of a workgroup
const CIRCULAR: bool = false; // @slot CIRCULAR: places are taken modulo the cache's size

struct Params {
  words: u32, // of the update: B M U I
  items: u32, // B
  middle: u32, // M
  places: u32, // of the cache
  rows: u32, // U, of the update, at most `places`
  inner: u32, // I, words of a row
  offset: u32, // of the update, in words
  stride_b: u32,
  stride_m: u32,
  stride_t: u32,
  stride_i: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> update: array<u32>; // (B, M, U, I), strided
@group(0) @binding(2) var<storage, read> positions: array<i32>; // (B)
@group(0) @binding(3) var<storage, read_write> cache: array<u32>; // (B, M, places, I)
@group(0) @binding(4) var<storage, read_write> dropped: array<i32>; // (1)

// Where row t of an update at `position` goes; below 0 or from `places` on it has no place.
fn place(position: i32, t: u32) -> i32 {
  let places = i32(p.places);
  if CIRCULAR {
    return ((position % places + places) % places + i32(t)) % places;
  }
  // Far outside is as good as just outside, and does not overflow.
  return clamp(position, -i32(p.rows), places) + i32(t);
}

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let e = (group.x + group.y * groups.x) * WORKGROUP + lane;
  if e == 0u {
    var lost = 0;
    for (var b = 0u; b < p.items; b++) {
      let first = place(positions[b], 0u);
      if !CIRCULAR {
        lost += clamp(-first, 0, i32(p.rows)) + clamp(first + i32(p.rows) - i32(p.places), 0, i32(p.rows));
      }
    }
    dropped[0] = lost;
  }
  if e >= p.words {
    return;
  }
  let i = e % p.inner;
  let row = e / p.inner;
  let t = row % p.rows;
  let m = (row / p.rows) % p.middle;
  let b = row / p.rows / p.middle;
  let at = place(positions[b], t);
  if at >= 0 && at < i32(p.places) {
    cache[((b * p.middle + m) * p.places + u32(at)) * p.inner + i] =
      update[p.offset + b * p.stride_b + m * p.stride_m + t * p.stride_t + i * p.stride_i];
  }
}
