//! How rows are dealt to invocations: the tile shapes of the variants that deal whole ones.

use super::{
    super::{Parameters, Profile, Specialization, fold_grid, variant::Needs},
    shape::{Rows, rounds},
};
use crate::Result;

/// A way to deal rows to invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Deal {
    Plain(PlainTile),
    Workgroup(WorkgroupTile),
    Subgroup(SubgroupTile),
}

/// The variants' names, and the labels of their dispatches.
pub(super) const PLAIN: &str = "plain";
pub(super) const WORKGROUP: &str = "workgroup";
pub(super) const SUBGROUP: &str = "subgroup";

/// A row an invocation, `wg` of them a workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct PlainTile {
    pub(super) wg: usize,
}

/// A row by `lanes` invocations, and `rows` of them a workgroup; a lane keeps `chunks` elems in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct WorkgroupTile {
    pub(super) lanes: usize,
    pub(super) rows: usize,
    pub(super) chunks: usize,
}

/// A row a subgroup of `lanes`, each with `chunks` elems in registers. The subgroup is a workgroup and takes `turns` rows one
/// after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct SubgroupTile {
    pub(super) lanes: usize,
    pub(super) chunks: usize,
    pub(super) turns: usize,
}

impl Deal {
    /// An invocation a row, whatever the device.
    pub(in crate::kernel) const ANY: Self = Deal::Plain(PlainTile { wg: 64 });

    /// The variant that deals rows so.
    pub(in crate::kernel) fn name(self) -> &'static str {
        match self {
            Deal::Plain(_) => PLAIN,
            Deal::Workgroup(_) => WORKGROUP,
            Deal::Subgroup(_) => SUBGROUP,
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
            Deal::Workgroup(tile) => Deal::Workgroup(WorkgroupTile { chunks: 0, ..tile }),
            Deal::Subgroup(tile) => Deal::Subgroup(SubgroupTile { chunks: 0, ..tile }),
        }
    }
}

impl PlainTile {
    pub(super) fn needs(self, rows: &Rows) -> Needs {
        Needs { invocations: self.wg as u64, ..rounds(rows.plain_rounds) }
    }
}

impl WorkgroupTile {
    /// Workgroup memory of an invocation: two words.
    pub(super) const LANE_BYTES: u32 = 8;

    pub(super) fn needs(self, rows: &Rows) -> Needs {
        let invocations = (self.lanes * self.rows) as u64;
        let tree = 2 * (self.lanes.ilog2() as usize + 1);
        Needs {
            invocations,
            workgroup_bytes: invocations * u64::from(Self::LANE_BYTES),
            ..rounds(rows.rounds_of_row(self.lanes, self.chunks) + tree)
        }
    }
}

impl SubgroupTile {
    pub(super) fn rounds_of_row(self, rows: &Rows) -> usize {
        1 + rows.rounds_of_row(self.lanes, self.chunks)
    }

    pub(super) fn needs(self, rows: &Rows) -> Needs {
        Needs { invocations: self.lanes as u64, ..rounds(self.turns * self.rounds_of_row(rows) + 1) }
    }
}
