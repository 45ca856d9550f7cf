//! Up to eight rows: b is read once.

use super::{problem::MatmulProblem, setup::Setup};
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel,
        variant::{Needs, Variant},
    },
};

/// Rows, at the most.
pub(super) const ROWS: usize = 8;
/// Rows whose sums take few registers.
pub(super) const FEW_ROWS: usize = 4;

/// Quads of columns of a workgroup.
const QUADS: usize = 8;

/// TM: rows that are computed.
pub(super) fn tm(problem: &MatmulProblem) -> usize {
    problem.m.clamp(1, ROWS).next_power_of_two()
}

/// An error unless there are few rows.
pub(super) fn check_rows(problem: &MatmulProblem) -> Result<(), String> {
    if problem.m > ROWS {
        return Err(format!("M = {}: takes up to {ROWS} rows", problem.m));
    }
    Ok(())
}

/// SLICES: 256 invocations, or 128 where the sums of eight rows fill the memory.
fn slices(tm: usize) -> usize {
    if tm > FEW_ROWS { 16 } else { 32 }
}

pub(super) struct FewRows;

impl Variant<Setup<'_>> for FewRows {
    fn name(&self) -> &'static str {
        "vec"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match setup.profile.kind {
            AdapterKind::Gpu => 0,
            AdapterKind::Cpu => 80,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "few rows: bound by the reading of b, which it reads once".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let needs = setup.needs(setup.problem.k / 4)?;
        check_rows(setup.problem)?;
        let tm = tm(setup.problem);
        let invocations = QUADS * slices(tm);
        // As the shader's `sums`.
        Ok(Needs { invocations: invocations as u64, workgroup_bytes: 16 * (tm * invocations) as u64, ..needs })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let problem = setup.problem;
        let tm = tm(problem);
        let slots = problem
            .squares("matmul::vec")
            .value("TM", tm)
            .value("QUADS", QUADS)
            .value("SLICES", slices(tm))
            .region("BY_K", problem.b_dense_by_k())
            .region("TAIL", !problem.k.is_multiple_of(4))
            .trusted();
        setup.kernel(self.name(), slots.source()?, problem.tiles(ROWS, 4 * QUADS), problem.k)
    }
}
