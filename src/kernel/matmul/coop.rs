//! Small matrices that subgroups multiply: GPUs have units of their own for them.

use super::{
    problem::{A, B, MatmulProblem},
    setup::{FULL, Setup},
};
use crate::{
    DType, Error, Result,
    kernel::{
        AdapterKind, Kernel, Specialization,
        variant::{Needs, Variant},
    },
};

/// Matrices of `s` by `s` elements.
#[derive(Debug)]
pub(super) struct Coop {
    name: &'static str,
    s: usize,
}

pub(super) const OF_16: Coop = Coop { name: "coop_16x16", s: 16 };
pub(super) const OF_8: Coop = Coop { name: "coop_8x8", s: 8 };

/// A workgroup of `coop.wesl`; see there.
#[derive(Clone, Copy, Debug)]
struct Shape {
    s: usize,
    lanes: usize,
    tm: usize,
    tn: usize,
}

/// SM and SN: four subgroups in a square.
const SM: usize = 2;
const SN: usize = 2;
/// KS: matrices along k of a slab.
const KS: usize = 2;

impl Coop {
    /// The largest workgroup that occupies the device and fits in it, or the smallest; or why there can be none.
    fn shape(&self, setup: &Setup<'_>) -> Result<Shape, String> {
        let problem = setup.problem;
        if let Some(b) = problem.quantized {
            return Err(format!("takes f16 operands, and b is {}", b.packing));
        }
        let [a, b] = [problem.dtypes[A], problem.dtypes[B]];
        if [a, b] != [DType::F16; 2] {
            return Err(format!(
                "takes f16 operands, and these are {a} and {b}; cast them in the graph where their precision is enough"
            ));
        }
        let lanes = setup.profile.cooperative_lanes(self.s as u32)? as usize;
        let [large, small] = [4, 2].map(|t| Shape { s: self.s, lanes, tm: t, tn: t });
        let occupies = problem.tiles(large.bm(), large.bn()) >= FULL;
        let fits = large.with_workgroup(problem, Needs::default()).lacking(setup.profile).is_none();
        Ok(if occupies && fits { large } else { small })
    }
}

impl Shape {
    fn bm(&self) -> usize {
        SM * self.tm * self.s
    }

    fn bn(&self) -> usize {
        SN * self.tn * self.s
    }

    fn bk(&self) -> usize {
        KS * self.s
    }

    fn invocations(&self) -> usize {
        SM * SN * self.lanes
    }

    /// ROWS_A, and elements of a row.
    fn slab_a(&self, problem: &MatmulProblem) -> (usize, usize) {
        if a_by_m(problem) { (self.bk(), self.bm()) } else { (self.bm(), self.bk()) }
    }

    /// ROWS_B, and elements of a row.
    fn slab_b(&self, problem: &MatmulProblem) -> (usize, usize) {
        if b_by_k(problem) { (self.bn(), self.bk()) } else { (self.bk(), self.bn()) }
    }

    /// These needs, and what a workgroup takes: as the shader's `slab_a`, `slab_b` and `sums`.
    fn with_workgroup(&self, problem: &MatmulProblem, needs: Needs) -> Needs {
        let slab = |(rows, elements): (usize, usize)| 8 * rows * (elements / 4 + 2);
        let sums = 16 * SM * SN * self.s * (self.s / 4 + 1);
        let bytes = slab(self.slab_a(problem)) + slab(self.slab_b(problem)) + sums;
        Needs { invocations: self.invocations() as u64, workgroup_bytes: bytes as u64, ..needs }
    }

    /// LA or LB: quads of a slab of so many elements that an invocation stages.
    fn staged(&self, (rows, elements): (usize, usize)) -> usize {
        (rows * elements / 4).div_ceil(self.invocations())
    }

    fn slots(&self, problem: &MatmulProblem) -> Specialization {
        let Shape { s, lanes, tm, tn } = *self;
        let (slab_a, slab_b) = (self.slab_a(problem), self.slab_b(problem));
        let (a_by_m, b_by_k) = (a_by_m(problem), b_by_k(problem));
        let stage = problem.stage();
        let mut slots = problem
            .result("matmul::coop", stage)
            .value("S", s)
            .value("LANES", lanes)
            .value("SM", SM)
            .value("SN", SN)
            .value("TM", tm)
            .value("TN", tn)
            .value("KS", KS)
            .value("ROWS_A", slab_a.0)
            .value("ROWS_B", slab_b.0)
            .value("LA", self.staged(slab_a))
            .value("LB", self.staged(slab_b))
            .value("LC", (s * s / 4).div_ceil(lanes))
            .region("A_BY_M", a_by_m)
            .region("B_BY_K", b_by_k)
            .region("TAIL", !problem.k.is_multiple_of(self.bk()));
        for (matrix, element) in [("a", "f16"), ("b", "f16"), ("c", "f32")] {
            let role = matrix.to_uppercase();
            slots = slots.ty(&format!("mat_{matrix}"), &format!("coop_mat{s}x{s}<{element}, {role}>"));
        }
        // Quads lie along the rows of the slabs.
        let a_quads = match a_by_m {
            true => problem.quads(A, problem.a.transposed(), problem.m),
            false => problem.quads(A, problem.a, problem.k),
        };
        let b_quads = match b_by_k {
            true => problem.quads(B, problem.b.transposed(), problem.k),
            false => problem.quads(B, problem.b, problem.n),
        };
        for (x, _) in [("a", a_quads), ("b", b_quads)].into_iter().filter(|(_, quads)| *quads) {
            slots = slots.ty(&format!("{x}_word"), "vec4<f16>").function(
                &format!("load_{x}4"),
                format!("fn load_{x}4(i: vec4<u32>) -> vec4<f16> {{ return {x}[i.x / 4u]; }}"),
            );
        }
        // Slabs that lie across are loaded by columns.
        if a_by_m {
            slots = slots.function(
                "matrix_a",
                "fn matrix_a(m: u32, k: u32) -> mat_a { return coopLoad<mat_a>(&slab_a[k * PITCH_A + m / 4u], PITCH_A); }",
            );
        }
        if b_by_k {
            slots = slots.function(
                "matrix_b",
                "fn matrix_b(k: u32, n: u32) -> mat_b { return coopLoad<mat_b>(&slab_b[n * PITCH_B + k / 4u], PITCH_B); }",
            );
        }
        problem.quad_writes(slots, stage).trusted()
    }
}

/// Whether a lies along m alone.
fn a_by_m(problem: &MatmulProblem) -> bool {
    problem.a.row == 1 && problem.a.column != 1
}

/// Whether b lies along k alone.
fn b_by_k(problem: &MatmulProblem) -> bool {
    problem.b.row == 1 && problem.b.column != 1
}

impl Variant<Setup<'_>> for Coop {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match setup.profile.kind {
            AdapterKind::Gpu => 10,
            // For tests: see the quirk.
            AdapterKind::Cpu => 130,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "f16 operands: the GPU's units for small matrices, several times faster than its others".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let needs = setup.needs(setup.problem.k / self.s)?;
        Ok(self.shape(setup)?.with_workgroup(setup.problem, needs))
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let problem = setup.problem;
        let shape = self.shape(setup).map_err(|reason| Error::op("matmul", reason))?;
        let workgroups = problem.tiles(shape.bm(), shape.bn());
        setup.kernel(self.name, shape.slots(problem).source()?, workgroups, problem.k)
    }
}
