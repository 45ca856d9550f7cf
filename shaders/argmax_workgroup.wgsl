// The place of the largest element, a result by LANES invocations of a workgroup, which has several results side by side. For
// GPUs, and there the first stage of the split variant.
//
//     out = argmax_j x_j, of equal elements the first or the last
//
// The lanes' bests meet in a tree in workgroup memory.

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

const LANES: u32 = 64u; // @slot LANES: invocations of a result, a power of two
const ROWS: u32 = 4u; // @slot ROWS: results of a workgroup
const CHUNKS: u32 = 3u; // @slot CHUNKS: elems that a lane takes in straight-line code; a result has at least LANES * CHUNKS

const WG: u32 = LANES * ROWS;
const_assert((LANES & (LANES - 1u)) == 0u);

var<workgroup> bests: array<Best, WG>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let first = (group.x + group.y * groups.x) * ROWS;
  if first >= p.stats {
    return;
  }
  let lane = local % LANES;
  // Idle invocations of the last workgroup do the last result again, and keep it to themselves.
  let mine = first + local / LANES < p.stats;
  let index = min(first + local / LANES, p.stats - 1u);
  let start = result_start(index / p.shares);
  // A share that has nothing takes the last elem, and a lane that has nothing the first of the share.
  let begin = min(index % p.shares * p.elems_of_share, p.elems - 1u);
  let end = min(begin + p.elems_of_share, p.elems);
  var most = x[start + begin * p.x_axis];
  var place = elem_place(begin);
  // @unroll k CHUNKS
  let i_k0 = begin + lane + /*k*/0u * LANES;
  let v_k0 = x[start + i_k0 * p.x_axis];
  let wins_k0 = select(v_k0 > most, v_k0 >= most, LAST);
  most = select(most, v_k0, wins_k0);
  place = select(place, elem_place(i_k0), wins_k0);
  // @end
  for (var i = begin + CHUNKS * LANES + lane; i < end; i += LANES) {
    let v = x[start + i * p.x_axis];
    let wins = select(v > most, v >= most, LAST);
    most = select(most, v, wins);
    place = select(place, elem_place(i), wins);
  }
  let best = fold(most, place);

  bests[local] = best;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if lane < step {
      bests[local] = better(bests[local], bests[local + step]);
    }
    workgroupBarrier();
  }
  if mine && lane == 0u {
    out[index] = result(bests[local].place);
  }
}
