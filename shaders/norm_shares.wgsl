// The first dispatch of the split norm: of each share of a row, by LANES invocations, mean and sum of squared differences from
// it. For rows that are few and long, so that one workgroup a row would leave the device idle. Then comes norm_apply.wgsl.
//
//     s = x + residual,  mean of s,  sum of (s - mean)^2      over the share; RMS: mean = 0
//
// In one pass, as in norm.wgsl: blocks by two passes in registers, merged as Chan, Golub and LeVeque (1979) do, and all of it
// less the average of the share's head. A software adapter has shares of one invocation each, and no workgroup memory.
//
// Tried on lavapipe (Mesa 22.3, both dispatches, with weight and bias, against a copy's time): 4 rows of 262,144 2.2, where one a
// subgroup is 2.7 and one an invocation 2.5; Mesa 26.2 0.96, 1.09 and 0.98 ms. Of 32 rows of 65,536 one an invocation takes
// 0.8 of this one's time, but keeps only two cores busy.

// [block norm: parameters, operands, addresses]
const ROW_AXES: u32 = 0u; // @slot ROW_AXES: leading axes inside of the outermost, as far as one stride doesn't cover them
const COL_AXES: u32 = 0u; // @slot COL_AXES: trailing axes inside of the outermost, likewise
const PACK: u32 = 1u; // @slot PACK: elements of an elem, 4 where rows are dense and aligned
const RMS: bool = false; // @slot RMS: no mean is taken off

struct Params {
  rows: u32,
  // Elements of a row, and elems; the shares it is dealt into, and elems of a share, of which the last may have less.
  width: u32,
  elems: u32,
  shares: u32,
  elems_of_share: u32,
  // Rows that a workgroup does one after the other.
  turns: u32,
  epsilon: f32,
  // First elems.
  x: u32,
  residual: u32,
  weight: u32,
  bias: u32,
  // Strides of the outermost leading axis and of the outermost trailing one; then the others, innermost first.
  x_row: u32,
  residual_row: u32,
  x_col: u32,
  residual_col: u32,
  weight_col: u32,
  bias_col: u32,
  // @unroll r ROW_AXES
  size_r0: u32,
  x_r0: u32,
  residual_r0: u32,
  // @end
  // @unroll c COL_AXES
  size_c0: u32,
  x_c0: u32,
  residual_c0: u32,
  weight_c0: u32,
  bias_c0: u32,
  // @end
}

alias elem = f32; // @slot elem: f32 | vec4<f32>
// As it lies in memory. Two narrow elements share a word; single ones are never written.
alias x_word = elem; // @slot x_word: elem | u32 | vec2<u32>
alias residual_word = elem; // @slot residual_word: likewise
alias weight_word = elem; // @slot weight_word: likewise
alias bias_word = elem; // @slot bias_word: likewise
alias y_word = elem; // @slot y_word: elem | vec2<u32>
alias sum_word = elem; // @slot sum_word: likewise

@group(0) @binding(0) var<uniform> p: Params;
// @region X
@group(0) @binding(1) var<storage, read> x: array<x_word>; // (rows, width) strided
// @end
// @region RESIDUAL
@group(0) @binding(2) var<storage, read> residual: array<residual_word>; // (rows, width) strided
// @end
// @region WEIGHT
@group(0) @binding(3) var<storage, read> weight: array<weight_word>; // (width) strided
// @end
// @region BIAS
@group(0) @binding(4) var<storage, read> bias: array<bias_word>; // (width) strided
// @end
// @region Y
@group(0) @binding(5) var<storage, read_write> y: array<y_word>; // (rows, width)
// @end
// @region SUM
@group(0) @binding(6) var<storage, read_write> sum: array<sum_word>; // (rows, width)
// @end
// @region MEAN
@group(0) @binding(7) var<storage, read_write> mean: array<f32>; // (rows)
// @end
// @region RSTD
@group(0) @binding(8) var<storage, read_write> rstd: array<f32>; // (rows)
// @end

// @slot read_x: as f32; from y where they share a buffer
fn read_x(i: u32) -> elem { return x[i]; }
// @slot read_residual: likewise, or 0 without one
fn read_residual(i: u32) -> elem { return residual[i]; }
// @slot read_weight: 1 without one
fn read_weight(i: u32) -> elem { return weight[i]; }
// @slot read_bias: 0 without one
fn read_bias(i: u32) -> elem { return bias[i]; }
// @region Y
// @slot write_y: rounded once if y is narrow
fn write_y(i: u32, v: elem) { y[i] = v; }
// @end
// @region SUM
// @slot write_sum: likewise
fn write_sum(i: u32, v: elem) { sum[i] = v; }
// @end
// @slot total: the elements of an elem added up
fn total(v: elem) -> f32 { return v; }

// Where a row starts in x and residual.
fn row_start(row: u32) -> vec2<u32> {
  var at = vec2<u32>(p.x, p.residual);
  var rest = row;
  // @unroll r ROW_AXES
  at += (rest % p.size_r0) * vec2<u32>(p.x_r0, p.residual_r0);
  rest /= p.size_r0;
  // @end
  return at + rest * vec2<u32>(p.x_row, p.residual_row);
}

// How far from the start of a row elem `j` is in x, residual, weight and bias.
fn column(j: u32) -> vec4<u32> {
  var at = vec4<u32>();
  var rest = j;
  // @unroll c COL_AXES
  at += (rest % p.size_c0) * vec4<u32>(p.x_c0, p.residual_c0, p.weight_c0, p.bias_c0);
  rest /= p.size_c0;
  // @end
  return at + rest * vec4<u32>(p.x_col, p.residual_col, p.weight_col, p.bias_col);
}

// Elem `j` of the row that starts at `at`.
fn load(at: vec2<u32>, j: u32) -> elem {
  let c = column(j);
  return read_x(at.x + c.x) + read_residual(at.y + c.y);
}

fn load_weight(j: u32) -> elem {
  return read_weight(p.weight + column(j).z);
}

fn load_bias(j: u32) -> elem {
  return read_bias(p.bias + column(j).w);
}

fn store_sum(i: u32, s: elem) {
  // @region SUM
  write_sum(i, s);
  // @end
}

fn store_statistics(row: u32, average: f32, inverse: f32) {
  // @region MEAN
  mean[row] = average;
  // @end
  // @region RSTD
  rstd[row] = inverse;
  // @end
}
// [end]

// @region NARROW
// [block narrow: f32 to the bits of narrower floats]
// The bits of the nearest f16, halves to even: drivers may truncate in pack2x16float.
fn f16_bits(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let a = bits & 0x7fffffffu;
  let subnormal = bitcast<u32>(abs(x) + 0.5) - 0x3f000000u;
  let normal = (a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u;
  let large = select(0x7c00u, 0x7e00u, a > 0x7f800000u);
  return ((bits >> 16u) & 0x8000u) | select(select(normal, subnormal, a < 0x38800000u), large, a >= 0x47800000u);
}

// The bits of the nearest bf16, halves to even.
fn bf16_bits(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  return select((bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u, (bits >> 16u) | 0x40u, (bits & 0x7fffffffu) > 0x7f800000u);
}
// [end]
// @end

// [block norm shares: how the parts of a row meet]
const LANES: u32 = 64u; // @slot LANES: invocations of a share, a power of two
const ROWS: u32 = 4u; // @slot ROWS: shares of a workgroup

const WG: u32 = LANES * ROWS;
const_assert((LANES & (LANES - 1u)) == 0u);

// Of a part of a row: how many elements, their mean less the shift that it was taken with, and the sum of squared
// differences from the mean.
struct Part {
  count: f32,
  mean: f32,
  squares: f32,
}

// Chan, Golub and LeVeque, 1979.
fn join(a: Part, b: Part) -> Part {
  let count = a.count + b.count;
  let apart = b.mean - a.mean;
  let weight = b.count / max(count, 1.0);
  return Part(count, a.mean + apart * weight, a.squares + b.squares + apart * apart * (a.count * weight));
}

// @region TREE
var<workgroup> parts_of_lanes: array<Part, WG>;
// @end

// What the lanes of a share have, joined.
fn join_lanes(part: Part, local: u32, lane: u32) -> Part {
  var all = part;
  // @region TREE
  parts_of_lanes[local] = part;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if lane < step {
      parts_of_lanes[local] = join(parts_of_lanes[local], parts_of_lanes[local + step]);
    }
    workgroupBarrier();
  }
  all = parts_of_lanes[local - lane];
  // @end
  return all;
}
// [end]

@group(0) @binding(9) var<storage, read_write> parts: array<vec4<f32>>; // (rows, shares): shift, count, mean, squares

// Elems that a lane sums up in registers.
const BLOCK: u32 = 8u;
// Blocks after which sums go from the first stage to the second.
const STAGE: u32 = 32u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let first = (group.x + group.y * groups.x) * ROWS;
  if first >= p.rows * p.shares {
    return;
  }
  let lane = local % LANES;
  // Idle invocations of the last workgroup do the last share again, and keep it to themselves.
  let mine = first + local / LANES < p.rows * p.shares;
  let index = min(first + local / LANES, p.rows * p.shares - 1u);
  let row = index / p.shares;
  let at = row_start(row);
  let out = row * p.elems;
  let begin = min(index % p.shares * p.elems_of_share, p.elems);
  let end = min(begin + p.elems_of_share, p.elems);

  var shift = 0.0;
  if !RMS {
    let head = min(end - begin, BLOCK);
    var first_elems = elem();
    for (var i = 0u; i < head; i++) {
      first_elems += load(at, begin + i);
    }
    shift = total(first_elems) / f32(max(head * PACK, 1u));
  }

  // Of each of the PACK columns: the sum, and the sum of squared differences from the mean. Each is added up in two
  // stages, so that rounding errors don't grow with the length of a share.
  var count = 0.0;
  var per_count = 0.0;
  var whole = elem();
  var squares = elem();
  var recent = elem();
  var recent_squares = elem();
  var blocks = 0u;
  var i = begin + lane;
  for (; i + (BLOCK - 1u) * LANES < end; i += BLOCK * LANES) {
    // @unroll k 8
    let s_k0 = load(at, i + /*k*/0u * LANES);
    keep_sum(mine, out + i + /*k*/0u * LANES, s_k0);
    let d_k0 = s_k0 - shift;
    // @end
    var block = elem();
    if !RMS {
      // @unroll k 8
      block += d_k0;
      // @end
    }
    let center = block * (1.0 / f32(BLOCK));
    var block_squares = elem();
    // @unroll k 8
    block_squares += (d_k0 - center) * (d_k0 - center);
    // @end
    let apart = center - (whole + recent) * per_count;
    per_count = 1.0 / (count + f32(BLOCK));
    recent_squares += block_squares + apart * apart * (f32(BLOCK) * count * per_count);
    recent += block;
    count += f32(BLOCK);
    blocks += 1u;
    if blocks % STAGE == 0u {
      whole += recent;
      squares += recent_squares;
      recent = elem();
      recent_squares = elem();
    }
  }
  for (; i < end; i += LANES) {
    let s = load(at, i);
    keep_sum(mine, out + i, s);
    let d = s - shift;
    if RMS {
      recent_squares += d * d;
    } else {
      let apart = d - (whole + recent) * per_count;
      per_count = 1.0 / (count + 1.0);
      recent_squares += apart * apart * (count * per_count);
      recent += d;
    }
    count += 1.0;
  }
  whole += recent;
  squares += recent_squares;

  // Over all columns.
  let averages = whole / max(count, 1.0);
  let average = total(averages) / f32(PACK);
  let apart = averages - average;
  let part = Part(count * f32(PACK), average, total(squares) + total(apart * apart) * count);
  let share = join_lanes(part, local, lane);
  if mine && lane == 0u {
    parts[index] = vec4<f32>(shift, share.count, share.mean, share.squares);
  }
}

// x + residual is kept by the one who does the share first.
fn keep_sum(mine: bool, i: u32, s: elem) {
  // @region SUM
  if mine {
    store_sum(i, s);
  }
  // @end
}
