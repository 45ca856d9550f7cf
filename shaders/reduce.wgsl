// Reductions, one result an invocation: no workgroup memory, no features. The portable variant, for GPUs where results lie
// side by side, and both stages of the split variant on software adapters.
//
//     out = f(x_0, x_1, ...)      f: sum, mean, maximum, minimum; over any axes
//
// Sums are added up in blocks, and blocks in two stages, so that rounding errors grow slower than with the number of
// elements.
//
// Tried on lavapipe (sum of 4096x768, against a copy's time): this 0.5 along rows and 1.0 along columns. A subgroup's time over
// this one's, with Mesa 22.3 and 26.2: rows of 8 3.4 and 4.4, of 64 2.2 and 2.6, of 768 1.15 and 1.2, of 16384 0.93 and 0.89.
// Rows of 767, which begin anywhere: in whole words and single ends 0.4 and 0.7 of the time of single elements; rows of 30
// 0.9 and 1.25, in pairs 0.8 and 0.9.

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

const WG: u32 = 64u; // @slot WG: invocations of a workgroup

// Elems that are joined before they join the others.
const BLOCK: u32 = 8u;
// Blocks of the first stage.
const STAGE: u32 = 32u;

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
  let begin = min(index % p.shares * p.elems_of_share, p.elems);
  var left = min(p.elems - begin, p.elems_of_share);
  // The share begins within a run of the innermost axis; the others are taken from their start.
  var run = begin / max(p.inner, 1u);
  var from_inner = begin % max(p.inner, 1u);

  let identity = elem(bitcast<scalar>(p.identity));
  var whole = identity;
  var recent = identity;
  var blocks = 0u;
  // @region ENDS
  var ends = stat(bitcast<scalar>(p.identity));
  // @end
  while left > 0u {
    let count = min(left, p.inner - from_inner);
    var at = start + run_start(run) + from_inner * p.x_inner;
    var elems = count;
    // @region ENDS
    let words = whole_words(at, at + count);
    ends = join_stats(ends, part_of_ends(at, words, at + count, 0u, 1u));
    at = words.x / WIDTH;
    elems = (words.y - words.x) / WIDTH;
    // @end
    var i = 0u;
    for (; i + BLOCK <= elems; i += BLOCK) {
      var block = load(at + i * p.x_inner);
      // @unroll k 7
      let v_k0 = load(at + (i + 1u + /*k*/0u) * p.x_inner);
      block = join(block, v_k0);
      // @end
      recent = join(recent, block);
      blocks += 1u;
      if blocks == STAGE {
        whole = join(whole, recent);
        recent = identity;
        blocks = 0u;
      }
    }
    for (; i < elems; i++) {
      recent = join(recent, load(at + i * p.x_inner));
    }
    left -= count;
    run += 1u;
    from_inner = 0u;
  }
  var all = fold(join(whole, recent));
  // @region ENDS
  all = join_stats(all, ends);
  // @end
  out[index] = finish(all);
}
