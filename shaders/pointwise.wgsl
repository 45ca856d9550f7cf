// A chain of functions of single elements in one pass, four consecutive elements of the output together.
//
//   out[e] = value(x0[e], x1[e], …)       e over the output, which is dense; operands are read through their strides
//
// Elements travel as bits, one in a u32 whatever the dtype, and narrow outputs are written in whole words. How an operand
// is read (whole blocks, one element for all, a row with a step, element by element) is part of the source; sizes,
// strides, offsets and the chain's scalars are in `p.words`, so that a new shape compiles nothing.
//
// Past the end blocks are read from the last one and not written, so that loads stand outside of any branch. On software
// adapters an invocation takes UNROLL blocks of a large output, one after the other, without a loop; and where little is computed,
// in words of 64 bits: 0.86 and 0.78 of the time (Mesa 22.3, Mesa 26.2). Beside gelu these take 1.4 and 1.0 times as long.
//
// Tried on lavapipe, a scalar added, times the present one (Mesa 22.3, Mesa 26.2): a loop over the blocks (1.3, 1.2); the
// loads under the `if` (1.2, 1.0); a block an invocation (1.3, 2.2), in workgroups of 64 (1.35, 2.3); all loads before the
// first store (1.1, 1.1); a path without tests for whole workgroups and one with them (1.35, 1.1); one element at a time
// (twice the time: a load costs the same for one word as for four; and narrow dtypes then need atomics). On SwiftShader the loop
// takes twice as long, and four blocks of three operands 0.65 of eight.

const WORKGROUP: u32 = 256u;
const UNROLL: u32 = 1u; // @slot UNROLL: blocks of an invocation, a workgroup's width apart
const WORDS: u32 = 1u; // @slot WORDS: vectors of parameters

struct Params {
  blocks: u32, // of four elements, in the output; the last may be part
  last: u32, // the output's last element
  words: array<vec4<u32>, WORDS>,
}

@group(0) @binding(0) var<uniform> p: Params;

// n / d for n < 2^31, by a multiplication: m = ceil(2^(31 + s) / d) and s = ceil(log2 d) come from the host. Granlund and
// Montgomery, "Division by invariant integers using multiplication", 1994. (n / d is several times slower on adapters
// that divide lane by lane.)
fn quotient(n: u32, m: u32, s: u32) -> u32 {
  let a = 2u * n;
  let low = (a & 0xffffu) * (m & 0xffffu);
  let middle = (a >> 16u) * (m & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (m >> 16u) + (middle & 0xffffu);
  return ((a >> 16u) * (m >> 16u) + (middle >> 16u) + (other >> 16u)) >> s;
}

// @region X0
alias block0 = vec4<u32>; // @slot block0: vec4<u32> | vec2<u32> | u32
@group(0) @binding(1) var<storage, read> x0: array<block0>;
// @end
// @region READ0
// @slot read0: the bits of operand 0 at elements 4i … 4i + 3
fn read0(i: u32) -> vec4<u32> { return x0[i]; }
// @end
// @region X1
alias block1 = vec4<u32>; // @slot block1: vec4<u32> | vec2<u32> | u32
@group(0) @binding(2) var<storage, read> x1: array<block1>;
// @end
// @region READ1
// @slot read1: the bits of operand 1 at elements 4i … 4i + 3
fn read1(i: u32) -> vec4<u32> { return x1[i]; }
// @end
// @region X2
alias block2 = vec4<u32>; // @slot block2: vec4<u32> | vec2<u32> | u32
@group(0) @binding(3) var<storage, read> x2: array<block2>;
// @end
// @region READ2
// @slot read2: the bits of operand 2 at elements 4i … 4i + 3
fn read2(i: u32) -> vec4<u32> { return x2[i]; }
// @end
// @region X3
alias block3 = vec4<u32>; // @slot block3: vec4<u32> | vec2<u32> | u32
@group(0) @binding(4) var<storage, read> x3: array<block3>;
// @end
// @region READ3
// @slot read3: the bits of operand 3 at elements 4i … 4i + 3
fn read3(i: u32) -> vec4<u32> { return x3[i]; }
// @end
// @region X4
alias block4 = vec4<u32>; // @slot block4: vec4<u32> | vec2<u32> | u32
@group(0) @binding(5) var<storage, read> x4: array<block4>;
// @end
// @region READ4
// @slot read4: the bits of operand 4 at elements 4i … 4i + 3
fn read4(i: u32) -> vec4<u32> { return x4[i]; }
// @end
// @region X5
alias block5 = vec4<u32>; // @slot block5: vec4<u32> | vec2<u32> | u32
@group(0) @binding(6) var<storage, read> x5: array<block5>;
// @end
// @region READ5
// @slot read5: the bits of operand 5 at elements 4i … 4i + 3
fn read5(i: u32) -> vec4<u32> { return x5[i]; }
// @end
// @region X6
alias block6 = vec4<u32>; // @slot block6: vec4<u32> | vec2<u32> | u32
@group(0) @binding(7) var<storage, read> x6: array<block6>;
// @end
// @region READ6
// @slot read6: the bits of operand 6 at elements 4i … 4i + 3
fn read6(i: u32) -> vec4<u32> { return x6[i]; }
// @end

alias block = vec4<u32>; // @slot block: vec4<u32> | vec2<u32> | u32 | vec2<u64>
@group(0) @binding(8) var<storage, read_write> out: array<block>; // (elements / 4)

// @slot pack: four elements as a block
fn pack(y: vec4<u32>) -> block { return y; }

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

// Towards 0, and to the nearest i32 if there is none.
fn to_i32(x: f32) -> i32 {
  return select(i32(clamp(x, -2147483648.0, 2147483520.0)), 2147483647, x >= 2147483648.0);
}

// Towards 0, and to the nearest u32 if there is none.
fn to_u32(x: f32) -> u32 {
  return select(u32(clamp(x, 0.0, 4294967040.0)), 0xffffffffu, x >= 4294967296.0);
}

// A number that f32 holds and that rounds to the same bf16: rounding twice would be seen.
fn odd_i32(x: i32) -> i32 {
  return select(x, (x & -256) | select(0, 256, (x & 255) != 0), abs(x) > 0xffffff);
}

fn odd_u32(x: u32) -> u32 {
  return select(x, (x & 0xffffff00u) | select(0u, 256u, (x & 255u) != 0u), x > 0xffffffu);
}

// Towards 0; by 0 it is 0.
fn divide_i32(a: i32, b: i32) -> i32 {
  return select(a / select(b, 1, b == 0), 0, b == 0);
}

fn divide_u32(a: u32, b: u32) -> u32 {
  return select(a / select(b, 1u, b == 0u), 0u, b == 0u);
}

// log2(a) = e + log2(m) with m in [√½, √2), by the series of artanh((m - 1)/(m + 1)): good to a few ulp near 1 too, where
// a driver's log2 may be off by 5e-7.
fn log2_f32(a: f32) -> f32 {
  let bits = bitcast<i32>(a);
  let e = (bits - 0x3f3504f3) >> 23u;
  let m = bitcast<f32>(bits - (e << 23u));
  let s = (m - 1.0) / (m + 1.0);
  let z = s * s;
  let series = (((z * 0.0909090909 + 0.111111111) * z + 0.142857143) * z + 0.2) * z + 0.333333333;
  return f32(e) + 2.88539008 * (s * z * series + s);
}

// |a| to the power b by logarithms, with the sign that a product of b factors has; NaN where no real number is it.
fn power_f32(a: f32, b: f32) -> f32 {
  let t = select(b * log2_f32(abs(a)), select(-200.0, 200.0, b < 0.0), a == 0.0);
  let m = select(exp2(t), 1.0, b == 0.0);
  let odd = floor(b) == b && floor(b * 0.5) != b * 0.5;
  let not_a_number = bitcast<f32>(bitcast<u32>(b) | 0x7fc00000u);
  return select(select(m, -m, a < 0.0 && odd), not_a_number, a < 0.0 && floor(b) != b);
}

fn power_i32(a: i32, b: i32) -> i32 {
  if b < 0 {
    return select(select(0, 1, a == 1), select(1, -1, (b & 1) != 0), a == -1);
  }
  return bitcast<i32>(power_u32(bitcast<u32>(a), u32(b)));
}

// Squares and multiplies, from the lowest bit of b.
fn power_u32(a: u32, b: u32) -> u32 {
  var y = 1u;
  var square = a;
  for (var k = b; k != 0u; k >>= 1u) {
    y *= select(1u, square, (k & 1u) != 0u);
    square *= square;
  }
  return y;
}

// @slot value: bits of one element from the bits of its operands
fn value(r0: u32, r1: u32) -> u32 { return bitcast<u32>(bitcast<f32>(r0) + bitcast<f32>(r1)); }

// @slot elements: the bits of elements 4i … 4i + 3 of the output
fn elements(i: u32) -> vec4<u32> { let a = read0(i); let b = read1(i); return vec4<u32>(value(a.x, b.x), value(a.y, b.y), value(a.z, b.z), value(a.w, b.w)); }

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * WORKGROUP * UNROLL + lane;
  // @unroll k UNROLL
  let i_k0 = i + /*k*/0u * WORKGROUP;
  let y_k0 = elements(min(i_k0, p.blocks - 1u));
  if i_k0 < p.blocks {
    out[i_k0] = pack(y_k0);
  }
  // @end
}
