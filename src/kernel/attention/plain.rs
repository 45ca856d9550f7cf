//! One query row an invocation.

use super::{
    sequences,
    setup::{Rank, Setup, Tiling},
    storage::{Float, Lie},
};
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel,
        variant::{Needs, Variant},
    },
};

/// Query rows of a workgroup, as in the shader.
const ROWS: usize = 64;
/// With so many keys, or fewer, a software adapter is done before it has staged a tile.
const FEW_KEYS: usize = 32;
/// The widest head of v: O of a row is a variable of an invocation, and WGSL promises 8 KiB of those.
const MOST_COLUMNS: usize = 1024;

#[derive(Debug)]
pub(super) struct Plain;

/// Whether it is the best of those that run everywhere.
pub(super) fn suits(setup: &Setup<'_>) -> bool {
    setup.profile.kind == AdapterKind::Cpu && setup.sizes.keys <= FEW_KEYS
}

impl Variant<Setup<'_>> for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        (if suits(setup) { Rank::Suited } else { Rank::General }) as u32
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "no workgroup memory, no features: runs everywhere".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let columns = setup.sizes.dv;
        if columns > MOST_COLUMNS {
            return Err(format!("a head of {columns} is wider than the {MOST_COLUMNS} that an invocation holds"));
        }
        let needs = setup.needs_of_outputs()?;
        let rounds = setup.rounds_of_walk(setup.sizes.keys);
        Ok(Needs { invocations: ROWS as u64, rounds: needs.rounds.max(rounds), ..needs })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let mut kernel = sequences::begin(setup)?;
        let out = setup.out(&mut kernel);
        let source = setup.walks(setup.specialize("attention::plain"), [Lie::Fours; 3], setup.sizes.dv);
        let source = setup.writes_four(setup.reads_one(source, Float::Bias), out);
        setup.whole(&mut kernel, "plain", source, Tiling::of(ROWS, 1), None, out)?;
        Ok(kernel)
    }
}
