// Softmax and log-softmax, a line by LANES invocations of a workgroup, which has several lines side by side. For GPUs.
//
//     y_j = exp(s_j - m) / l,  log: y_j = (s_j - m) - log l        s = scale * x,  m = max s,  l = sum exp(s - m)
//
// An element of -inf gives exactly 0, log: -inf, also where there is no other.
//
// Maximum and sum meet in trees in workgroup memory. What a line has past CHUNKS elems a lane is loaded again for each
// pass.
//
// On lavapipe, where barriers are costly, this is the slowest variant: 7 times a copy's time for 4096x768.

// [block softmax: parameters, operands, addresses]
const LINE_AXES: u32 = 0u; // @slot LINE_AXES: axes of lines inside of the outermost, as far as one stride doesn't cover them
const LOG: bool = false; // @slot LOG: the logarithm of the softmax

// Finite numbers are not below it. WGSL has no infinity.
const LOWEST: f32 = -3.40282346e+38f;

struct Params {
  lines: u32,
  // Of a line; the shares it is dealt into, and elems of a share, of which the last may have less.
  elems: u32,
  shares: u32,
  elems_of_share: u32,
  // Lines that a workgroup does one after the other.
  turns: u32,
  scale: f32,
  // The first elem.
  x: u32,
  // Strides of the outermost axis of lines and along a line; then of the other axes of lines, innermost first.
  x_line: u32,
  y_line: u32,
  x_axis: u32,
  y_axis: u32,
  // @unroll r LINE_AXES
  size_r0: u32,
  x_r0: u32,
  y_r0: u32,
  // @end
}

// Vectors along a line where lines are dense and aligned, across lines where they lie side by side; of a line, or of each
// line that a vector is of, there is one maximum and one sum.
alias elem = f32; // @slot elem: f32 | vec4<f32>
alias stat = f32; // @slot stat: f32 | vec4<f32>
alias bits = u32; // @slot bits: u32 | vec4<u32>
// As it lies in memory. Two narrow elements share a word; single ones are never written.
alias x_word = elem; // @slot x_word: elem | u32 | vec2<u32>
alias y_word = elem; // @slot y_word: elem | vec2<u32>

@group(0) @binding(0) var<uniform> p: Params;
// @region X
@group(0) @binding(1) var<storage, read> x: array<x_word>; // (lines, elems) strided
// @end
// @region Y
@group(0) @binding(2) var<storage, read_write> y: array<y_word>; // (lines, elems) strided, dense as a whole
// @end

// @slot read_x: as f32; from y where they share a buffer
fn read_x(i: u32) -> elem { return x[i]; }
// @region Y
// @slot write_y: rounded once if y is narrow
fn write_y(i: u32, v: elem) { y[i] = v; }
// @end
// @slot total: of the elements of an elem along the line
fn total(v: elem) -> stat { return v; }
// @slot largest: likewise
fn largest(v: elem) -> stat { return v; }

// Where a line starts in x and y.
fn line_start(line: u32) -> vec2<u32> {
  var at = vec2<u32>(p.x, 0u);
  var rest = line;
  // @unroll r LINE_AXES
  at += (rest % p.size_r0) * vec2<u32>(p.x_r0, p.y_r0);
  rest /= p.size_r0;
  // @end
  return at + rest * vec2<u32>(p.x_line, p.y_line);
}

// The score of an element, where it is not -inf.
fn score(v: elem) -> elem {
  return select(p.scale * v, elem(LOWEST), bitcast<bits>(v) == bits(0xff800000u));
}

// exp(score - most), and 0 for -inf. No difference overflows: exp(-200) is 0.
fn weight(v: elem, most: elem) -> elem {
  let e = exp(max(score(v) - most, elem(-200.0)));
  return select(e, elem(), bitcast<bits>(v) == bits(0xff800000u));
}

// From an element, its weight, and the largest score and the sum of the weights of its line.
fn result(v: elem, w: elem, most: stat, sum: stat) -> elem {
  // The largest weight is 1; there is none if all are -inf.
  if LOG {
    let y = (score(v) - most) - log(max(sum, stat(0.5)));
    return select(y, v, bitcast<bits>(v) == bits(0xff800000u));
  }
  return w * (1.0 / max(sum, stat(0.5)));
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

const LANES: u32 = 64u; // @slot LANES: invocations of a line, a power of two
const ROWS: u32 = 4u; // @slot ROWS: lines of a workgroup
const CHUNKS: u32 = 3u; // @slot CHUNKS: elems of a line that a lane keeps in registers; the line has at least LANES * CHUNKS

const WG: u32 = LANES * ROWS;
const_assert((LANES & (LANES - 1u)) == 0u);

var<workgroup> parts: array<stat, WG>;

// The largest of the parts that the lanes of a line have, or their sum.
fn reduce(part: stat, sum: bool, local: u32, lane: u32) -> stat {
  // Everybody has read the result before.
  workgroupBarrier();
  parts[local] = part;
  workgroupBarrier();
  for (var step = LANES / 2u; step > 0u; step /= 2u) {
    if lane < step {
      let other = parts[local + step];
      parts[local] = select(max(parts[local], other), parts[local] + other, sum);
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
  if first >= p.lines {
    return;
  }
  let lane = local % LANES;
  // Idle invocations of the last workgroup do the last line again, and keep it to themselves.
  let mine = first + local / LANES < p.lines;
  let at = line_start(min(first + local / LANES, p.lines - 1u));

  var most = elem(LOWEST);
  // @unroll k CHUNKS
  let v_k0 = read_x(at.x + (lane + /*k*/0u * LANES) * p.x_axis);
  most = max(most, score(v_k0));
  // @end
  for (var i = CHUNKS * LANES + lane; i < p.elems; i += LANES) {
    most = max(most, score(read_x(at.x + i * p.x_axis)));
  }
  let m = reduce(largest(most), false, local, lane);

  var sums = elem();
  // @unroll k CHUNKS
  let w_k0 = weight(v_k0, elem(m));
  sums += w_k0;
  // @end
  for (var i = CHUNKS * LANES + lane; i < p.elems; i += LANES) {
    sums += weight(read_x(at.x + i * p.x_axis), elem(m));
  }
  let sum = reduce(total(sums), true, local, lane);
  if !mine {
    return;
  }

  // @unroll k CHUNKS
  write_y(at.y + (lane + /*k*/0u * LANES) * p.y_axis, result(v_k0, w_k0, m, sum));
  // @end
  for (var i = CHUNKS * LANES + lane; i < p.elems; i += LANES) {
    let v = read_x(at.x + i * p.x_axis);
    write_y(at.y + i * p.y_axis, result(v, weight(v, elem(m)), m, sum));
  }
}
