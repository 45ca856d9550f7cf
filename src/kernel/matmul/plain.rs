//! One element of the result an invocation, or those of a word.

use super::{
    operands::{loads, per_word},
    problem::{A, B},
    setup::{Setup, WG, rounds},
};
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel,
        variant::{Needs, Variant},
    },
};

pub(super) struct Plain;

impl Variant<Setup<'_>> for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match setup.profile.kind {
            AdapterKind::Gpu => 1000,
            AdapterKind::Cpu => 110,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "runs everywhere; for the smallest products".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let of_k = per_word(setup.problem.out) * setup.problem.k;
        Ok(Needs { invocations: WG as u64, rounds: rounds(of_k), ..Needs::default() })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let problem = setup.problem;
        let slots =
            loads(problem.flat("matmul::plain"), "a", problem.dtypes[A], problem.quads(A, problem.a, problem.k));
        let slots = problem.loads_b(slots, problem.quads(B, problem.b, problem.n));
        // An invocation owns whole words of the result whatever its rows are.
        let workgroups = problem.elements().div_ceil(per_word(problem.out)).div_ceil(WG);
        setup.result(self.name(), slots.source()?, workgroups, problem.k)
    }
}
