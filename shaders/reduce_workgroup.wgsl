// Reductions, a result by LANES invocations of a workgroup, which has several results side by side. For GPUs, and there both
// stages of the split variant.
//
//     out = f(x_0, x_1, ...)      f: sum, mean, maximum, minimum; over any axes
//
// The parts of the lanes meet in a tree in workgroup memory.
//
// On lavapipe, where barriers are costly, this is the slowest variant: 3 times a copy's time for the sums of 4096 rows of 768.

// [block reduce: parameters, operands, addresses]
const KEPT_AXES: u32 = 0u; // @slot KEPT_AXES: kept axes inside of the outermost, as far as one stride doesn't cover them
const OUTER_AXES: u32 = 0u; // @slot OUTER_AXES: reduced axes between the outermost and the innermost, likewise
const FLAT: bool = true; // @slot FLAT: there is but one reduced axis

struct Params {
  // Stats that are computed: results, times the shares that the elems of a result are dealt into.
  stats: u32,
  shares: u32,
  // Of a result, and of a share; the last may have less.
  elems: u32,
  elems_of_share: u32,
  // Stats that a workgroup does one after the other.
  turns: u32,
  // Bits of the result over nothing.
  identity: u32,
  // Of a mean.
  divisor: f32,
  // The first elem.
  x: u32,
  // The innermost reduced axis; then strides of the outermost kept and of the outermost reduced axis; then the axes
  // between, innermost first.
  inner: u32,
  x_inner: u32,
  x_kept: u32,
  x_outer: u32,
  // @unroll r KEPT_AXES
  size_r0: u32,
  x_r0: u32,
  // @end
  // @unroll c OUTER_AXES
  size_c0: u32,
  x_c0: u32,
  // @end
}

alias scalar = f32; // @slot scalar: f32 | i32 | u32
// Vectors along the innermost reduced axis where that is dense and aligned, or along the innermost kept axis; a stat is what
// is left of an elem that is reduced.
alias elem = scalar; // @slot elem: scalar | vec2<scalar> | vec4<scalar>
alias stat = scalar; // @slot stat: scalar | vec4<scalar>
alias word = elem; // @slot word: what lies in the buffer: elem, or eight elements

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<word>; // (kept, reduced) strided
// @region ENDS
// The same buffer. Lines that begin and end within a word are read in whole words, and at their ends from here; what is
// counted in elems above is then counted in elements.
@group(0) @binding(2) var<storage, read> x_ends: array<scalar>; // (kept, reduced) strided
// @end
@group(0) @binding(3) var<storage, read_write> out: array<stat>; // (kept, shares)

// @slot join: of two partial results
fn join(a: elem, b: elem) -> elem { return a + b; }
// @slot join_stats: likewise
fn join_stats(a: stat, b: stat) -> stat { return a + b; }
// @slot load: an elem; of eight elements, the halves are joined
fn load(i: u32) -> elem { return x[i]; }
// @slot fold: the elements of an elem along the reduced axis
fn fold(v: elem) -> stat { return v; }
// @slot finish: from the partial result of everything to the result
fn finish(v: stat) -> stat { return v; }

// Where the elems of a result start.
fn result_start(result: u32) -> u32 {
  var at = p.x;
  var rest = result;
  // @unroll r KEPT_AXES
  at += (rest % p.size_r0) * p.x_r0;
  rest /= p.size_r0;
  // @end
  return at + rest * p.x_kept;
}

// How far from there the run of number `run` of the innermost reduced axis is.
fn run_start(run: u32) -> u32 {
  var at = 0u;
  var rest = run;
  // @unroll c OUTER_AXES
  at += (rest % p.size_c0) * p.x_c0;
  rest /= p.size_c0;
  // @end
  return at + rest * p.x_outer;
}

// How far from there elem `j` is.
fn column(j: u32) -> u32 {
  if FLAT {
    return j * p.x_inner;
  }
  return run_start(j / p.inner) + (j % p.inner) * p.x_inner;
}

// @region ENDS
const WIDTH: u32 = 1u; // @slot WIDTH: elements of a word

// Of elements `first` to `past`, those that lie in whole words.
fn whole_words(first: u32, past: u32) -> vec2<u32> {
  let begin = min((first + WIDTH - 1u) / WIDTH * WIDTH, past);
  return vec2<u32>(begin, begin + (past - begin) / WIDTH * WIDTH);
}

// The part that a lane has of the others.
fn part_of_ends(first: u32, words: vec2<u32>, past: u32, lane: u32, lanes: u32) -> stat {
  var part = stat(bitcast<scalar>(p.identity));
  for (var i = first + lane; i < words.x; i += lanes) {
    part = join_stats(part, x_ends[i]);
  }
  for (var i = words.y + lane; i < past; i += lanes) {
    part = join_stats(part, x_ends[i]);
  }
  return part;
}
// @end
// [end]

const LANES: u32 = 64u; // @slot LANES: invocations of a result, a power of two
const ROWS: u32 = 4u; // @slot ROWS: results of a workgroup
const CHUNKS: u32 = 3u; // @slot CHUNKS: elems that a lane takes in straight-line code; a result has at least LANES * CHUNKS

const WG: u32 = LANES * ROWS;
const_assert((LANES & (LANES - 1u)) == 0u);

var<workgroup> parts: array<stat, WG>;

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
  var start = result_start(index / p.shares);
  var begin = min(index % p.shares * p.elems_of_share, p.elems);
  var end = min(begin + p.elems_of_share, p.elems);
  // @region ENDS
  let words = whole_words(start + begin, start + end);
  let ends = part_of_ends(start + begin, words, start + end, lane, LANES);
  start = 0u;
  begin = words.x / WIDTH;
  end = words.y / WIDTH;
  // @end
  var part = elem(bitcast<scalar>(p.identity));
  // @unroll k CHUNKS
  let v_k0 = load(start + column(begin + lane + /*k*/0u * LANES));
  part = join(part, v_k0);
  // @end
  for (var i = begin + CHUNKS * LANES + lane; i < end; i += LANES) {
    part = join(part, load(start + column(i)));
  }

  parts[local] = fold(part);
  // @region ENDS
  parts[local] = join_stats(parts[local], ends);
  // @end
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if lane < step {
      parts[local] = join_stats(parts[local], parts[local + step]);
    }
    workgroupBarrier();
  }
  if mine && lane == 0u {
    out[index] = finish(parts[local]);
  }
}
