//! The elems of a row in shares: one dispatch for what comes of them, and one in which those of a row meet.

use super::{
    super::{
        AdapterKind, Kernel, Parameters, Profile, Specialization, fold_grid,
        variant::{Needs, Variant},
    },
    deal::{Deal, PlainTile, WorkgroupTile},
    plain,
    setup::RowSetup,
    shape::{BLOCK, Rows, rounds, rounds_in_blocks},
};
use crate::Result;

/// Labels of its dispatches: what comes of the shares, and the two ways to go on from there.
pub(in crate::kernel) const SHARES: &str = "split: shares";
pub(super) const APPLY: &str = "split: apply";
pub(in crate::kernel) const MERGE: &str = "split: merge";

pub(super) struct Split;

/// How a row is dealt whose shares are taken by the same invocations in both dispatches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Tile {
    /// Shares of a row.
    pub(in crate::kernel) shares: usize,
    /// Elems of a share; the last may have less.
    pub(super) elems: usize,
    /// Invocations of a share.
    pub(super) lanes: usize,
    /// Shares of a workgroup.
    pub(super) rows: usize,
}

impl Rows {
    /// Into how many shares the split variant deals a row: at least two, and for few rows so many that the device has
    /// enough to do. On a GPU a workgroup takes a share.
    pub(in crate::kernel) fn shares(&self, profile: &Profile) -> usize {
        let (wanted, least_elems) = match profile.kind {
            AdapterKind::Cpu => (256usize, 64),
            AdapterKind::Gpu => (512, 1024),
        };
        wanted.div_ceil(self.rows.max(1)).min(self.elems.div_ceil(least_elems)).max(2)
    }
}

impl Deal {
    /// That of the shares of a dispatch: an invocation each on a software adapter, several on a GPU.
    pub(in crate::kernel) fn of_shares(shares: &Rows, profile: &Profile) -> Self {
        match profile.kind {
            AdapterKind::Cpu => Deal::Plain(PlainTile::of(shares, profile)),
            AdapterKind::Gpu => Deal::Workgroup(WorkgroupTile::of(shares, profile)),
        }
    }
}

impl Tile {
    pub(in crate::kernel) fn of(rows: &Rows, profile: &Profile) -> Self {
        let share = rows.elems.div_ceil(rows.shares(profile));
        let of = |elems: usize, lanes, rows_each| {
            let elems = elems.max(1);
            Tile { shares: rows.elems.div_ceil(elems).max(1), elems, lanes, rows: rows_each }
        };
        match profile.kind {
            AdapterKind::Gpu => {
                let tile = WorkgroupTile::of(&Rows { elems: share, ..rows.clone() }, profile);
                of(share.next_multiple_of(tile.lanes), tile.lanes, tile.rows)
            }
            AdapterKind::Cpu => {
                let mut tile = of(share.next_multiple_of(BLOCK), 1, plain::CPU_WG);
                while tile.needs(rows).lacking(profile).is_some() && tile.elems > BLOCK {
                    tile = of((tile.elems / 2).next_multiple_of(BLOCK), 1, plain::CPU_WG);
                }
                tile
            }
        }
    }

    /// What dealing such rows needs.
    pub(in crate::kernel) fn needs(self, rows: &Rows) -> Needs {
        if self.lanes == 1 {
            // A head, the shares, and the elems.
            let loops = 10 + self.shares + rounds_in_blocks(self.elems);
            return Needs { invocations: self.rows as u64, ..rounds(loops) };
        }
        let tile = WorkgroupTile { lanes: self.lanes, rows: self.rows, chunks: 0 };
        tile.needs(&Rows { elems: self.elems, ..rows.clone() })
    }

    /// The workgroups that take all shares of so many rows.
    pub(super) fn grid(self, family: &str, rows: usize, profile: &Profile) -> Result<[u32; 3]> {
        fold_grid((rows * self.shares).div_ceil(self.rows) as u64, profile, family)
    }

    /// Fills the slots for the tile shape.
    pub(super) fn slots(self, shader: Specialization) -> Specialization {
        let shader = shader.value("LANES", self.lanes).value("ROWS", self.rows);
        shader.region("TREE", self.lanes > 1).region("SPLIT", true)
    }

    /// The parameters for the tile shape.
    pub(super) fn parameters(self) -> Parameters {
        Parameters::new().set("shares", self.shares).set("elems_of_share", self.elems)
    }
}

impl<S: RowSetup> Variant<S> for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn rank(&self, setup: &S) -> u32 {
        // The others give a row to an invocation, a subgroup or a workgroup.
        const LONG: usize = 2048;
        let few = match setup.profile().kind {
            AdapterKind::Cpu => 64,
            AdapterKind::Gpu => 128,
        };
        if setup.rows().rows < few && setup.rows().elems >= LONG { 0 } else { 5 }
    }

    fn reason(&self, setup: &S) -> String {
        format!("{} shares of each of {} results", setup.shares().0, setup.rows().rows)
    }

    fn needs(&self, setup: &S) -> Result<Needs, String> {
        Ok(setup.shares().1)
    }

    fn kernel(&self, setup: &S) -> Result<Kernel> {
        setup.split()
    }
}
