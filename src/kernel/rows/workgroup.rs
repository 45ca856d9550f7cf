//! A row by several invocations of a workgroup, whose results meet in workgroup memory.

use super::{
    super::{
        AdapterKind, Kernel, Profile,
        variant::{Needs, Variant},
    },
    deal::{Deal, WORKGROUP, WorkgroupTile},
    setup::RowSetup,
    shape::Rows,
};
use crate::Result;

pub(super) struct Workgroup;

impl WorkgroupTile {
    pub(super) fn of(rows: &Rows, profile: &Profile) -> Self {
        const WG: usize = 256;
        const MOST_LANES: usize = 256;
        const LEAST_LANES: usize = 8;
        const CHUNKS: usize = 8;
        let limits = &profile.limits;
        let most =
            limits.workgroup_invocations.min(limits.workgroup_size_x).min(limits.workgroup_bytes / Self::LANE_BYTES);
        let wg = 1 << (most as usize).clamp(LEAST_LANES, WG).ilog2();
        // A few elems a lane hide the time that loads take.
        let lanes = rows.elems.div_ceil(4).next_power_of_two().clamp(LEAST_LANES, MOST_LANES.min(wg));
        WorkgroupTile { lanes, rows: wg / lanes, chunks: (rows.elems / lanes).min(CHUNKS) }
    }
}

impl<S: RowSetup> Variant<S> for Workgroup {
    fn name(&self) -> &'static str {
        WORKGROUP
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
        Ok(WorkgroupTile::of(setup.rows(), setup.profile()).needs(setup.rows()))
    }

    fn kernel(&self, setup: &S) -> Result<Kernel> {
        setup.whole(Deal::Workgroup(WorkgroupTile::of(setup.rows(), setup.profile())))
    }
}
