//! Eight rows by four columns an invocation, in registers.

use super::setup::{Setup, WG};
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel,
        variant::{Needs, Variant},
    },
};

/// Rows and columns of an invocation.
const TM: usize = 8;
const TN: usize = 4;

/// On software adapters, multiplications that are done before a panel is compiled.
const SMALL: u64 = 1 << 16;
/// There, columns so few that many lanes of a panel would have none: 0.2 to 1 of its time.
const FEW_COLUMNS: usize = 12;

pub(super) struct Register;

impl Variant<Setup<'_>> for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match setup.profile.kind {
            AdapterKind::Gpu => 1000,
            AdapterKind::Cpu if setup.problem.multiplications() <= SMALL => 0,
            AdapterKind::Cpu if setup.problem.n <= FEW_COLUMNS => 20,
            AdapterKind::Cpu => 90,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "needs no workgroup memory and no feature".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        Ok(Needs { invocations: WG as u64, ..setup.needs(setup.problem.k / 4)? })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let problem = setup.problem;
        let slots = problem.squares("matmul::register").value("TM", TM).region("TAIL", !problem.k.is_multiple_of(4));
        setup.kernel(self.name(), slots.source()?, problem.tiles(TM, TN).div_ceil(WG), problem.k)
    }
}
