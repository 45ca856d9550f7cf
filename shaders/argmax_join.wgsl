// The second stage of the split argmax, one result an invocation: the best of the places that the shares of a result found.
//
//     out = found_s with the largest x[found_s], of equal elements the first or the last

const KEPT_AXES: u32 = 0u; // @slot KEPT_AXES: kept axes inside of the outermost, as far as one stride doesn't cover them
const LAST: bool = false; // @slot LAST: of equal elements the last is taken, not the first
const WG: u32 = 64u; // @slot WG: invocations of a workgroup

struct Params {
  results: u32,
  // Of a result, in the order of the axis.
  shares: u32,
  // The first element; strides along the axis and of the outermost kept axis, then of the other kept axes, innermost first.
  x: u32,
  x_axis: u32,
  x_kept: u32,
  // @unroll r KEPT_AXES
  size_r0: u32,
  x_r0: u32,
  // @end
}

alias scalar = f32; // @slot scalar: f32 | i32 | u32

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<scalar>; // (kept, axis) strided
@group(0) @binding(2) var<storage, read> found: array<i32>; // (kept, shares)
@group(0) @binding(3) var<storage, read_write> out: array<i32>; // (kept)

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let index = (group.x + group.y * groups.x) * WG + local;
  if index >= p.results {
    return;
  }
  var start = p.x;
  var rest = index;
  // @unroll r KEPT_AXES
  start += (rest % p.size_r0) * p.x_r0;
  rest /= p.size_r0;
  // @end
  start += rest * p.x_kept;

  var place = found[index * p.shares];
  var most = x[start + u32(place) * p.x_axis];
  for (var i = 1u; i < p.shares; i++) {
    let other = found[index * p.shares + i];
    let v = x[start + u32(other) * p.x_axis];
    if v > most || (LAST && v == most) {
      most = v;
      place = other;
    }
  }
  out[index] = place;
}
