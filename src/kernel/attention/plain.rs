//! One query row an invocation.

use super::{
    sequences,
    setup::{Rank, Setup, Tiling},
    storage::Float,
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
/// The widest head: q and O of a row are variables of an invocation, of which WGSL promises 8 KiB.
const MOST_COLUMNS: usize = 960;

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
        if setup.widest() > MOST_COLUMNS {
            return Err(format!(
                "a head of {} is wider than the {MOST_COLUMNS} that an invocation holds",
                setup.widest()
            ));
        }
        let needs = setup.needs_of_outputs()?;
        let (keys, d, dv) = (setup.sizes.keys as u64, setup.sizes.d as u64, setup.sizes.dv as u64);
        // A key takes a round, and enters two loops; q, O and the search for a packed item come once.
        let rounds = keys * (d + dv + 3) + 2 * (d + dv) + 64;
        Ok(Needs { invocations: ROWS as u64, rounds: needs.rounds.max(rounds), ..needs })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let mut kernel = sequences::begin(setup)?;
        let out = setup.out(&mut kernel);
        let columns = match setup.widest() {
            few @ ..=512 => few.next_power_of_two().max(16),
            many => many.next_multiple_of(64),
        };
        let source = setup.specialize("attention::plain").value("D_MAX", columns);
        let source = [Float::Q, Float::K, Float::V, Float::Bias].into_iter().fold(source, |s, x| setup.reads_one(s, x));
        let source = setup.writes_four(source, out);
        setup.whole(&mut kernel, "plain", source, Tiling::of(ROWS, 1), None, out)?;
        Ok(kernel)
    }
}
