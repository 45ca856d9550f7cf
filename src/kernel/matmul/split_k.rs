//! Tiles over parts of the sum, which a second dispatch adds up.

use super::{
    operands::Stage,
    problem::MatmulProblem,
    setup::{FULL, Setup},
    tiled::MEDIUM,
};
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel,
        variant::{Needs, Variant},
    },
};

/// Terms of a sum that is worth cutting, and of its shortest part.
const LONG: usize = 1024;
const PART: usize = 256;

/// Terms of a part: whole tiles, in parts that occupy the GPU but are not short.
fn part(problem: &MatmulProblem) -> usize {
    let parts = (2 * FULL / MEDIUM.count(problem).max(1)).min(problem.k / PART).max(2);
    problem.k.div_ceil(parts).next_multiple_of(MEDIUM.bk())
}

pub(super) struct SplitK;

impl Variant<Setup<'_>> for SplitK {
    fn name(&self) -> &'static str {
        "split_k"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match setup.profile.kind {
            AdapterKind::Gpu if MEDIUM.idles(setup.problem) && setup.problem.k >= LONG => 20,
            AdapterKind::Gpu => 900,
            AdapterKind::Cpu => 120,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "few tiles and a long sum: its parts are summed side by side".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let (k, part) = (setup.problem.k, part(setup.problem));
        // Over the terms of a part, and then over the parts.
        let needs = setup.needs(part / 4 + k / part.max(1))?;
        if k <= part {
            return Err(format!("K = {k}: too short a sum to cut"));
        }
        Ok(MEDIUM.with_workgroup(Needs { workspace: setup.sums_bytes(part), ..needs }))
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let (problem, part) = (setup.problem, part(setup.problem));
        let workgroups = problem.k.div_ceil(part) * MEDIUM.count(problem);
        setup.summed(self.name(), MEDIUM.source(problem, Stage::Sums)?, workgroups, part, part)
    }
}
