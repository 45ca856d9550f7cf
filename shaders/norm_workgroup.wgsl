// Layer norm and RMS norm, a row by LANES invocations of a workgroup, which has several rows side by side. For GPUs.
//
//     s = x + residual,  y = (s - mean) * rstd * weight + bias,  rstd = 1 / sqrt(var + epsilon)      RMS: mean = 0, var = mean of s^2
//
// Ba, Kiros and Hinton, 2016; Zhang and Sennrich, 2019. Two passes over registers; the second also adds up the plain
// differences, which are what rounding left of the mean ("corrected two-pass", Chan, Golub and LeVeque, 1979). Sums meet in
// a tree in workgroup memory.
//
// What a row has past CHUNKS elems a lane is loaded again for each pass.
//
// On lavapipe, where barriers are costly, this is the slowest variant: 7.7 times a copy's time for 4096x768.

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

const LANES: u32 = 64u; // @slot LANES: invocations of a row, a power of two
const ROWS: u32 = 4u; // @slot ROWS: rows of a workgroup
const CHUNKS: u32 = 3u; // @slot CHUNKS: elems of a row that a lane keeps in registers; the row has at least LANES * CHUNKS

const WG: u32 = LANES * ROWS;
const_assert((LANES & (LANES - 1u)) == 0u);

var<workgroup> parts: array<vec2<f32>, WG>;

// The sum over the lanes of a row.
fn row_sum(part: vec2<f32>, local: u32, lane: u32) -> vec2<f32> {
  // Nobody reads the sum before.
  workgroupBarrier();
  parts[local] = part;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if lane < step {
      parts[local] += parts[local + step];
    }
    workgroupBarrier();
  }
  return parts[local - lane];
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let first = (group.x + group.y * groups.x) * ROWS;
  if first >= p.rows {
    return;
  }
  let lane = local % LANES;
  // Idle invocations of the last workgroup do the last row again, and keep it to themselves.
  let mine = first + local / LANES < p.rows;
  let row = min(first + local / LANES, p.rows - 1u);
  let at = row_start(row);
  let out = row * p.elems;
  let width = f32(max(p.width, 1u));

  var part = elem();
  // @unroll k CHUNKS
  let s_k0 = load(at, lane + /*k*/0u * LANES);
  part += s_k0;
  // @end
  for (var i = CHUNKS * LANES + lane; i < p.elems; i += LANES) {
    part += load(at, i);
  }
  var about = 0.0;
  if !RMS {
    about = row_sum(vec2<f32>(total(part), 0.0), local, lane).x / width;
  }

  var differences = elem();
  var squares = elem();
  // @unroll k CHUNKS
  let d_k0 = s_k0 - about;
  differences += d_k0;
  squares += d_k0 * d_k0;
  // @end
  for (var i = CHUNKS * LANES + lane; i < p.elems; i += LANES) {
    let d = load(at, i) - about;
    differences += d;
    squares += d * d;
  }
  let sums = row_sum(vec2<f32>(total(differences), total(squares)), local, lane) / width;
  let rest = select(sums.x, 0.0, RMS);
  let inverse = inverseSqrt(max(sums.y - rest * rest, 0.0) + p.epsilon);
  if !mine {
    return;
  }
  if lane == 0u {
    store_statistics(row, about + rest, inverse);
  }

  // @unroll k CHUNKS
  store_sum(out + lane + /*k*/0u * LANES, s_k0);
  let y_k0 = (d_k0 - rest) * inverse * load_weight(lane + /*k*/0u * LANES) + load_bias(lane + /*k*/0u * LANES);
  write_y(out + lane + /*k*/0u * LANES, y_k0);
  // @end
  for (var i = CHUNKS * LANES + lane; i < p.elems; i += LANES) {
    let s = load(at, i);
    store_sum(out + i, s);
    write_y(out + i, (s - about - rest) * inverse * load_weight(i) + load_bias(i));
  }
}
