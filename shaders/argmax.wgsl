// The place of the largest element, one result an invocation: no workgroup memory, no features. The portable variant, for GPUs
// where results lie side by side, and the first stage of the split variant on software adapters.
//
//     out = argmax_j x_j, of equal elements the first or the last
//

// [block argmax: parameters, operands, addresses, choice]
const KEPT_AXES: u32 = 0u; // @slot KEPT_AXES: kept axes inside of the outermost, as far as one stride doesn't cover them
const LAST: bool = false; // @slot LAST: of equal elements the last is taken, not the first

struct Params {
  // Results, times the shares that the elems of each are dealt into.
  stats: u32,
  shares: u32,
  // Of a result, and of a share; the last may have less.
  elems: u32,
  elems_of_share: u32,
  // Stats that a workgroup does one after the other.
  turns: u32,
  // The first elem; strides along the axis and of the outermost kept axis, then of the other kept axes, innermost first.
  x: u32,
  x_axis: u32,
  x_kept: u32,
  // @unroll r KEPT_AXES
  size_r0: u32,
  x_r0: u32,
  // @end
}

alias scalar = f32; // @slot scalar: f32 | i32 | u32
// Vectors along the axis where that is dense and aligned, or along the innermost kept axis; a stat is what is left of an elem
// that is reduced. Places are indices of elems, later of elements.
alias elem = scalar; // @slot elem: scalar | vec4<scalar>
alias stat = scalar; // @slot stat: scalar | vec4<scalar>
alias elem_place = u32; // @slot elem_place: u32 | vec4<u32>
alias stat_place = u32; // @slot stat_place: u32 | vec4<u32>
alias result = i32; // @slot result: i32 | vec4<i32>

struct Best {
  value: stat,
  place: stat_place,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>; // (kept, axis) strided
@group(0) @binding(2) var<storage, read_write> out: array<result>; // (kept, shares)

// Where the elems of a result start.
fn result_start(result_index: u32) -> u32 {
  var at = p.x;
  var rest = result_index;
  // @unroll r KEPT_AXES
  at += (rest % p.size_r0) * p.x_r0;
  rest /= p.size_r0;
  // @end
  return at + rest * p.x_kept;
}

// Of two elements in any order.
fn better(a: Best, b: Best) -> Best {
  var wins = (b.value > a.value) | ((b.value == a.value) & (b.place < a.place));
  if LAST {
    wins = (b.value > a.value) | ((b.value == a.value) & (b.place > a.place));
  }
  return Best(select(a.value, b.value, wins), select(a.place, b.place, wins));
}

// @slot fold: the best of an elem along the axis
fn fold(v: elem, place: elem_place) -> Best { return Best(v, place); }
// [end]

const WG: u32 = 64u; // @slot WG: invocations of a workgroup

// Elems that are loaded together.
const BLOCK: u32 = 8u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let index = (group.x + group.y * groups.x) * WG + local;
  if index >= p.stats {
    return;
  }
  let start = result_start(index / p.shares);
  // A share that has nothing takes the last elem.
  let begin = min(index % p.shares * p.elems_of_share, p.elems - 1u);
  let end = min(begin + p.elems_of_share, p.elems);

  var most = x[start + begin * p.x_axis];
  var place = elem_place(begin);
  var i = begin + 1u;
  for (; i + BLOCK <= end; i += BLOCK) {
    // @unroll k 8
    let v_k0 = x[start + (i + /*k*/0u) * p.x_axis];
    // @end
    // @unroll k 8
    let wins_k0 = select(v_k0 > most, v_k0 >= most, LAST);
    most = select(most, v_k0, wins_k0);
    place = select(place, elem_place(i + /*k*/0u), wins_k0);
    // @end
  }
  for (; i < end; i++) {
    let v = x[start + i * p.x_axis];
    let wins = select(v > most, v >= most, LAST);
    most = select(most, v, wins);
    place = select(place, elem_place(i), wins);
  }
  out[index] = result(fold(most, place).place);
}
