//! A row an invocation: no workgroup memory, no features.

use super::{
    super::{AdapterKind, Kernel, Profile, variant::Variant},
    Deal, Needs, RowSetup, Rows, rounds,
};
use crate::Result;

pub(super) const NAME: &str = "plain";

pub(super) struct Plain;

/// `wg` rows a workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Tile {
    pub(super) wg: usize,
}

/// Invocations of a workgroup on a software adapter, which gives each thread whole workgroups, and of one of very many rows: a
/// workgroup takes 0.1 µs.
pub(super) const CPU_WG: usize = 16;
const CPU_WG_OF_MANY: usize = 64;
pub(super) const GPU_WG: usize = 64;
/// Rows that are still very many workgroups then.
const MANY_ROWS: usize = 1 << 14;

impl Tile {
    pub(in crate::kernel) fn of(rows: &Rows, profile: &Profile) -> Self {
        let wg = match profile.kind {
            AdapterKind::Cpu if rows.rows < MANY_ROWS => CPU_WG,
            AdapterKind::Cpu => CPU_WG_OF_MANY,
            AdapterKind::Gpu => GPU_WG,
        };
        Tile { wg }
    }

    pub(super) fn needs(self, rows: &Rows) -> Needs {
        Needs { invocations: self.wg as u64, ..rounds(rows.plain_rounds) }
    }
}

impl<S: RowSetup> Variant<S> for Plain {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rank(&self, setup: &S) -> u32 {
        match setup.profile().kind {
            _ if setup.rows().read_across(setup.profile()) => 1,
            // It goes through a row one time less than the others, and has no lanes to merge.
            AdapterKind::Cpu => 2,
            AdapterKind::Gpu => 4,
        }
    }

    fn reason(&self, setup: &S) -> String {
        let reads = match (setup.profile().kind, setup.rows().side_by_side) {
            (_, true) => "neighbouring invocations read neighbours in memory",
            (AdapterKind::Cpu, false) => "no barriers, compiles at once",
            (AdapterKind::Gpu, false) => "neighbouring invocations read far apart",
        };
        format!("one row an invocation: {reads}")
    }

    fn needs(&self, setup: &S) -> Result<Needs, String> {
        Ok(Tile::of(setup.rows(), setup.profile()).needs(setup.rows()))
    }

    fn kernel(&self, setup: &S) -> Result<Kernel> {
        setup.whole(Deal::Plain(Tile::of(setup.rows(), setup.profile())))
    }
}
