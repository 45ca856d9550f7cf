//! A row by several invocations of a workgroup, whose results meet in workgroup memory.

use super::{
    super::{AdapterKind, Kernel, Profile, variant::Variant},
    Deal, Needs, RowSetup, Rows, rounds,
};
use crate::Result;

pub(super) const NAME: &str = "workgroup";

pub(super) struct Workgroup;

/// A row by `lanes` invocations, and `rows` of them a workgroup; a lane keeps `chunks` elems in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Tile {
    pub(super) lanes: usize,
    pub(super) rows: usize,
    pub(super) chunks: usize,
}

/// Workgroup memory of an invocation: two words.
const LANE_BYTES: u32 = 8;

impl Tile {
    pub(in crate::kernel) fn of(rows: &Rows, profile: &Profile) -> Self {
        const WG: usize = 256;
        const MOST_LANES: usize = 256;
        const LEAST_LANES: usize = 8;
        const CHUNKS: usize = 8;
        let limits = &profile.limits;
        let most = limits.workgroup_invocations.min(limits.workgroup_size_x).min(limits.workgroup_bytes / LANE_BYTES);
        let wg = 1 << (most as usize).clamp(LEAST_LANES, WG).ilog2();
        // A few elems a lane hide the time that loads take.
        let lanes = rows.elems.div_ceil(4).next_power_of_two().clamp(LEAST_LANES, MOST_LANES.min(wg));
        Tile { lanes, rows: wg / lanes, chunks: (rows.elems / lanes).min(CHUNKS) }
    }

    pub(super) fn needs(self, rows: &Rows) -> Needs {
        let invocations = (self.lanes * self.rows) as u64;
        let tree = 2 * (self.lanes.ilog2() as usize + 1);
        Needs {
            invocations,
            workgroup_bytes: invocations * u64::from(LANE_BYTES),
            ..rounds(rows.rounds_of_row(self.lanes, self.chunks) + tree)
        }
    }
}

impl<S: RowSetup> Variant<S> for Workgroup {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rank(&self, setup: &S) -> u32 {
        match setup.profile().kind {
            AdapterKind::Cpu if !setup.rows().read_across(setup.profile()) => 4,
            AdapterKind::Cpu | AdapterKind::Gpu => 2,
        }
    }

    fn reason(&self, setup: &S) -> String {
        match setup.profile().kind {
            AdapterKind::Cpu => "barriers are costly on a software adapter",
            AdapterKind::Gpu => "a row is loaded once, by neighbouring invocations",
        }
        .into()
    }

    fn needs(&self, setup: &S) -> Result<Needs, String> {
        Ok(Tile::of(setup.rows(), setup.profile()).needs(setup.rows()))
    }

    fn kernel(&self, setup: &S) -> Result<Kernel> {
        setup.whole(Deal::Workgroup(Tile::of(setup.rows(), setup.profile())))
    }
}
