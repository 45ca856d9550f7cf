//! The launches of families whose split variant goes through the rows in both dispatches.

use super::{
    super::{
        Binding, Kernel, Operand, Parameters, Profile, Specialization,
        variant::{Needs, Setup},
    },
    deal::Deal,
    setup::RowSetup,
    shape::Rows,
    split,
};
use crate::Result;

/// A checked problem of such a family, on a device.
pub(in crate::kernel) trait Staged: Setup {
    /// The rows.
    fn rows(&self) -> &Rows;

    /// Bytes of what the first stage finds of a share.
    fn partial_bytes(&self) -> usize;

    /// The dispatches of these stages. Workspace buffers of their own come after these.
    fn kernel(&self, stages: &[Stage], workspace: Vec<u64>) -> Result<Kernel>;
}

impl<S: Staged> RowSetup for S {
    fn rows(&self) -> &Rows {
        Staged::rows(self)
    }

    fn whole(&self, deal: Deal) -> Result<Kernel> {
        self.kernel(&[Stage::Whole(deal)], Vec::new())
    }

    fn shares(&self) -> (usize, Needs) {
        let rows = Staged::rows(self);
        let tile = split::Tile::of(rows, self.profile());
        (tile.shares, Needs { workspace: partials(self, tile), ..tile.needs(rows) })
    }

    fn split(&self) -> Result<Kernel> {
        let tile = split::Tile::of(Staged::rows(self), self.profile());
        self.kernel(&[Stage::Shares(tile), Stage::Apply(tile)], vec![partials(self, tile)])
    }
}

/// Bytes of the buffer between the stages.
fn partials(setup: &impl Staged, tile: split::Tile) -> u64 {
    (setup.rows().rows * tile.shares * setup.partial_bytes()) as u64
}

/// What a launch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Stage {
    /// All of it.
    Whole(Deal),
    /// What is known of each share, for a buffer between.
    Shares(split::Tile),
    /// The rest.
    Apply(split::Tile),
}

impl Stage {
    pub(in crate::kernel) fn label(self) -> String {
        match self {
            Stage::Whole(deal) => deal.name(),
            Stage::Shares(_) => split::SHARES,
            Stage::Apply(_) => split::APPLY,
        }
        .into()
    }

    /// Whether it is the first that reads the rows.
    pub(in crate::kernel) fn is_first(self) -> bool {
        !matches!(self, Stage::Apply(_))
    }

    /// Whether it writes the results.
    pub(in crate::kernel) fn is_last(self) -> bool {
        !matches!(self, Stage::Shares(_))
    }

    /// The buffer between the stages, if it is one of two.
    pub(in crate::kernel) fn between(self) -> Option<Binding> {
        match self {
            Stage::Whole(_) => None,
            Stage::Shares(_) => Some(Binding::write(Operand::Workspace(0))),
            Stage::Apply(_) => Some(Binding::read(Operand::Workspace(0))),
        }
    }

    /// Fills the slots for the tile shape.
    pub(in crate::kernel) fn slots(self, shader: Specialization) -> Specialization {
        match self {
            Stage::Whole(deal) => deal.slots(shader),
            Stage::Shares(tile) | Stage::Apply(tile) => tile.slots(shader),
        }
    }

    /// The parameters for the tile shape.
    pub(in crate::kernel) fn parameters(self) -> Parameters {
        match self {
            Stage::Whole(deal) => deal.parameters(),
            Stage::Shares(tile) | Stage::Apply(tile) => tile.parameters(),
        }
    }

    /// The workgroups that take all of so many rows.
    pub(in crate::kernel) fn grid(self, family: &str, rows: usize, profile: &Profile) -> Result<[u32; 3]> {
        match self {
            Stage::Whole(deal) => deal.grid(family, rows, profile),
            Stage::Shares(tile) | Stage::Apply(tile) => tile.grid(family, rows, profile),
        }
    }
}
