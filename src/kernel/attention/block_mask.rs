//! Which tiles of a boolean mask are fully masked, and which not at all: a launch before the tiles of attention, and the variant
//! that goes through tiles in workgroup memory after it.

use super::{
    plain, sequences,
    setup::{MaskTiles, Rank, Setup},
    split_kv,
    tiled::{BC, Tile},
};
use crate::{
    Layout, Result,
    graph::AttentionOperand,
    kernel::{
        Binding, Kernel, Launch, Operand, Parameters, Specialization, buffer_bytes, fold_grid,
        variant::{Needs, Variant},
    },
    tensor::DType,
};

/// The tiles of a mask; along what it broadcasts there is one.
#[derive(Clone, Debug)]
pub(super) struct BlockMask {
    mask: Layout,
    /// Rows and keys of a tile.
    tile: [usize; 2],
    batch: usize,
    heads: usize,
    row_tiles: usize,
    key_tiles: usize,
    keys: usize,
}

impl BlockMask {
    /// `None` without a mask.
    pub(super) fn of(setup: &Setup<'_>, tile: [usize; 2]) -> Option<Self> {
        let sizes = &setup.sizes;
        let mask = sizes.broadcast(setup.problem.operand(AttentionOperand::Mask)?);
        let [batch, heads] = [0, 1].map(|axis| if mask.strides[axis] == 0 { 1 } else { mask.shape[axis] });
        let keys = sizes.key_limit.min(mask.shape[3]);
        let (row_tiles, key_tiles) = (sizes.rows.div_ceil(tile[0]), sizes.keys.div_ceil(tile[1]));
        Some(BlockMask { mask, tile, batch, heads, row_tiles, key_tiles, keys })
    }

    fn tiles(&self) -> usize {
        self.batch * self.heads * self.row_tiles * self.key_tiles
    }

    /// Bytes of what is found.
    pub(super) fn bytes(&self) -> u64 {
        buffer_bytes(DType::U32, self.tiles())
    }

    /// Steps of (B, Hq, row tiles).
    fn steps(&self) -> [usize; 3] {
        let head = self.row_tiles * self.key_tiles;
        let step = |count: usize, step: usize| if count > 1 { step } else { 0 };
        [step(self.batch, self.heads * head), step(self.heads, head), self.key_tiles]
    }

    /// Whether looking at the mask first costs next to nothing, and may save much: there are many tiles, each of which takes
    /// far longer than a look at its mask, by the operations of attention for each of its elements.
    pub(super) fn pays(&self, setup: &Setup<'_>) -> bool {
        let sizes = &setup.sizes;
        let shared = (sizes.batch / self.batch.max(1)) * (sizes.heads / self.heads.max(1));
        let many = sizes.rows >= 4 * self.tile[0] && sizes.keys >= 8 * self.tile[1];
        many && 2 * shared * (sizes.d + sizes.dv) >= 64
    }

    /// Adds the launch that looks at the mask; the buffer of what it found.
    pub(super) fn place(&self, setup: &Setup<'_>, kernel: &mut Kernel) -> Result<MaskTiles> {
        kernel.workspace.push(self.bytes());
        let tiles = Operand::Workspace(kernel.workspace.len() - 1);
        let mut source =
            Specialization::new("attention::block_mask").value("BR", self.tile[0]).value("BC", self.tile[1]);
        let whole_words = self.mask.strides[3] == 1
            && self.mask.offset.is_multiple_of(4)
            && self.mask.strides[..3].iter().all(|stride| stride % 4 == 0);
        if whole_words {
            source =
                source.function("mask_four", "fn mask_four(row: u32, j: u32) -> u32 { return mask[(row + j) >> 2u]; }");
        }
        let source = source.source()?;
        let [mask_b, mask_h, mask_i, mask_j] = setup.strides(&self.mask);
        let parameters = Parameters::new()
            .set("workgroups", self.tiles())
            .set("heads", self.heads)
            .set("row_tiles", self.row_tiles)
            .set("key_tiles", self.key_tiles)
            .set("rows", setup.sizes.rows)
            .set("keys", self.keys)
            .set("mask_offset", self.mask.offset)
            .set("mask_b", mask_b)
            .set("mask_h", mask_h)
            .set("mask_i", mask_i)
            .set("mask_j", mask_j);
        kernel.launches.push(Launch {
            label: "tiles of the mask".into(),
            params: source.words(&parameters)?,
            source,
            bindings: setup
                .input(AttentionOperand::Mask)
                .map(Binding::read)
                .into_iter()
                .chain([Binding::write(tiles)])
                .collect(),
            grid: fold_grid(self.tiles() as u64, setup.profile, "attention")?,
            flops: 0,
            exponentials: 0,
            bytes: (self.batch * self.heads * setup.sizes.rows * self.keys) as u64 + self.bytes(),
        });
        Ok(MaskTiles { operand: tiles, steps: self.steps() })
    }
}

#[derive(Debug)]
pub(super) struct Masked;

/// The mask in the tiles of `tiled.wesl`.
fn mask(setup: &Setup<'_>) -> Option<BlockMask> {
    BlockMask::of(setup, [Tile::tall(setup).br, BC])
}

/// Whether it is the best of those that run everywhere.
fn suits(setup: &Setup<'_>) -> bool {
    !plain::suits(setup) && !split_kv::suits(setup) && mask(setup).is_some_and(|mask| mask.pays(setup))
}

impl Variant<Setup<'_>> for Masked {
    fn name(&self) -> &'static str {
        "block_mask"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        (if suits(setup) { Rank::Suited } else { Rank::General }) as u32
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "as tiled, without the tiles that are fully masked".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let mask = mask(setup).ok_or("there is no boolean mask")?;
        let needs = setup.needs_of_outputs()?;
        let needs = Needs { buffers: needs.buffers + 1, workspace: mask.bytes(), ..needs };
        Ok(Tile::tall(setup).with_workgroup(needs, setup, setup.sizes.keys))
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let mut kernel = sequences::begin(setup)?;
        let mask_tiles = mask(setup).map(|mask| mask.place(setup, &mut kernel)).transpose()?;
        let tile = Tile::tall(setup);
        // A tile of the mask has the rows of one head.
        tile.whole(setup, kernel, tile.tiling(1), mask_tiles)
    }
}
