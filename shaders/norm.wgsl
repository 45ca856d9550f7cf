// Layer norm and RMS norm, one row an invocation: no workgroup memory, no features. The portable variant.
//
//     s = x + residual,  y = (s - mean) * rstd * weight + bias,  rstd = 1 / sqrt(var + epsilon)      RMS: mean = 0, var = mean of s^2
//
// Ba, Kiros and Hinton, 2016; Zhang and Sennrich, 2019. Mean and variance in one pass: blocks of a row are summed up by two
// passes in registers and merged as Chan, Golub and LeVeque (1979) do. All that is taken of elements less the average
// of the row's head, so that a large mean costs no digits.
//
// Tried on lavapipe (4096x768, against a copy's time): this 2.3; one more pass over memory instead of blocks 2.8; elems of
// one element 5; a row kept in a private array 2.5, after 10 s of compilation.

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

const WG: u32 = 64u; // @slot WG: invocations of a workgroup

// Elems that are summed up in registers.
const BLOCK: u32 = 8u;
// Elems after which sums go from the first stage to the second.
const STAGE: u32 = 32u * BLOCK;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let row = (group.x + group.y * groups.x) * WG + local;
  if row >= p.rows {
    return;
  }
  let at = row_start(row);
  let out = row * p.elems;

  var shift = 0.0;
  if !RMS {
    let head = min(p.elems, BLOCK);
    var first = elem();
    for (var i = 0u; i < head; i++) {
      first += load(at, i);
    }
    shift = total(first) / f32(max(head * PACK, 1u));
  }

  // Of each of the PACK columns: the sum, and the sum of squared differences from the mean. Each is added up in two
  // stages, so that rounding errors don't grow with the length of a row.
  var count = 0.0;
  var per_count = 0.0;
  var whole = elem();
  var squares = elem();
  var recent = elem();
  var recent_squares = elem();
  var i = 0u;
  for (; i + BLOCK <= p.elems; i += BLOCK) {
    // @unroll k 8
    let s_k0 = load(at, i + /*k*/0u);
    store_sum(out + i + /*k*/0u, s_k0);
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
    if i % STAGE == 0u {
      whole += recent;
      squares += recent_squares;
      recent = elem();
      recent_squares = elem();
    }
  }
  for (; i < p.elems; i++) {
    let s = load(at, i);
    store_sum(out + i, s);
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
  let variance = (total(squares) + total(apart * apart) * count) / f32(max(p.width, 1u));
  let inverse = inverseSqrt(variance + p.epsilon);
  store_statistics(row, shift + average, inverse);

  i = 0u;
  for (; i + BLOCK <= p.elems; i += BLOCK) {
    // @unroll k 8
    let v_k0 = (load(at, i + /*k*/0u) - shift - average) * inverse;
    write_y(out + i + /*k*/0u, v_k0 * load_weight(i + /*k*/0u) + load_bias(i + /*k*/0u));
    // @end
  }
  for (; i < p.elems; i++) {
    write_y(out + i, (load(at, i) - shift - average) * inverse * load_weight(i) + load_bias(i));
  }
}
