//! Up to eight rows, by single subgroups without workgroup memory.

use super::{
    operands::{eights, eights_of_a},
    problem::{A, B},
    setup::Setup,
    vec::{FEW_ROWS, ROWS, check_rows, tm},
};
use crate::{
    Error, Result,
    kernel::{
        AdapterKind, Kernel, Profile, Specialization,
        access::long::has_eights,
        variant::{Needs, Variant},
    },
};

/// On software adapters, terms that give all lanes some, and from which on it does well with more rows than few.
const SHORT: usize = 64;
const LONG: usize = 2048;

pub(super) struct Subgroup;

/// Whether it is faster than a panel, which holds b until the last row has passed: see `docs/kernels/matmul.md`.
fn beats_panels(Setup { problem, profile }: &Setup<'_>) -> bool {
    let by_k = problem.b_dense_by_k();
    let few = problem.m == 1 || problem.m <= FEW_ROWS && (by_k || profile.shares_loads());
    let long = problem.m <= ROWS && by_k && problem.k >= LONG;
    problem.k >= SHORT && (few || long)
}

/// The size of every subgroup, if it is one that the kernel takes.
fn lanes(profile: &Profile) -> Result<usize, String> {
    match profile.fixed_subgroup() {
        Some(lanes @ (4 | 8 | 16 | 32 | 64)) => Ok(lanes as usize),
        Some(_) | None => Err("takes subgroups of one size, from 4 to 64, which the device does not promise".into()),
    }
}

/// The slots of operands and result: words of eight elements where they lie so, b's along either axis.
fn operands(Setup { problem, profile }: &Setup<'_>) -> Specialization {
    let slots = problem.quad_slots("matmul::subgroup", problem.stage()).on(profile.backend);
    let (b, columns) =
        if problem.b_dense_by_k() { (problem.b.transposed(), problem.k) } else { (problem.b, problem.n) };
    let in_eights = problem.quantized.is_none() && has_eights(problem.dtypes[B], profile);
    let slots = if in_eights && problem.eights(B, b, columns) {
        eights(slots, "b", problem.dtypes[B])
            .function("row_b", "fn row_b(i: Places) -> Eight { return load_b8(i.low.x); }")
    } else {
        problem.loads_b(slots, problem.quads(B, b, columns))
    };
    if has_eights(problem.dtypes[A], profile) && problem.eights(A, problem.a, problem.k) {
        eights_of_a(slots, problem.dtypes[A])
    } else {
        slots
    }
}

/// COLUMNS: of a workgroup whose lanes share out sums; enough to pay for reading the rows.
fn columns(tm: usize) -> usize {
    if tm > FEW_ROWS { 32 } else { 16 }
}

impl Variant<Setup<'_>> for Subgroup {
    fn name(&self) -> &'static str {
        "subgroup"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match setup.profile.kind {
            AdapterKind::Gpu => 1000,
            AdapterKind::Cpu if beats_panels(setup) => 10,
            AdapterKind::Cpu => 70,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "few rows: reads b once, without workgroup memory, which is slow on software adapters".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let Setup { problem, profile } = setup;
        // A lane of four or more takes eight terms at a time.
        let needs = setup.needs(problem.k / 32)?;
        // Its sums are in registers, and so is a line of b that broadcasts meet.
        if profile.kind == AdapterKind::Gpu && (problem.m > FEW_ROWS || !problem.b_dense_by_k()) {
            return Err(format!("takes up to {FEW_ROWS} rows and a b that is dense along k, but on software adapters"));
        }
        check_rows(problem)?;
        Ok(Needs { invocations: lanes(profile)? as u64, ..needs })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let problem = setup.problem;
        let lanes = lanes(setup.profile).map_err(|reason| Error::op("matmul", reason))?;
        let (tm, by_k) = (tm(problem), problem.b_dense_by_k());
        let columns = columns(tm);
        let width = if by_k { columns } else { 8 * lanes };
        let slots = operands(setup)
            .value("LANES", lanes)
            .value("HALVINGS", lanes.ilog2())
            .value("TM", tm)
            .value("COLUMNS", columns)
            .value("QUADS", columns / 4)
            .value("ROUNDS", (columns / 4).div_ceil(lanes))
            .value("WIDTH", width)
            .region("BY_K", by_k)
            .region("TAIL", !problem.k.is_multiple_of(8 * lanes))
            .trusted();
        setup.kernel(self.name(), slots.source()?, problem.tiles(ROWS, width), problem.k)
    }
}
