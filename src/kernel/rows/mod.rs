//! What the families that reduce each row of a matrix have in common: which elements are loaded together, how rows are dealt
//! to invocations, and the variants. A family says what its rows are, and makes dispatches of a deal; a variant is a file here.

mod deal;
mod pack;
mod plain;
mod split;
mod stage;
mod subgroup;
mod workgroup;

use super::{
    AdapterKind, Candidate, Kernel, Profile,
    variant::{self, Needs, Variant},
};
use crate::Result;

pub(super) use deal::Deal;
pub(super) use pack::{PACKED_LARGEST, PACKED_TOTAL, Pack};
pub(super) use split::{MERGE, SHARES};
pub(super) use stage::{Stage, Staged};

/// Rows to be reduced, as far as the variants need to know them.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// How many rows.
    pub(super) rows: usize,
    /// Elems of a row: elements, or vectors of `pack` of them.
    pub(super) elems: usize,
    /// Elements of an elem.
    pub(super) pack: usize,
    /// Registers that a lane of the subgroup variant needs for each element that it keeps.
    pub(super) registers: usize,
    /// Loads and stores of an elem in the straight-line code of the subgroup variant. On software adapters the time to
    /// compile goes with them.
    pub(super) accesses: usize,
    /// How often the variants with several lanes a row go through it.
    pub(super) passes: usize,
    /// The rounds that the loops of the plain variant take.
    pub(super) plain_rounds: usize,
    /// Neighbours in memory are elements of neighbouring rows, not of one row.
    pub(super) side_by_side: bool,
}

/// A checked problem of such a family, on a device.
pub(super) trait RowSetup: variant::Setup {
    /// The rows.
    fn rows(&self) -> &Rows;

    /// The dispatches that deal each row as a whole.
    fn whole(&self, deal: Deal) -> Result<Kernel>;

    /// Into how many shares the split variant deals a row, and what it needs for that.
    fn shares(&self) -> (usize, Needs);

    /// The dispatches of the split variant.
    fn split(&self) -> Result<Kernel>;
}

/// Every variant.
///
/// Ranks: 0 for few long rows in shares; then 1 to 4 for whole rows, by how well a deal suits the device and the layout; 5 for
/// shares that nothing speaks for.
fn variants<'a, S: RowSetup + 'a>() -> [&'a dyn Variant<S>; 4] {
    [&plain::Plain, &workgroup::Workgroup, &subgroup::Subgroup, &split::Split]
}

/// Every variant with a verdict, those that can run first, in order of preference.
pub(super) fn candidates<S: RowSetup>(setup: Result<S>) -> Vec<Candidate> {
    match setup {
        Ok(setup) => {
            let mut all = variant::candidates(&variants(), &setup);
            all.sort_by_key(|candidate| !candidate.is_usable());
            all
        }
        Err(fault) => variant::refused::<S>(&variants(), &fault),
    }
}

/// The dispatches of the variant of this name.
pub(super) fn kernel<S: RowSetup>(setup: Result<S>, variant: &str) -> Result<Kernel> {
    variant::kernel(&variants(), variant, &setup?)
}

impl Rows {
    /// Whether an invocation a row is best because neighbouring invocations read neighbours in memory. A GPU needs many of them.
    fn read_across(&self, profile: &Profile) -> bool {
        const MANY: usize = 2048;
        match profile.kind {
            AdapterKind::Cpu => self.side_by_side,
            AdapterKind::Gpu => self.side_by_side && self.rows >= MANY,
        }
    }

    /// The rounds that a lane takes for the elems of a row that it does not keep.
    fn rounds_of_row(&self, lanes: usize, chunks: usize) -> usize {
        self.passes * ((self.elems - chunks * lanes).div_ceil(lanes) + 1)
    }
}

/// Elems that loops take in straight-line code.
const BLOCK: usize = 8;

/// The rounds of a loop over `elems` that takes a block a round, and of one for the rest.
pub(super) fn rounds_in_blocks(elems: usize) -> usize {
    elems / BLOCK + elems % BLOCK + 2
}

/// [`rounds_in_blocks`] of lanes of which some have less: each loop takes as many rounds as the lane that needs most.
pub(super) fn most_rounds_in_blocks(elems: usize) -> usize {
    elems / BLOCK + elems.min(BLOCK - 1) + 2
}

/// What loops of so many rounds need.
pub(super) fn rounds(rounds: usize) -> Needs {
    Needs { rounds: rounds as u64, ..Needs::default() }
}
