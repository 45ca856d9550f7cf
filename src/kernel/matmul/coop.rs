//! The variants on cooperative matrices.

use std::sync::Arc;

use super::{A, B, MatmulProblem, slots::Stage, variant::FULL};
use crate::{
    DType, Result,
    kernel::{Profile, Source},
};

/// A workgroup of `matmul_coop.wgsl` on matrices of one size; see there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coop {
    /// S.
    size: u32,
    /// LANES.
    lanes: u32,
    /// TM and TN.
    own: u32,
}

/// SM and SN: four subgroups in a square.
const SUBGROUPS: u32 = 2;
/// KS: matrices along k of a slab.
const DEPTH: u32 = 2;

impl Coop {
    /// The largest workgroup that occupies the device and fits in it; or why there can be none.
    pub(super) fn of(size: u32, problem: &MatmulProblem, profile: &Profile) -> Result<Coop, String> {
        let dtypes = [problem.dtypes[A], problem.dtypes[B]];
        if let Some(b) = problem.quantized {
            return Err(format!("takes f16 operands, and b is {}", b.packing));
        }
        if dtypes != [DType::F16; 2] {
            let [a, b] = dtypes;
            return Err(format!(
                "takes f16 operands, and these are {a} and {b}; cast them in the graph where their precision is enough"
            ));
        }
        let lanes = profile.cooperative_lanes(size)?;
        let coop = |own: u32| Coop { size, lanes, own };
        let occupies = |coop: &Coop| coop.count(problem) >= FULL;
        let fits = |coop: &Coop| coop.unfit(problem, profile).is_none();
        match [4, 2].map(coop).into_iter().find(|coop| fits(coop) && occupies(coop)) {
            Some(coop) => Ok(coop),
            None => coop(2).unfit(problem, profile).map_or(Ok(coop(2)), Err),
        }
    }

    fn unfit(&self, problem: &MatmulProblem, profile: &Profile) -> Option<String> {
        let (invocations, bytes) = (self.invocations(), self.workgroup_bytes(problem));
        let limits = &profile.limits;
        let most = limits.workgroup_invocations.min(limits.workgroup_size_x);
        if invocations > most {
            Some(format!("needs {invocations} invocations a workgroup, the limit is {most}"))
        } else if bytes > limits.workgroup_bytes {
            Some(format!("needs {bytes} bytes of workgroup memory, the limit is {}", limits.workgroup_bytes))
        } else {
            None
        }
    }

    /// Rows and columns of a workgroup's tile.
    fn tile(&self) -> u32 {
        SUBGROUPS * self.own * self.size
    }

    /// Terms of a slab.
    pub(super) fn depth(&self) -> u32 {
        DEPTH * self.size
    }

    fn invocations(&self) -> u32 {
        SUBGROUPS * SUBGROUPS * self.lanes
    }

    /// Workgroups.
    pub(super) fn count(&self, problem: &MatmulProblem) -> usize {
        let tile = self.tile() as usize;
        problem.products() * problem.m.div_ceil(tile) * problem.n.div_ceil(tile)
    }

    /// As the shader's `slab_a`, `slab_b` and `sums`.
    fn workgroup_bytes(&self, problem: &MatmulProblem) -> u32 {
        let slab = |rows: u32| 8 * rows * (self.tile() * self.depth() / rows / 4 + 2);
        let sums = 16 * SUBGROUPS * SUBGROUPS * self.size * (self.size / 4 + 1);
        slab(self.rows_a(problem)) + slab(self.rows_b(problem)) + sums
    }

    fn rows_a(&self, problem: &MatmulProblem) -> u32 {
        if problem.a_by_m() { self.depth() } else { self.tile() }
    }

    fn rows_b(&self, problem: &MatmulProblem) -> u32 {
        if problem.b_by_k() { self.tile() } else { self.depth() }
    }

    pub(super) fn source(&self, problem: &MatmulProblem, stage: Stage) -> Result<Arc<Source>> {
        let Coop { size, lanes, own } = *self;
        let quads = self.tile() * self.depth() / 4;
        // Quads lie along the rows of the slabs.
        let a_quads = match problem.a_by_m() {
            true => problem.quads(A, problem.a.transposed(), problem.m),
            false => problem.quads(A, problem.a, problem.k),
        };
        let b_quads = match problem.b_by_k() {
            true => problem.quads(B, problem.b.transposed(), problem.k),
            false => problem.quads(B, problem.b, problem.n),
        };
        let mut slots = problem
            .result("matmul::coop", stage)
            .value("S", size)
            .value("LANES", lanes)
            .value("SM", SUBGROUPS)
            .value("SN", SUBGROUPS)
            .value("TM", own)
            .value("TN", own)
            .value("KS", DEPTH)
            .value("ROWS_A", self.rows_a(problem))
            .value("ROWS_B", self.rows_b(problem))
            .value("LA", quads.div_ceil(self.invocations()))
            .value("LB", quads.div_ceil(self.invocations()))
            .value("LC", (size * size / 4).div_ceil(lanes))
            .region("A_BY_M", problem.a_by_m())
            .region("B_BY_K", problem.b_by_k())
            .region("TAIL", !problem.k.is_multiple_of(self.depth() as usize));
        for (matrix, element) in [("a", "f16"), ("b", "f16"), ("c", "f32")] {
            let role = matrix.to_uppercase();
            slots = slots.ty(&format!("mat_{matrix}"), &format!("coop_mat{size}x{size}<{element}, {role}>"));
        }
        for (x, _) in [("a", a_quads), ("b", b_quads)].into_iter().filter(|(_, quads)| *quads) {
            slots = slots.ty(&format!("{x}_word"), "vec4<f16>").function(
                &format!("load_{x}4"),
                format!("fn load_{x}4(i: vec4<u32>) -> vec4<f16> {{ return {x}[i.x / 4u]; }}"),
            );
        }
        // Slabs that lie across are loaded by columns.
        if problem.a_by_m() {
            slots = slots.function(
                "matrix_a",
                "fn matrix_a(m: u32, k: u32) -> mat_a { return coopLoad<mat_a>(&slab_a[k * PITCH_A + m / 4u], PITCH_A); }",
            );
        }
        if problem.b_by_k() {
            slots = slots.function(
                "matrix_b",
                "fn matrix_b(k: u32, n: u32) -> mat_b { return coopLoad<mat_b>(&slab_b[n * PITCH_B + k / 4u], PITCH_B); }",
            );
        }
        problem.quad_writes(slots, stage).trusted().source()
    }
}

impl MatmulProblem {
    /// Whether a lies along m.
    fn a_by_m(&self) -> bool {
        self.a.row == 1 && self.a.column != 1
    }

    /// Whether b lies along k.
    fn b_by_k(&self) -> bool {
        self.b.row == 1 && self.b.column != 1
    }
}
