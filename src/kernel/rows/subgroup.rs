//! A row a subgroup, whose lanes keep what they can of it in registers.

use super::{
    super::{
        AdapterKind, Kernel, Profile,
        variant::{Needs, Variant},
    },
    deal::{Deal, SUBGROUP, SubgroupTile},
    plain,
    setup::RowSetup,
    shape::Rows,
};
use crate::Result;

pub(super) struct Subgroup;

impl SubgroupTile {
    /// For subgroups of the least size that the device has.
    fn of(rows: &Rows, profile: &Profile) -> Self {
        let lanes = profile.subgroup.map_or(1, |(least, _)| least as usize);
        // On a software adapter, registers are memory; what counts is how long straight-line code takes to compile.
        let (chunks, turns) = match profile.kind {
            AdapterKind::Cpu => {
                let accesses = match (rows.passes, rows.pack) {
                    // Nothing is kept for another pass.
                    (1, _) => 0,
                    (_, 1) => 320,
                    _ => 192,
                };
                (accesses / rows.accesses.max(1), (rows.rows / 128).clamp(1, 32))
            }
            AdapterKind::Gpu => (96 / (rows.registers * rows.pack).max(1), (rows.rows / 8192).clamp(1, 8)),
        };
        let tile = SubgroupTile { lanes, chunks: (rows.elems / lanes).min(chunks), turns };
        let most = profile.loop_rounds().map_or(turns, |most| (most as usize - 1) / tile.rounds_of_row(rows));
        SubgroupTile { turns: turns.min(most).max(1), ..tile }
    }

    /// How many elems of a row are loaded but once.
    fn loaded_once(self, rows: &Rows) -> usize {
        if rows.passes == 1 || (self.chunks + 1) * self.lanes > rows.elems {
            rows.elems
        } else {
            self.chunks * self.lanes
        }
    }

    /// Whether it beats the variants that load each elem for each pass.
    fn pays(self, rows: &Rows, profile: &Profile) -> bool {
        let once = self.loaded_once(rows);
        match profile.kind {
            AdapterKind::Cpu => 2 * once >= rows.elems && !self.has_little(rows),
            AdapterKind::Gpu => once == rows.elems,
        }
    }

    /// Whether a software adapter's subgroup would have too little to do: what it takes for a row, its lanes' partial results to merge
    /// above all, is then more than what it saves. Not if there are too few rows to give each processor some.
    fn has_little(self, rows: &Rows) -> bool {
        const SHORT: usize = 2048;
        const FEW: usize = 16 * plain::CPU_WG;
        if rows.rows < FEW {
            return false;
        }
        match rows.passes {
            // Single elements load as slowly by neighbouring lanes as by lanes that are far apart.
            1 => rows.pack == 1 || rows.elems * rows.pack <= SHORT,
            _ => rows.elems < self.lanes,
        }
    }
}

impl<S: RowSetup> Variant<S> for Subgroup {
    fn name(&self) -> &'static str {
        SUBGROUP
    }

    fn rank(&self, setup: &S) -> u32 {
        let (rows, profile) = (setup.rows(), setup.profile());
        if !rows.read_across(profile) && SubgroupTile::of(rows, profile).pays(rows, profile) { 1 } else { 3 }
    }

    fn reason(&self, setup: &S) -> String {
        let rows = setup.rows();
        let tile = SubgroupTile::of(rows, setup.profile());
        if rows.passes == 1 {
            return "a subgroup takes neighbouring elements".into();
        }
        if tile.loaded_once(rows) == rows.elems {
            return "a row stays in the registers of a subgroup".into();
        }
        format!(
            "of a row's {} {} a subgroup keeps {} in registers and loads the others again",
            rows.elems,
            if rows.pack > 1 { "vectors" } else { "elements" },
            tile.chunks * tile.lanes
        )
    }

    fn needs(&self, setup: &S) -> Result<Needs, String> {
        match setup.profile().subgroup {
            None => Err("the device has no subgroup operations".into()),
            Some((least, most)) if least != most => {
                Err(format!("the subgroup size varies from {least} to {most} here"))
            }
            Some(_) => Ok(SubgroupTile::of(setup.rows(), setup.profile()).needs(setup.rows())),
        }
    }

    fn kernel(&self, setup: &S) -> Result<Kernel> {
        setup.whole(Deal::Subgroup(SubgroupTile::of(setup.rows(), setup.profile())))
    }
}
