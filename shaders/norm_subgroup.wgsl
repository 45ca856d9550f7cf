// Layer norm and RMS norm, a row a subgroup: what a lane has of a row, of weight and of bias stays in registers. For
// devices whose subgroups all have one size.
//
//     s = x + residual,  y = (s - mean) * rstd * weight + bias,  rstd = 1 / sqrt(var + epsilon)      RMS: mean = 0, var = mean of s^2
//
// Ba, Kiros and Hinton, 2016; Zhang and Sennrich, 2019. Two passes over registers; the second also adds up the plain
// differences, which are what rounding left of the mean ("corrected two-pass", Chan, Golub and LeVeque, 1979).
//
// A workgroup is one subgroup and does several rows in turn, so that weight and bias are loaded once. What a row has past
// CHUNKS elems a lane is loaded again for each pass.
//
// Tried on lavapipe (4096x768, against a copy's time): this 1.6; weight and bias loaded for each row 2.4; a row loaded again
// for each pass 2.8; elems of one element 2.3. CHUNKS is bounded by the time to compile, which grows faster than the loads
// and stores (Mesa 22.3, no cache): 0.6 s for 96, 0.8 s for 128, 2.9 s for 256, 4.5 s for 320. In f16 all of it takes 0.8
// of the time of f32, in bf16 0.7; with kernels around it that convert, 2.2 and 2.1.
enable subgroups;

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

const LANES: u32 = 8u; // @slot LANES: the subgroup size
const CHUNKS: u32 = 4u; // @slot CHUNKS: elems of a row that a lane keeps in registers; the row has at least LANES * CHUNKS

// Elems that a lane sums up before it adds them to the sum of the row. Where x has few digits, as f16 has, differences from
// the mean share the last ones, and a large sum rounds them all to the same side: of 300,008 elements four lanes lost 2e-6.
const TERMS: u32 = 64u;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let first = (group.x + group.y * groups.x) * p.turns;
  if first >= p.rows {
    return;
  }
  let width = f32(max(p.width, 1u));
  // @unroll k CHUNKS
  let weight_k0 = load_weight(lane + /*k*/0u * LANES);
  let bias_k0 = load_bias(lane + /*k*/0u * LANES);
  // @end

  let last = min(first + p.turns, p.rows);
  for (var row = first; row < last; row++) {
    let at = row_start(row);
    let out = row * p.elems;
    var part = elem();
    // @unroll k CHUNKS
    let s_k0 = load(at, lane + /*k*/0u * LANES);
    store_sum(out + lane + /*k*/0u * LANES, s_k0);
    part += s_k0;
    // @end
    for (var i = CHUNKS * LANES + lane; i < p.elems; i += LANES) {
      let s = load(at, i);
      store_sum(out + i, s);
      part += s;
    }
    var about = 0.0;
    if !RMS {
      about = subgroupAdd(total(part)) / width;
    }

    var differences = elem();
    var squares = elem();
    // @unroll k CHUNKS
    let d_k0 = s_k0 - about;
    differences += d_k0;
    squares += d_k0 * d_k0;
    // @end
    var few = elem();
    var few_squares = elem();
    for (var i = CHUNKS * LANES + lane; i < p.elems; i += LANES) {
      let d = load(at, i) - about;
      few += d;
      few_squares += d * d;
      if (i / LANES) % TERMS == 0u {
        differences += few;
        squares += few_squares;
        few = elem();
        few_squares = elem();
      }
    }
    differences += few;
    squares += few_squares;
    var rest = 0.0;
    if !RMS {
      rest = subgroupAdd(total(differences)) / width;
    }
    let variance = subgroupAdd(total(squares)) / width - rest * rest;
    let inverse = inverseSqrt(max(variance, 0.0) + p.epsilon);
    if lane == 0u {
      store_statistics(row, about + rest, inverse);
    }

    // @unroll k CHUNKS
    write_y(out + lane + /*k*/0u * LANES, (d_k0 - rest) * inverse * weight_k0 + bias_k0);
    // @end
    for (var i = CHUNKS * LANES + lane; i < p.elems; i += LANES) {
      write_y(out + i, (load(at, i) - about - rest) * inverse * load_weight(i) + load_bias(i));
    }
  }
}
