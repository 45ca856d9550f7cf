//! Tiles on cooperative matrices: f16 operands, f32 sums and softmax.

use super::{
    block_mask::BlockMask,
    partials, sequences,
    setup::{Rank, Setup, Tiling, refused},
    storage::{Float, Lie},
};
use crate::{
    DType, Result,
    kernel::{
        AdapterKind, Kernel, Specialization,
        variant::{Needs, Variant},
    },
};

/// The value slots of `coop.wesl`, and what follows from them; see there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    /// Rows and columns of a matrix.
    s: usize,
    lanes: usize,
    /// Subgroups along the rows, and along keys and columns.
    sm: usize,
    sn: usize,
    /// Matrices of a subgroup along the rows.
    tm: usize,
    /// Keys at a time.
    bc: usize,
    d: usize,
    dv: usize,
}

/// Heads up to here leave the sums of 16 rows in the registers of one subgroup.
const NARROW: usize = 128;
/// Heads up to here leave room for twice the rows, of matrices of 8 by 8.
const DOUBLED: usize = 160;

impl Tile {
    /// The first tile for the problem that fits the device; or why none does.
    fn of(setup: &Setup<'_>, s: u32) -> Result<Self, String> {
        let dtypes = setup.problem.dtypes;
        let stored = [dtypes.q, dtypes.k, dtypes.v, dtypes.out];
        if stored != [DType::F16; 4] {
            let [q, k, v, out] = stored;
            return Err(format!(
                "takes q, k, v and out of f16, and these are {q}, {k}, {v} and {out}; cast them in the graph where their \
                 precision is enough"
            ));
        }
        setup.check_held()?;
        let needs = setup.needs_of_outputs()?;
        let lanes = setup.profile.cooperative_lanes(s)? as usize;
        let s = s as usize;
        let (d, dv) = (setup.sizes.d, setup.sizes.dv);
        if d == 0 || dv == 0 {
            return Err("a head without columns leaves nothing to multiply".into());
        }
        // A subgroup takes two matrices of rows where each of its rows still has an invocation, the 8 by 8, and where registers
        // hold them. (With more, llvmpipe compiles for minutes.)
        let tm = |sn: usize| if s == 8 && lanes * sn >= 16 && d.max(dv) <= DOUBLED { 2 } else { 1 };
        let tile = |[sm, sn, tm, bc]: [usize; 4]| Tile { s, lanes, sm, sn, tm, bc, d, dv };
        // Few rows: those of one matrix, and all subgroups side by side along the keys.
        let flat = [[1, 4, 1, 64], [1, 4, 1, 32], [1, 2, 1, 32], [1, 1, 1, 32]];
        let tall = if d.max(dv) > NARROW {
            [[2, 2, tm(2), 32], [2, 1, 1, 32], [1, 1, 1, 32]]
        } else if s == 16 {
            [[4, 1, 1, 64], [4, 1, 1, 32], [2, 1, 1, 32]]
        } else {
            [[4, 1, tm(1), 32], [4, 1, 1, 32], [2, 1, 1, 32]]
        };
        let tiles = if packed_rows(setup, s) <= s { &flat[..] } else { &tall[..] };
        let mut lacking = String::new();
        for tile in tiles.iter().copied().map(tile) {
            match tile.needs(setup, needs).map(|needs| needs.lacking(setup.profile)) {
                Ok(None) => return Ok(tile),
                Ok(Some(reason)) | Err(reason) => lacking = reason,
            }
        }
        Err(lacking)
    }

    fn rows(self) -> usize {
        self.sm * self.tm * self.s
    }

    fn workgroup(self) -> usize {
        self.sm * self.sn * self.lanes
    }

    /// TK and TN: matrices along the columns of q and k, and those of a subgroup along the columns of v.
    fn matrices(self) -> [usize; 2] {
        [self.d.div_ceil(self.s), self.dv.div_ceil(self.s * self.sn)]
    }

    /// Quads of a row of k, and of v, in workgroup memory.
    fn quads(self) -> [usize; 2] {
        let [tk, tn] = self.matrices();
        [tk * self.s / 4, self.sn * tn * self.s / 4]
    }

    fn stage(self) -> usize {
        let [k, v] = self.quads();
        (self.bc.max(self.sm * self.s) * (k + 2)).max(self.bc * (v + 2))
    }

    /// Workgroup memory: `stage`, `sums` and `weights`, `alphas`, `moved` and `odd`.
    fn bytes(self) -> usize {
        8 * self.stage() + (16 + 8) * self.rows() * (self.bc / 4 + 2) + 4 * self.rows() + 4 * self.sm * self.sn + 4
    }

    /// Quads of a row of scores that an invocation has, if they can be shared out evenly.
    fn row_quads(self) -> Option<usize> {
        let (invocations, rows, quads) = (self.workgroup(), self.rows(), self.bc / 4);
        let parts = invocations / rows;
        let even = parts * rows == invocations && parts > 0 && self.lanes.is_multiple_of(parts);
        (even && quads.is_multiple_of(parts)).then(|| quads / parts)
    }

    /// How the rows and keys are shared out.
    fn tiling(self, setup: &Setup<'_>) -> Tiling {
        let whole = Tiling::of(self.rows(), setup.span(self.rows()));
        if partials::pay(setup, whole) { Tiling { splits: partials::wanted(setup, whole), ..whole } } else { whole }
    }

    /// Whether the tiles of a mask are looked at before, as far as buffers allow.
    fn mask(self, setup: &Setup<'_>) -> Option<BlockMask> {
        let mask = BlockMask::of(setup, [self.rows(), self.bc])?;
        let needs = setup.needs_of_outputs().ok()?;
        let needs = Needs { buffers: needs.buffers + 1, workspace: mask.bytes(), ..needs };
        (mask.pays(setup) && needs.lacking(setup.profile).is_none()).then_some(mask)
    }

    /// Rounds of loops for a tile of keys, the most, and once; see [`Profile::loop_rounds`](crate::kernel::Profile::loop_rounds).
    fn rounds(self) -> [usize; 2] {
        // Each matrix of O goes through memory when it shrinks, at the end too, and each row of q at the start.
        let copies = self.tm * self.matrices()[1] * ((self.s * self.s / 4).div_ceil(self.lanes) + 1);
        let q = self.tm * ((self.sm * self.s * self.quads()[0]).div_ceil(self.workgroup()) + 1);
        [3 + 8 + copies, copies + q + 64]
    }

    /// These needs, and what a workgroup takes.
    fn needs(self, setup: &Setup<'_>, needs: Needs) -> Result<Needs, String> {
        let Tile { s, lanes, .. } = self;
        if self.row_quads().is_none() || self.sn * s > self.bc {
            return Err(format!("subgroups of {lanes} can't share out rows of {s}×{s} matrices evenly"));
        }
        let tiling = self.tiling(setup);
        let [tile, once] = self.rounds();
        let keys = setup.sizes.keys.div_ceil(tiling.splits);
        let rounds = ((keys.div_ceil(self.bc) + 1) * tile + once) as u64 + setup.rounds_of_walk(keys);
        Ok(Needs {
            invocations: self.workgroup() as u64,
            workgroup_bytes: self.bytes() as u64,
            workspace: partials::bytes(setup, tiling),
            rounds: needs.rounds.max(rounds),
            ..needs
        })
    }

    fn source(self, setup: &Setup<'_>) -> Specialization {
        let Tile { s, lanes, sm, sn, tm, bc, .. } = self;
        let ([tk, tn], [quads_k, quads_v]) = (self.matrices(), self.quads());
        let mut source = setup
            .specialize("attention::coop")
            .value("S", s)
            .value("LANES", lanes)
            .value("SM", sm)
            .value("SN", sn)
            .value("GROUPS", sm * sn)
            .value("TM", tm)
            .value("BC", bc)
            .value("TB", bc / s)
            .value("TC", bc / s / sn)
            .value("TK", tk)
            .value("TN", tn)
            .value("NQ", self.row_quads().unwrap_or(0))
            .value("LK", (bc * quads_k).div_ceil(self.workgroup()))
            .value("LV", (bc * quads_v).div_ceil(self.workgroup()))
            .value("STAGE", self.stage())
            .trusted();
        for (matrix, element) in [("a", "f16"), ("b", "f16"), ("c", "f32")] {
            let role = matrix.to_uppercase();
            source = source.ty(&format!("mat_{matrix}"), &format!("coop_mat{s}x{s}<{element}, {role}>"));
        }
        let operands = [Float::Q, Float::K, Float::V];
        let source = operands.into_iter().fold(source, |source, operand| setup.reads_halves(source, operand));
        setup.walks(setup.reads_one(source, Float::Bias), [Lie::Halves; 3], setup.sizes.dv)
    }
}

/// Query rows that share keys: those of a head, or of all heads of a group if one's are few.
fn packed_rows(setup: &Setup<'_>, rows: usize) -> usize {
    setup.sizes.rows * setup.span(rows)
}

/// Whether there are rows enough for the matrices of the device: with fewer, each multiplies mostly zeros.
fn fills(setup: &Setup<'_>) -> bool {
    let sizes = [16, 8].into_iter().filter(|&size| setup.profile.cooperative_lanes(size).is_ok());
    sizes.map(|size| size as usize).next().is_some_and(|size| packed_rows(setup, size) >= size)
}

/// Tiles of matrices of `s` by `s`.
#[derive(Debug)]
pub(super) struct Coop {
    name: &'static str,
    s: u32,
}

pub(super) const OF_16: Coop = Coop { name: "coop_16x16", s: 16 };
pub(super) const OF_8: Coop = Coop { name: "coop_8x8", s: 8 };

impl Variant<Setup<'_>> for Coop {
    fn name(&self) -> &'static str {
        self.name
    }

    /// A CPU has no such units, and fewer rows than those of a matrix leave them idle.
    fn rank(&self, setup: &Setup<'_>) -> u32 {
        (match setup.profile.kind {
            AdapterKind::Gpu if fills(setup) => Rank::MadeForIt,
            AdapterKind::Gpu | AdapterKind::Cpu => Rank::MadeForOthers,
        }) as u32
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "f16 on the GPU's units for small matrices".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        Tile::of(setup, self.s)?.needs(setup, setup.needs_of_outputs()?)
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let tile = Tile::of(setup, self.s).map_err(|reason| refused(self.name, &reason))?;
        let tiling = tile.tiling(setup);
        if tiling.splits > 1 {
            return partials::whole(setup, "coop", tile.source(setup), tiling);
        }
        let mut kernel = sequences::begin(setup)?;
        let mask = tile.mask(setup);
        // A tile of the mask has the rows of one head.
        let tiling = if mask.is_some() { Tiling { span: 1, ..tiling } } else { tiling };
        let mask_tiles = mask.map(|mask| mask.place(setup, &mut kernel)).transpose()?;
        let out = setup.out(&mut kernel);
        let source = setup.writes_four(tile.source(setup), out);
        setup.whole(&mut kernel, "coop", source, tiling, mask_tiles, out)?;
        Ok(kernel)
    }
}
