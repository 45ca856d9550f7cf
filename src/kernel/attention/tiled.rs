//! Tiles of queries, keys and values in workgroup memory.

use super::{
    sequences,
    setup::{MaskTiles, Rank, Setup, Tiling},
    storage::{Float, Lie},
};
use crate::{
    Result,
    kernel::{
        Kernel, Specialization,
        variant::{Needs, Variant},
    },
};

/// Keys at a time.
pub(super) const BC: usize = 32;
const K_STRIDE: usize = BC / 4 + 1;

/// The value slots of `tiled.wesl`, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Rows of a workgroup, and of an invocation.
    pub(super) br: usize,
    tr: usize,
    /// vec4s of each row of O of an invocation.
    nv: usize,
    /// Workgroups that share the columns of v and O, each of which computes the scores.
    column_parts: usize,
    /// Columns of q and k, and rows of v, at a time.
    kt: usize,
    vt: usize,
    /// Columns of q that are staged, and whether that is once for all.
    q_columns: usize,
    q_stays: bool,
}

impl Tile {
    /// For whole tiles of queries: 64 rows, and 64 floats of O in the registers of an invocation.
    pub(super) fn tall(setup: &Setup<'_>) -> Self {
        let d = setup.sizes.d;
        let [nv, column_parts] = columns(setup);
        let tr = match nv {
            ..=2 => 8,
            3..=4 => 4,
            5.. => 2,
        };
        // Rows of v as they fit in the place of k and q.
        let lean = Tile { br: 64, tr, nv, column_parts, kt: 16, vt: rows_of_v(nv, 464), q_columns: 16, q_stays: false };
        // With memory for it, q is read once and a tile takes fewer barriers.
        let kt = d.next_multiple_of(16).clamp(16, 64);
        let rich = Tile { kt, vt: rows_of_v(nv, 512), q_columns: d.max(1).next_multiple_of(kt), q_stays: true, ..lean };
        // More would leave no room for a second workgroup beside it.
        let limit = setup.profile.limits.workgroup_bytes.min(48 << 10) as usize;
        if rich.bytes() <= limit { rich } else { lean }
    }

    /// For few queries: 16 rows.
    pub(super) fn flat(setup: &Setup<'_>) -> Self {
        let [nv, column_parts] = columns(setup);
        Tile { br: 16, tr: 2, nv, column_parts, kt: 32, vt: rows_of_v(nv, 512), q_columns: 32, q_stays: false }
    }

    fn workgroup(self) -> usize {
        8 * self.br / self.tr
    }

    /// How rows and columns are shared out if query heads share tiles.
    pub(super) fn tiling(self, span: usize) -> Tiling {
        Tiling { column_parts: self.column_parts, ..Tiling::of(self.br, span) }
    }

    /// vec4s of staged v, or of staged k.
    fn kv(self) -> usize {
        (self.vt * 8 * self.nv).max(self.kt * K_STRIDE)
    }

    /// Where q is staged: behind k, and behind v too if it stays.
    fn q_at(self) -> usize {
        if self.q_stays { self.kv() } else { self.kt * K_STRIDE }
    }

    fn stage(self) -> usize {
        self.kv().max(self.q_at() + self.br * (self.q_columns / 4 + 1))
    }

    /// Workgroup memory: staged operands, weights, a float a row, and whether a sum is odd.
    fn bytes(self) -> usize {
        16 * (self.stage() + self.br * 8) + 4 * self.br + 4
    }

    /// Rounds of loops for a tile of keys, the most, and once; see
    /// [`Profile::loop_rounds`](crate::kernel::Profile::loop_rounds).
    fn rounds(self, d: usize) -> [u64; 2] {
        // Staging: rounds of a copy loop, each of up to four elements one by one, and entering both.
        let staged = |vec4s: usize| 6 * (vec4s.div_ceil(self.workgroup()) + 1);
        let q = staged(self.br * self.kt.max(self.q_columns) / 4);
        let scores = d.max(1).div_ceil(self.kt) * (q + staged(self.kt * BC / 4) + self.kt / 4 + 2);
        let softmax = 2 * self.tr * 10;
        let values = BC.div_ceil(self.vt) * (staged(self.vt * 8 * self.nv) + self.vt / 4 + 2);
        let once = q * d.div_ceil(self.kt).max(1) + 64;
        // With a tile the look whether the next one is fully masked.
        [(scores + softmax + values + 4) as u64, once as u64]
    }

    /// The most tiles of keys that one workgroup can go through.
    pub(super) fn most_tiles(self, setup: &Setup<'_>) -> Option<u64> {
        let [tile, once] = self.rounds(setup.sizes.d);
        let most = setup.profile.loop_rounds()?.saturating_sub(once);
        // Ranges need not begin at a tile: one more. Odd rows go over their keys one by one.
        let walked = setup.rounds_of_walk(BC) - setup.rounds_of_walk(0);
        Some((most.saturating_sub(setup.rounds_of_walk(0)) / (tile + walked)).saturating_sub(1))
    }

    /// These needs, and what a workgroup takes that goes through so many keys.
    pub(super) fn with_workgroup(self, needs: Needs, setup: &Setup<'_>, keys: usize) -> Needs {
        let [tile, once] = self.rounds(setup.sizes.d);
        let rounds = (keys.div_ceil(BC) as u64 + 1) * tile + once + setup.rounds_of_walk(keys);
        Needs {
            invocations: self.workgroup() as u64,
            workgroup_bytes: self.bytes() as u64,
            rounds: needs.rounds.max(rounds),
            ..needs
        }
    }

    pub(super) fn source(self, setup: &Setup<'_>) -> Specialization {
        let source = setup
            .specialize("attention::tiled")
            .value("BR", self.br)
            .value("BC", BC)
            .value("TR", self.tr)
            .value("NV", self.nv)
            .value("COLUMN_PARTS", self.column_parts)
            .value("KT", self.kt)
            .value("VT", self.vt)
            .value("Q_COLUMNS", self.q_columns)
            .value("Q_AT", self.q_at())
            .value("STAGE", self.stage())
            .region("Q_STAYS", self.q_stays)
            .trusted();
        let source =
            [Float::K, Float::Bias].into_iter().fold(source, |source, operand| setup.reads_one(source, operand));
        let source = [Float::Q, Float::V].into_iter().fold(source, |source, operand| setup.reads_four(source, operand));
        setup.walks(source, [Lie::Fours, Lie::Ones, Lie::Fours], 32 * self.nv)
    }

    /// Out of all keys of a tile of rows, in one workgroup, after the launches that there are.
    pub(super) fn whole(
        self,
        setup: &Setup<'_>,
        mut kernel: Kernel,
        tiling: Tiling,
        mask_tiles: Option<MaskTiles>,
    ) -> Result<Kernel> {
        let out = setup.out(&mut kernel);
        let source = setup.writes_four(self.source(setup), out);
        setup.whole(&mut kernel, "tiled", source, tiling, mask_tiles, out)?;
        Ok(kernel)
    }
}

/// vec4s of each row of O of an invocation, and in how many parts: as many as registers hold.
fn columns(setup: &Setup<'_>) -> [usize; 2] {
    const MOST: usize = 256;
    let column_parts = setup.sizes.dv.div_ceil(MOST).max(1);
    [setup.sizes.dv.div_ceil(32 * column_parts).max(1), column_parts]
}

/// Rows of v at a time: as many as fit in so many vec4s.
fn rows_of_v(nv: usize, vec4s: usize) -> usize {
    [32, 16, 8].into_iter().find(|rows| rows * 8 * nv <= vec4s).unwrap_or(4)
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
        "tiles of queries, keys and values in workgroup memory".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        Ok(Tile::tall(setup).with_workgroup(setup.needs_of_outputs()?, setup, setup.sizes.keys))
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let tile = Tile::tall(setup);
        tile.whole(setup, sequences::begin(setup)?, tile.tiling(setup.span(tile.br)), None)
    }
}
