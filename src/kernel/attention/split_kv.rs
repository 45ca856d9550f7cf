//! Tiles in workgroup memory for few query rows: the keys of a tile are split over several workgroups.

use super::{
    partials, plain,
    setup::{Rank, Setup, Tiling},
    tiled::{BC, Tile},
};
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel,
        variant::{Needs, Variant},
    },
};

#[derive(Debug)]
pub(super) struct SplitKv;

/// Whether it is the best of those that run everywhere.
pub(super) fn suits(setup: &Setup<'_>) -> bool {
    match setup.profile.kind {
        // The rows of one tile suffice for all that share a key head.
        AdapterKind::Cpu => {
            let rows = Tile::flat(setup).br;
            setup.sizes.rows * setup.span(rows) <= rows && !plain::suits(setup)
        }
        AdapterKind::Gpu => {
            let tile = Tile::tall(setup);
            partials::pay(setup, tile.tiling(setup.span(tile.br)))
        }
    }
}

/// How rows and keys are shared out.
fn tiling(setup: &Setup<'_>) -> Tiling {
    let tile = Tile::flat(setup);
    let whole = tile.tiling(setup.span(tile.br));
    // At least two, so that a problem of any size can take this way, and as many as the driver's end of loops asks for.
    let tiles = setup.sizes.keys.div_ceil(BC) as u64;
    let needed = tile.most_tiles(setup).map_or(0, |most| tiles.div_ceil(most.max(1)) as usize);
    Tiling { splits: partials::wanted(setup, whole).max(2).max(needed.min(partials::MOST_NEEDED)), ..whole }
}

impl Variant<Setup<'_>> for SplitKv {
    fn name(&self) -> &'static str {
        "split_kv"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        (if suits(setup) { Rank::Suited } else { Rank::General }) as u32
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "few query rows: the keys are split over workgroups".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let tiling = tiling(setup);
        // Lse is written by the merge.
        let needs = Needs { workspace: partials::bytes(setup, tiling), ..setup.needs(1)? };
        Ok(Tile::flat(setup).with_workgroup(needs, setup, setup.sizes.keys.div_ceil(tiling.splits)))
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        partials::whole(setup, "split-kv", Tile::flat(setup).source(setup), tiling(setup))
    }
}
