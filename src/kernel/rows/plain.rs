//! A row an invocation: no workgroup memory, no features.

use super::{
    super::{
        AdapterKind, Kernel, Profile,
        variant::{Needs, Variant},
    },
    deal::{Deal, PLAIN, PlainTile},
    setup::RowSetup,
    shape::Rows,
};
use crate::Result;

pub(super) struct Plain;

/// Invocations of a workgroup on a software adapter, which gives each thread whole workgroups, and of one of very many rows: a
/// workgroup takes 0.1 µs.
pub(super) const CPU_WG: usize = 16;
const CPU_WG_OF_MANY: usize = 64;
/// Rows that are still very many workgroups then.
const MANY_ROWS: usize = 1 << 14;

impl PlainTile {
    pub(super) fn of(rows: &Rows, profile: &Profile) -> Self {
        let wg = match profile.kind {
            AdapterKind::Cpu if rows.rows < MANY_ROWS => CPU_WG,
            AdapterKind::Cpu => CPU_WG_OF_MANY,
            AdapterKind::Gpu => 64,
        };
        PlainTile { wg }
    }
}

impl<S: RowSetup> Variant<S> for Plain {
    fn name(&self) -> &'static str {
        PLAIN
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
        Ok(PlainTile::of(setup.rows(), setup.profile()).needs(setup.rows()))
    }

    fn kernel(&self, setup: &S) -> Result<Kernel> {
        setup.whole(Deal::Plain(PlainTile::of(setup.rows(), setup.profile())))
    }
}
