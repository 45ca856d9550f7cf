// What the arithmetic units give: multiplications and additions on registers alone, the ceiling of products and attention.
//
//     x_c ← a · x_c + b        STEPS · turns times, for CHAINS independent x_c
//
// A chain's step waits for the one before it, so it takes as many chains as a unit has stages, and no more than there are
// registers. a and b come from the host and the sum of all chains is written, so nothing can be computed in advance or left out;
// |a| < 1, so nothing overflows.
//
// Exponentials, the other ceiling of attention, are measured the same way: x_c ← exp(-x_c), from anywhere to 0.567.
//
// f16 is measured in pairs (`vec2<f16>`), since units that are faster with f16 than with f32 take two at a time.
//
// On software adapters there is no loop (region LOOP): each step of one stores and loads what the loop carries, which is 6
// times as slow on lavapipe (Mesa 22.3; 26: 3). Its `fma` is two instructions, as fast as `a * x + b`.
//
// Trusted: the host makes y `workgroups · LANES` long, and `turns` rounds end the loop.

// @region F16
enable f16;
// @end

const LANES: u32 = 64u; // @slot LANES: invocations of a workgroup
const CHAINS: u32 = 8u; // @slot CHAINS: independent sums of an invocation
const STEPS: u32 = 16u; // @slot STEPS: steps of each chain in one turn
alias elem = f32; // @slot elem: f32 | vec2<f16>

struct Params {
  // Rounds of an invocation.
  turns: u32,
  a: f32,
  b: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (workgroups, LANES)

// @slot splat: a number as an elem
fn splat(x: f32) -> elem { return elem(x); }
// @slot total: of the parts of an elem
fn total(x: elem) -> f32 { return f32(x); }
// @slot advance: a multiplication and an addition, or an exponential
fn advance(x: elem, a: elem, b: elem) -> elem { return fma(x, a, b); }

const_assert CHAINS >= 1u;
const_assert LANES <= 256u;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let a = splat(p.a);
  let b = splat(p.b);
  // @unroll c CHAINS
  var x_c0 = splat(f32(lane + /*c*/0u));
  // @end
  // @region LOOP
  // The factor is 1: see README.md on uniforms that alone end a loop.
  for (var turn = 0u; turn < p.turns * groups.z; turn++) {
  // @end
    // @unroll s STEPS
    // @unroll c CHAINS
    x_c0 = advance(x_c0, a, b);
    // @end
    // @end
  // @region LOOP
  }
  // @end
  var sum = 0.0;
  // @unroll c CHAINS
  sum += total(x_c0);
  // @end
  y[(group.x + group.y * groups.x) * LANES + lane] = sum;
}
