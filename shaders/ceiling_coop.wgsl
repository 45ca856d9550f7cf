enable f16;
enable wgpu_cooperative_matrix;

// What the units for small matrices give: products of S by S matrices of f16, added to f32 sums, with all operands in
// registers.
//
//     sum_c ← a · b + sum_c        STEPS · turns times, for CHAINS independent sums of a subgroup
//
// a is 1/S everywhere and b is 1, so each step adds exactly 1 to each element. A product waits for the one before it in its
// chain, so it takes as many chains as a unit has stages. On a software adapter the loop runs once.
//
// Trusted: the host makes y `workgroups · LANES` long; a subgroup's part of the workgroup's memory is its own, since there are
// LANES / SUBGROUP subgroups; elements that are read are below S · S by `min`; `turns` rounds end the loop.

const LANES: u32 = 64u; // @slot LANES: invocations of a workgroup
const SUBGROUP: u32 = 32u; // @slot SUBGROUP: invocations of a subgroup, always
const S: u32 = 16u; // @slot S: rows and columns of a matrix
const CHAINS: u32 = 4u; // @slot CHAINS: independent sums of a subgroup
const STEPS: u32 = 16u; // @slot STEPS: steps of each chain in one turn
const SUBGROUPS: u32 = LANES / SUBGROUP;
alias mat_a = coop_mat16x16<f16, A>; // @slot mat_a: of S x S
alias mat_b = coop_mat16x16<f16, B>; // @slot mat_b: of S x S
alias mat_c = coop_mat16x16<f32, C>; // @slot mat_c: of S x S

struct Params {
  // Rounds of an invocation.
  turns: u32,
  a: f32,
  b: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (workgroups, LANES)

var<workgroup> operands: array<f16, 2 * S * S>; // a, then b
var<workgroup> sums: array<f32, SUBGROUPS * S * S>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  for (var i = local; i < S * S; i += LANES) {
    operands[i] = f16(p.a);
    operands[S * S + i] = f16(p.b);
  }
  workgroupBarrier();
  let a = coopLoadT<mat_a>(&operands[0u], S);
  let b = coopLoadT<mat_b>(&operands[S * S], S);
  // @unroll c CHAINS
  var sum_c0 = mat_c();
  // @end
  for (var turn = 0u; turn < p.turns; turn++) {
    // @unroll s STEPS
    // @unroll c CHAINS
    sum_c0 = coopMultiplyAdd(a, b, sum_c0);
    // @end
    // @end
  }
  var total = mat_c();
  // @unroll c CHAINS
  total = total + sum_c0;
  // @end
  let own = subgroup * S * S;
  coopStoreT(total, &sums[own], S);
  workgroupBarrier();
  y[(group.x + group.y * groups.x) * LANES + local] = sums[own + min(local % SUBGROUP, S * S - 1u)];
}
