//! Rows to be reduced, as far as the variants need to know them, and the rounds that loops over them take.

use super::super::{AdapterKind, Profile, variant::Needs};

/// Rows to be reduced to something.
#[derive(Clone, Debug)]
pub(in crate::kernel) struct Rows {
    /// How many rows.
    pub(in crate::kernel) rows: usize,
    /// Elems of a row: elements, or vectors of `pack` of them.
    pub(in crate::kernel) elems: usize,
    /// Elements of an elem.
    pub(in crate::kernel) pack: usize,
    /// Registers that a lane of the subgroup variant needs for each element that it keeps.
    pub(in crate::kernel) registers: usize,
    /// Loads and stores of an elem in the straight-line code of the subgroup variant. On software adapters the time to
    /// compile goes with them.
    pub(in crate::kernel) accesses: usize,
    /// How often the variants with several lanes a row go through it.
    pub(in crate::kernel) passes: usize,
    /// The rounds that the loops of the plain variant take.
    pub(in crate::kernel) plain_rounds: usize,
    /// Neighbours in memory are elements of neighbouring rows, not of one row.
    pub(in crate::kernel) side_by_side: bool,
}

impl Rows {
    /// Whether an invocation a row is best because neighbouring invocations read neighbours in memory. A GPU needs many of them.
    pub(super) fn read_across(&self, profile: &Profile) -> bool {
        const MANY: usize = 2048;
        match profile.kind {
            AdapterKind::Cpu => self.side_by_side,
            AdapterKind::Gpu => self.side_by_side && self.rows >= MANY,
        }
    }

    /// The rounds that a lane takes for the elems of a row that it does not keep.
    pub(super) fn rounds_of_row(&self, lanes: usize, chunks: usize) -> usize {
        self.passes * ((self.elems - chunks * lanes).div_ceil(lanes) + 1)
    }
}

/// Elems that loops take in straight-line code.
pub(super) const BLOCK: usize = 8;

/// The rounds of a loop over `elems` that takes a block a round, and of one for the rest.
pub(in crate::kernel) fn rounds_in_blocks(elems: usize) -> usize {
    elems / BLOCK + elems % BLOCK + 2
}

/// [`rounds_in_blocks`] of lanes of which some have less: each loop takes as many rounds as the lane that needs most.
pub(in crate::kernel) fn most_rounds_in_blocks(elems: usize) -> usize {
    elems / BLOCK + elems.min(BLOCK - 1) + 2
}

/// What loops of so many rounds need.
pub(in crate::kernel) fn rounds(rounds: usize) -> Needs {
    Needs { rounds: rounds as u64, ..Needs::default() }
}
