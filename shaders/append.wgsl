// Rows written into a cache at a position per batch item; the rest of the cache stays as it is.
//
//   cache[b, m, positions[b] + t, i] = update[b, m, t, i]         circular: the place is taken modulo the cache's size
//
// Paged, an item's places are in pages, which a table names:
//
//   cache[table[b, n / S], n % S, m, i] = update[b, m, t, i]       n = positions[b] + t
//
// with m over the axes between the item and the one that grows, i over the words of a row. A row whose place is outside
// is dropped, as is one whose page is not there; the first invocation counts those rows for all items. Elements travel as bits.

const WORKGROUP: u32 = 64u; // @slot WORKGROUP: invocations of a workgroup
const CIRCULAR: bool = false; // @slot CIRCULAR: places are taken modulo the cache's size

struct Params {
  words: u32, // of the update: B M U I
  items: u32, // B
  middle: u32, // M
  places: u32, // of an item
  rows: u32, // U, of the update, at most `places`
  inner: u32, // I, words of a row
  offset: u32, // of the update, in words
  stride_b: u32,
  stride_m: u32,
  stride_t: u32,
  stride_i: u32,
  page_rows: u32, // S
  pages: u32, // of an item
  all_pages: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> update: array<u32>; // (B, M, U, I), strided
@group(0) @binding(2) var<storage, read> positions: array<i32>; // (B)
// @region PAGED
@group(0) @binding(3) var<storage, read> table: array<i32>; // (B, pages)
// @end
@group(0) @binding(4) var<storage, read_write> cache: array<u32>; // (B, M, places, I); paged (all_pages, S, M, I)
@group(0) @binding(5) var<storage, read_write> dropped: array<i32>; // (1)

// Where row t of an update at `position` goes; below 0 or from `places` on it has no place.
fn place(position: i32, t: u32) -> i32 {
  let places = i32(p.places);
  if CIRCULAR {
    return ((position % places + places) % places + i32(t)) % places;
  }
  // Far outside is as good as just outside, and does not overflow.
  return clamp(position, -i32(p.rows), places) + i32(t);
}

// @region PAGED
// The page of an item's place, which is in range; -1 if there is no such page.
fn page_of(b: u32, place: u32) -> i32 {
  let page = table[b * p.pages + place / p.page_rows];
  return select(-1, page, page < i32(p.all_pages));
}
// @end

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
      // @region PAGED
      let end = min(first + i32(p.rows), i32(p.places));
      var at = max(first, 0);
      while at < end {
        let next = min((at / i32(p.page_rows) + 1) * i32(p.page_rows), end);
        lost += select(0, next - at, page_of(b, u32(at)) < 0);
        at = next;
      }
      // @end
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
    var to = (b * p.middle + m) * p.places + u32(at);
    // @region PAGED
    let page = page_of(b, u32(at));
    if page < 0 {
      return;
    }
    to = (u32(page) * p.page_rows + u32(at) % p.page_rows) * p.middle + m;
    // @end
    cache[to * p.inner + i] = update[p.offset + b * p.stride_b + m * p.stride_m + t * p.stride_t + i * p.stride_i];
  }
}
