//! How rows are dealt to invocations: a variant's tile shape.

use super::{
    super::{AdapterKind, Parameters, Profile, Specialization, fold_grid},
    Needs, Rows, plain, subgroup, workgroup,
};
use crate::Result;

/// A way to deal rows to invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Deal {
    /// A row an invocation.
    Plain(plain::Tile),
    /// A row by several invocations of a workgroup.
    Workgroup(workgroup::Tile),
    /// A row a subgroup.
    Subgroup(subgroup::Tile),
}

impl Deal {
    /// An invocation a row, whatever the device.
    pub(in crate::kernel) const ANY: Self = Deal::Plain(plain::Tile { wg: plain::GPU_WG });

    /// That of the shares of a dispatch: an invocation each on a software adapter, several on a GPU.
    pub(in crate::kernel) fn of_shares(shares: &Rows, profile: &Profile) -> Self {
        match profile.kind {
            AdapterKind::Cpu => Deal::Plain(plain::Tile::of(shares, profile)),
            AdapterKind::Gpu => Deal::Workgroup(workgroup::Tile::of(shares, profile)),
        }
    }

    /// The variant that deals rows so.
    pub(in crate::kernel) fn name(self) -> &'static str {
        match self {
            Deal::Plain(_) => plain::NAME,
            Deal::Workgroup(_) => workgroup::NAME,
            Deal::Subgroup(_) => subgroup::NAME,
        }
    }

    /// What dealing such rows needs.
    pub(in crate::kernel) fn needs(self, rows: &Rows) -> Needs {
        match self {
            Deal::Plain(tile) => tile.needs(rows),
            Deal::Workgroup(tile) => tile.needs(rows),
            Deal::Subgroup(tile) => tile.needs(rows),
        }
    }

    /// The workgroups that take all rows.
    pub(in crate::kernel) fn grid(self, family: &str, rows: usize, profile: &Profile) -> Result<[u32; 3]> {
        let rows_each = match self {
            Deal::Plain(tile) => tile.wg,
            Deal::Workgroup(tile) => tile.rows,
            Deal::Subgroup(tile) => tile.turns,
        };
        fold_grid(rows.div_ceil(rows_each) as u64, profile, family)
    }

    /// Fills the slots for the tile shape.
    pub(in crate::kernel) fn slots(self, shader: Specialization) -> Specialization {
        match self {
            Deal::Plain(tile) => shader.value("WG", tile.wg),
            Deal::Workgroup(tile) => {
                shader.value("LANES", tile.lanes).value("ROWS", tile.rows).value("CHUNKS", tile.chunks)
            }
            Deal::Subgroup(tile) => {
                shader.value("LANES", tile.lanes).value("CHUNKS", tile.chunks).region("TURNS", true)
            }
        }
    }

    /// The parameters for the tile shape.
    pub(in crate::kernel) fn parameters(self) -> Parameters {
        match self {
            Deal::Plain(_) | Deal::Workgroup(_) => Parameters::new(),
            Deal::Subgroup(tile) => Parameters::new().set("turns", tile.turns),
        }
    }

    /// The same for rows of which some are too short for straight-line code.
    pub(in crate::kernel) fn without_chunks(self) -> Self {
        match self {
            Deal::Plain(_) => self,
            Deal::Workgroup(tile) => Deal::Workgroup(workgroup::Tile { chunks: 0, ..tile }),
            Deal::Subgroup(tile) => Deal::Subgroup(subgroup::Tile { chunks: 0, ..tile }),
        }
    }
}
