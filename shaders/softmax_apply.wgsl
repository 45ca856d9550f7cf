// The second dispatch of the split softmax: for each share of a line, LANES invocations join what softmax_shares.wgsl found in
// all shares of the line, always in the same order, and write the share's results.
//
//     m = max m_s,  l = sum l_s exp(m_s - m),  y_j = exp(s_j - m) / l,  log: y_j = (s_j - m) - log l        s = scale * x
//
// An element of -inf gives exactly 0, log: -inf, also where there is no other.
//
// Each share joins anew what the others join too: a third dispatch for that costs more.

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

// [block softmax shares: how the parts of a line meet]
const LANES: u32 = 64u; // @slot LANES: invocations of a share, a power of two
const ROWS: u32 = 4u; // @slot ROWS: shares of a workgroup

const WG: u32 = LANES * ROWS;
const_assert((LANES & (LANES - 1u)) == 0u);

// The largest score of a part of a line, and the sum of its weights: what exp(score - largest) adds up to.
struct Part {
  most: stat,
  sum: stat,
}

fn join(a: Part, b: Part) -> Part {
  let most = max(a.most, b.most);
  let of_a = a.sum * exp(max(a.most - most, stat(-200.0)));
  return Part(most, of_a + b.sum * exp(max(b.most - most, stat(-200.0))));
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

@group(0) @binding(3) var<storage, read> parts: array<stat>; // (lines, shares, 2): m, l

// Elems that a lane takes together.
const BLOCK: u32 = 8u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let first = (group.x + group.y * groups.x) * ROWS;
  if first >= p.lines * p.shares {
    return;
  }
  let lane = local % LANES;
  // Idle invocations of the last workgroup do the last share again, and keep it to themselves.
  let mine = first + local / LANES < p.lines * p.shares;
  let index = min(first + local / LANES, p.lines * p.shares - 1u);
  let at = line_start(index / p.shares);
  let begin = min(index % p.shares * p.elems_of_share, p.elems);
  let end = min(begin + p.elems_of_share, p.elems);

  let of_line = index / p.shares * p.shares;
  var part = Part(stat(LOWEST), stat());
  for (var s = lane; s < p.shares; s += LANES) {
    part = join(part, Part(parts[2u * (of_line + s)], parts[2u * (of_line + s) + 1u]));
  }
  let all = join_lanes(part, local, lane);
  if !mine {
    return;
  }

  var i = begin + lane;
  for (; i + (BLOCK - 1u) * LANES < end; i += BLOCK * LANES) {
    // @unroll k 8
    let v_k0 = read_x(at.x + (i + /*k*/0u * LANES) * p.x_axis);
    write_y(at.y + (i + /*k*/0u * LANES) * p.y_axis, result(v_k0, weight(v_k0, elem(all.most)), all.most, all.sum));
    // @end
  }
  for (; i < end; i += LANES) {
    let v = read_x(at.x + i * p.x_axis);
    write_y(at.y + i * p.y_axis, result(v, weight(v, elem(all.most)), all.most, all.sum));
  }
}
