//! Tiles in workgroup memory; with few query rows, the keys of a tile split over several workgroups.

use super::{
    block_mask::BlockMask,
    parts::{self, Parts},
    setup::{Setup, Tiling},
};
use crate::{
    Result,
    kernel::{Binding, Kernel, Launch, Profile, Specialization},
};

/// Keys at a time.
const BC: usize = 32;
const K_STRIDE: usize = BC / 4 + 1;

/// The value slots of the shader, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Rows of a workgroup, and of an invocation.
    br: usize,
    tr: usize,
    /// vec4s of each row of O of an invocation.
    nv: usize,
    /// Columns of q and k, and rows of v, at a time.
    kt: usize,
    vt: usize,
    /// Columns of q that are staged, and whether that is once for all.
    q_columns: usize,
    q_stays: bool,
}

impl Shape {
    /// For whole tiles of queries: 64 rows, and 64 floats of O in the registers of an invocation.
    fn tall(d: usize, dv: usize, profile: &Profile) -> Self {
        let nv = dv.div_ceil(32).max(1);
        let tr = match nv {
            ..=2 => 8,
            3..=4 => 4,
            _ => 2,
        };
        // Rows of v as they fit in the place of k and q.
        let lean = Shape { br: 64, tr, nv, kt: 16, vt: rows_of_v(nv, 464), q_columns: 16, q_stays: false };
        // With memory for it, q is read once and a tile takes fewer barriers.
        let kt = d.next_multiple_of(16).clamp(16, 64);
        let rich =
            Shape { kt, vt: rows_of_v(nv, 512), q_columns: d.max(1).next_multiple_of(kt), q_stays: true, ..lean };
        // More would leave no room for a second workgroup beside it.
        let limit = profile.limits.workgroup_bytes.min(48 << 10) as usize;
        if rich.bytes() <= limit { rich } else { lean }
    }

    /// For few queries: 16 rows.
    fn flat(dv: usize) -> Self {
        let nv = dv.div_ceil(32).max(1);
        Shape { br: 16, tr: 2, nv, kt: 32, vt: rows_of_v(nv, 512), q_columns: 32, q_stays: false }
    }

    fn workgroup(self) -> usize {
        8 * self.br / self.tr
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

    /// Workgroup memory: staged operands, weights, and a float a row.
    fn bytes(self) -> usize {
        16 * (self.stage() + self.br * 8) + 4 * self.br
    }

    fn fill(self, source: Specialization) -> Specialization {
        source
            .value("BR", self.br)
            .value("BC", BC)
            .value("TR", self.tr)
            .value("NV", self.nv)
            .value("KT", self.kt)
            .value("VT", self.vt)
            .value("Q_COLUMNS", self.q_columns)
            .value("Q_AT", self.q_at())
            .value("STAGE", self.stage())
            .region("Q_STAYS", self.q_stays)
            .trusted()
    }

    /// Key tiles that one invocation can go through before the driver ends its loops; see [`Profile::loop_rounds`].
    fn most_tiles(self, d: usize, profile: &Profile) -> Option<u64> {
        // Staging: rounds of a copy loop, each of up to four elements one by one, and entering both.
        let staged = |vec4s: usize| 6 * (vec4s.div_ceil(self.workgroup()) + 1);
        let q = staged(self.br * self.kt.max(self.q_columns) / 4);
        let scores = d.max(1).div_ceil(self.kt) * (q + staged(self.kt * BC / 4) + self.kt / 4 + 2);
        let softmax = 2 * self.tr * 10;
        let values = BC.div_ceil(self.vt) * (staged(self.vt * 8 * self.nv) + self.vt / 4 + 2);
        let once = q * d.div_ceil(self.kt).max(1) + 64;
        let most = profile.loop_rounds()?.saturating_sub(once as u64);
        // A tile, and the look whether the next one is hidden; ranges need not begin at a tile: one more.
        Some((most / (scores + softmax + values + 4) as u64).saturating_sub(1))
    }

    fn refusal(self, profile: &Profile) -> Option<String> {
        let limits = &profile.limits;
        if self.bytes() > limits.workgroup_bytes as usize {
            return Some(format!(
                "needs {} bytes of workgroup memory, {} are there",
                self.bytes(),
                limits.workgroup_bytes
            ));
        }
        let most = limits.workgroup_invocations.min(limits.workgroup_size_x) as usize;
        (self.workgroup() > most).then(|| format!("needs {} invocations, a workgroup has {most}", self.workgroup()))
    }
}

/// Rows of v at a time: as many as fit in so many vec4s.
fn rows_of_v(nv: usize, vec4s: usize) -> usize {
    [32, 16, 8].into_iter().find(|rows| rows * 8 * nv <= vec4s).unwrap_or(4)
}

fn template(setup: &Setup<'_>, shape: Shape) -> Specialization {
    let source = setup.specialize("attention::tiled");
    let source = ["k", "bias"].into_iter().fold(shape.fill(source), |source, name| setup.reads_one(source, name));
    let source = setup.reads_four(source, "q", &setup.problem.q);
    setup.reads_four(source, "v", &setup.problem.v)
}

fn tall(setup: &Setup<'_>) -> Shape {
    Shape::tall(setup.sizes.d, setup.sizes.dv, setup.profile)
}

pub(super) fn refusal(setup: &Setup<'_>) -> Option<String> {
    let shape = tall(setup);
    rounds(setup, shape, 1).or_else(|| shape.refusal(setup.profile))
}

/// Why the keys, in so many parts, take more rounds of loops than the driver lets pass, if they do.
fn rounds(setup: &Setup<'_>, shape: Shape, splits: usize) -> Option<String> {
    let keys = setup.sizes.keys.div_ceil(splits);
    let most = shape.most_tiles(setup.sizes.d, setup.profile)?;
    let tiles = keys.div_ceil(BC) as u64;
    (tiles > most).then(|| format!("{keys} keys of a workgroup are {tiles} tiles, the driver ends loops after {most}"))
}

pub(super) fn kernel(setup: &Setup<'_>) -> Result<Kernel> {
    whole(setup, None)
}

/// Why the tiles of a mask can't be told apart before.
pub(super) fn block_mask_refusal(setup: &Setup<'_>) -> Option<String> {
    let Some(mask) = mask(setup) else { return Some("there is no boolean mask".into()) };
    refusal(setup).or_else(|| mask.refusal(setup))
}

pub(super) fn block_mask_kernel(setup: &Setup<'_>) -> Result<Kernel> {
    whole(setup, mask(setup).as_ref())
}

fn mask(setup: &Setup<'_>) -> Option<BlockMask> {
    BlockMask::of(setup, [tall(setup).br, BC])
}

/// Whether to look at the mask first.
pub(super) fn prefers_block_mask(setup: &Setup<'_>) -> bool {
    mask(setup).is_some_and(|mask| mask.pays(setup))
}

/// All keys of a tile of rows in one workgroup.
fn whole(setup: &Setup<'_>, mask: Option<&BlockMask>) -> Result<Kernel> {
    let mut kernel = setup.begin()?;
    let shape = tall(setup);
    // A tile of the mask has the rows of one head.
    let tiling = Tiling::of(shape.br, if mask.is_some() { 1 } else { setup.span(shape.br) });
    let mask_tiles = mask.map(|mask| mask.place(setup, &mut kernel)).transpose()?;
    let out = setup.out(&mut kernel);
    kernel.launches.push(Launch {
        label: "tiled".into(),
        source: setup
            .writes_four(template(setup, shape), out)
            .region("LSE", setup.problem.lse)
            .region("MASK_TILES", mask_tiles.is_some())
            .source()?,
        bindings: setup.inputs_and(mask_tiles).into_iter().chain(setup.outputs(out)).collect(),
        params: setup.params_and(tiling, mask),
        grid: setup.grid(tiling)?,
        flops: setup.flops(),
        exponentials: setup.exponentials(),
        bytes: setup.bytes(),
    });
    setup.finish(&mut kernel, out)?;
    Ok(kernel)
}

/// Whether whole tiles of queries leave most of a GPU idle, and the keys suffice to share out.
pub(super) fn prefers_split(setup: &Setup<'_>) -> bool {
    let shape = tall(setup);
    let tiling = Tiling::of(shape.br, setup.span(shape.br));
    parts::pay(setup, tiling)
}

/// Whether the rows of a split tile suffice for all that share a key head.
pub(super) fn is_flat(setup: &Setup<'_>) -> bool {
    let rows = Shape::flat(setup.sizes.dv).br;
    setup.sizes.rows * setup.span(rows) <= rows
}

fn split_tiling(setup: &Setup<'_>) -> Tiling {
    let shape = Shape::flat(setup.sizes.dv);
    let whole = Tiling::of(shape.br, setup.span(shape.br));
    // At least two, so that a problem of any size can take this way, and as many as the driver's end of loops asks for.
    let tiles = setup.sizes.keys.div_ceil(BC) as u64;
    let needed = shape.most_tiles(setup.sizes.d, setup.profile).map_or(0, |most| tiles.div_ceil(most.max(1)) as usize);
    Tiling { splits: parts::wanted(setup, whole).max(2).max(needed.min(parts::MOST)), ..whole }
}

pub(super) fn split_refusal(setup: &Setup<'_>) -> Option<String> {
    let tiling = split_tiling(setup);
    let shape = Shape::flat(setup.sizes.dv);
    let parts = Parts::new(setup, tiling);
    parts.refusal(setup).or_else(|| rounds(setup, shape, tiling.splits)).or_else(|| shape.refusal(setup.profile))
}

pub(super) fn split_kernel(setup: &Setup<'_>) -> Result<Kernel> {
    let mut kernel = setup.begin()?;
    let shape = Shape::flat(setup.sizes.dv);
    let tiling = split_tiling(setup);
    let parts = Parts::new(setup, tiling);
    let to = parts.place(&mut kernel);
    kernel.launches.push(Launch {
        label: format!("split-kv: {} parts", tiling.splits),
        source: template(setup, shape).region("SPLIT", true).source()?,
        bindings: setup.inputs().into_iter().chain([Binding::write(to)]).collect(),
        params: setup.params(tiling),
        grid: setup.grid(tiling)?,
        flops: setup.flops(),
        exponentials: setup.exponentials(),
        bytes: setup.bytes() + parts.bytes,
    });
    parts.merge(setup, &mut kernel, to)?;
    Ok(kernel)
}
