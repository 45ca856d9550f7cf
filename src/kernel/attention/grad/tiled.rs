//! Tiles of rows in workgroup memory.

use super::{
    odd, plain,
    setup::{Output, Pass, Setup},
};
use crate::{
    Result,
    kernel::{
        Kernel, Specialization,
        attention::setup::Rank,
        variant::{Needs, Variant},
    },
};

/// Rows of a workgroup, and others at a time.
const BR: usize = 32;
const BC: usize = 32;
/// Columns at a time.
const KT: usize = 16;
/// vec4s of others by columns, and of own rows by as many, as the shader lays them out.
const BY_COLUMNS: usize = KT * (BC / 4 + 1) + BR * (KT / 4 + 1);
const PASSES: [Pass; 2] = [Pass::Rows(BR), Pass::Keys(BR)];

/// The value slots of `tiles.wesl`.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// Rows of an invocation.
    tr: usize,
    /// vec4s of a row of dq or dk, and of dv, of an invocation.
    na: usize,
    nb: usize,
    /// Others at a time whose whole rows are staged.
    vt: usize,
}

impl Tile {
    fn of(setup: &Setup<'_>) -> Self {
        let sizes = &setup.attention.sizes;
        let [na, nb] = [sizes.d, sizes.dv].map(|columns| columns.div_ceil(32).max(1));
        // What an invocation holds of dk and dv: 32 vec4s at most.
        let tr = if na + nb <= 8 { 4 } else { 2 };
        let vt = [32, 16, 8].into_iter().find(|vt| vt * 8 * na.max(nb) <= BY_COLUMNS).unwrap_or(4);
        Tile { tr, na, nb, vt }
    }

    fn workgroup(self) -> usize {
        8 * BR / self.tr
    }

    fn stage(self) -> usize {
        BY_COLUMNS.max(self.vt * 8 * self.na.max(self.nb))
    }

    /// Staged rows, dT and P, and whether a sum is odd.
    fn bytes(self) -> usize {
        16 * (self.stage() + 2 * BR * BC / 4) + 4
    }

    /// Rounds of the loops of a pass.
    fn rounds(self, setup: &Setup<'_>, pass: Pass) -> usize {
        let sizes = &setup.attention.sizes;
        let staged = |vec4s: usize| vec4s.div_ceil(self.workgroup()) + 1;
        let by_columns = staged(BR * KT / 4) + staged(KT * BC / 16) + KT / 4 + 2;
        let products = (sizes.d.div_ceil(KT) + sizes.dv.div_ceil(KT) + 2) * by_columns;
        let rows = |n: usize| (BC / self.vt) * (staged(self.vt * 8 * n) + self.vt / 4 + 2) + 1;
        match pass {
            Pass::Rows(_) => (sizes.keys / BC + 2) * (products + rows(self.na) + 1) + 64,
            Pass::Keys(_) => {
                // Records may all be in one tile.
                let tiles = sizes.rows / BC + 1 + setup.attention.records().min(sizes.rows + 1);
                sizes.group() * tiles * (products + rows(self.na) + rows(self.nb) + 1) + setup.attention.records() + 64
            }
            Pass::Elements(_) => 0,
        }
    }

    fn source(self, setup: &Setup<'_>, pass: Pass, outputs: &[Output]) -> Specialization {
        let kernel = if let Pass::Rows(_) = pass { "attention_grad::tiled_rows" } else { "attention_grad::tiled_keys" };
        let Tile { tr, na, nb, vt } = self;
        plain::fours(setup, setup.specialize(kernel, outputs))
            .value("BR", BR)
            .value("BC", BC)
            .value("TR", tr)
            .value("NA", na)
            .value("NB", nb)
            .value("KT", KT)
            .value("VT", vt)
            .value("STAGE", self.stage())
            .region("ROW_SUMS", outputs.iter().any(Output::is_sum_of_row))
    }
}

#[derive(Debug)]
pub(super) struct Tiled;

impl Variant<Setup<'_>> for Tiled {
    fn name(&self) -> &'static str {
        "tiled"
    }

    fn rank(&self, _: &Setup<'_>) -> u32 {
        Rank::General as u32
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "tiles of rows in workgroup memory".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        setup.attention.check_held()?;
        let tile = Tile::of(setup);
        let passes = PASSES.into_iter().filter(|&pass| setup.has(pass));
        let rounds = passes.map(|pass| tile.rounds(setup, pass)).max().unwrap_or(0) as u64;
        let needs = odd::needs(setup)?;
        Ok(Needs {
            invocations: tile.workgroup() as u64,
            workgroup_bytes: tile.bytes() as u64,
            rounds: needs.rounds.max(rounds),
            ..needs
        })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let tile = Tile::of(setup);
        let launches = PASSES.into_iter().zip(["tiled: queries", "tiled: keys"]);
        odd::kernel(setup, launches, |pass, outputs| tile.source(setup, pass, outputs))
    }
}
