//! Tiles on cooperative matrices: f16 operands, f32 sums and softmax.

use super::{
    block_mask::BlockMask,
    parts::{self, Parts},
    setup::{Setup, Tiling},
};
use crate::{
    DType, Error, Result,
    kernel::{Binding, Kernel, Launch, Specialization},
};

/// The value slots of `coop.wesl`, and what follows from them; see there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// S.
    size: usize,
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

impl Shape {
    /// The first shape for the problem that fits the device; or why none does.
    fn of(setup: &Setup<'_>, size: u32) -> Result<Self, String> {
        let dtypes = setup.problem.dtypes;
        let stored = [dtypes.q, dtypes.k, dtypes.v, dtypes.out];
        if stored != [DType::F16; 4] {
            let [q, k, v, out] = stored;
            return Err(format!(
                "takes q, k, v and out of f16, and these are {q}, {k}, {v} and {out}; cast them in the graph where their \
                 precision is enough"
            ));
        }
        let lanes = setup.profile.cooperative_lanes(size)? as usize;
        let size = size as usize;
        let (d, dv) = (setup.sizes.d, setup.sizes.dv);
        if d == 0 || dv == 0 {
            return Err("a head without columns leaves nothing to multiply".into());
        }
        // A subgroup takes two matrices of rows where each of its rows still has an invocation, the 8 by 8, and where registers
        // hold them. (With more, llvmpipe compiles for minutes.)
        let tm = |sn: usize| if size == 8 && lanes * sn >= 16 && d.max(dv) <= DOUBLED { 2 } else { 1 };
        let shape = |[sm, sn, tm, bc]: [usize; 4]| Shape { size, lanes, sm, sn, tm, bc, d, dv };
        // Few rows: those of one matrix, and all subgroups side by side along the keys.
        let flat = [[1, 4, 1, 64], [1, 4, 1, 32], [1, 2, 1, 32], [1, 1, 1, 32]];
        let tall = if d.max(dv) > NARROW {
            [[2, 2, tm(2), 32], [2, 1, 1, 32], [1, 1, 1, 32]]
        } else if size == 16 {
            [[4, 1, 1, 64], [4, 1, 1, 32], [2, 1, 1, 32]]
        } else {
            [[4, 1, tm(1), 32], [4, 1, 1, 32], [2, 1, 1, 32]]
        };
        let mut refusal = String::new();
        for shape in (if packed_rows(setup, size) <= size { &flat[..] } else { &tall[..] }).iter().copied().map(shape) {
            match shape.refusal(setup) {
                None => return Ok(shape),
                Some(reason) => refusal = reason,
            }
        }
        Err(refusal)
    }

    fn rows(self) -> usize {
        self.sm * self.tm * self.size
    }

    fn workgroup(self) -> usize {
        self.sm * self.sn * self.lanes
    }

    /// TK and TN: matrices along the columns of q and k, and those of a subgroup along the columns of v.
    fn matrices(self) -> [usize; 2] {
        [self.d.div_ceil(self.size), self.dv.div_ceil(self.size * self.sn)]
    }

    /// Quads of a row of k, and of v, in workgroup memory.
    fn quads(self) -> [usize; 2] {
        let [tk, tn] = self.matrices();
        [tk * self.size / 4, self.sn * tn * self.size / 4]
    }

    fn stage(self) -> usize {
        let [k, v] = self.quads();
        (self.bc.max(self.sm * self.size) * (k + 2)).max(self.bc * (v + 2))
    }

    /// Workgroup memory: `stage`, `sums` and `weights`, `keep` and `moved`.
    fn bytes(self) -> usize {
        8 * self.stage() + (16 + 8) * self.rows() * (self.bc / 4 + 2) + 4 * self.rows() + 4 * self.sm * self.sn
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
        if parts::pay(setup, whole) { Tiling { splits: parts::wanted(setup, whole), ..whole } } else { whole }
    }

    /// Whether the tiles of a mask are looked at before, as far as buffers allow.
    fn mask(self, setup: &Setup<'_>) -> Option<BlockMask> {
        let mask = BlockMask::of(setup, [self.rows(), self.bc])?;
        let one_more = 2 + usize::from(setup.problem.lse);
        (mask.pays(setup) && mask.refusal(setup).is_none() && setup.refusal(one_more).is_none()).then_some(mask)
    }

    /// Rounds of loops for a tile of keys, the most, and once; see [`Profile::loop_rounds`](crate::kernel::Profile::loop_rounds).
    fn rounds(self) -> [usize; 2] {
        // Each matrix of O goes through memory when it shrinks, at the end too, and each row of q at the start.
        let copies = self.tm * self.matrices()[1] * ((self.size * self.size / 4).div_ceil(self.lanes) + 1);
        let q = self.tm * ((self.sm * self.size * self.quads()[0]).div_ceil(self.workgroup()) + 1);
        [3 + 8 + copies, copies + q + 64]
    }

    fn refusal(self, setup: &Setup<'_>) -> Option<String> {
        let Shape { size, lanes, .. } = self;
        if self.row_quads().is_none() || self.sn * size > self.bc {
            return Some(format!("subgroups of {lanes} can't share out rows of {size}×{size} matrices evenly"));
        }
        let limits = &setup.profile.limits;
        if self.bytes() > limits.workgroup_bytes as usize {
            let (needed, limit) = (self.bytes(), limits.workgroup_bytes);
            return Some(format!("needs {needed} bytes of workgroup memory, the limit is {limit}"));
        }
        let most = limits.workgroup_invocations.min(limits.workgroup_size_x) as usize;
        if self.workgroup() > most {
            return Some(format!("needs {} invocations a workgroup, the limit is {most}", self.workgroup()));
        }
        let tiling = self.tiling(setup);
        if tiling.splits > 1
            && let Some(reason) = Parts::new(setup, tiling).refusal(setup)
        {
            return Some(reason);
        }
        let [tile, once] = self.rounds();
        let keys = setup.sizes.keys.div_ceil(tiling.splits);
        let rounds = (keys.div_ceil(self.bc) + 1) * tile + once;
        let most = setup.profile.loop_rounds().unwrap_or(u64::MAX);
        (rounds as u64 > most)
            .then(|| format!("{keys} keys of a workgroup take {rounds} rounds of loops, the driver stops at {most}"))
    }

    fn source(self, setup: &Setup<'_>) -> Specialization {
        let Shape { size, lanes, sm, sn, tm, bc, .. } = self;
        let ([tk, tn], [quads_k, quads_v]) = (self.matrices(), self.quads());
        let mut source = setup
            .specialize("attention::coop")
            .value("S", size)
            .value("LANES", lanes)
            .value("SM", sm)
            .value("SN", sn)
            .value("GROUPS", sm * sn)
            .value("TM", tm)
            .value("BC", bc)
            .value("TB", bc / size)
            .value("TC", bc / size / sn)
            .value("TK", tk)
            .value("TN", tn)
            .value("NQ", self.row_quads().unwrap_or(0))
            .value("LK", (bc * quads_k).div_ceil(self.workgroup()))
            .value("LV", (bc * quads_v).div_ceil(self.workgroup()))
            .value("STAGE", self.stage())
            .trusted();
        for (matrix, element) in [("a", "f16"), ("b", "f16"), ("c", "f32")] {
            let role = matrix.to_uppercase();
            source = source.ty(&format!("mat_{matrix}"), &format!("coop_mat{size}x{size}<{element}, {role}>"));
        }
        let problem = setup.problem;
        let source = [("q", &problem.q), ("k", &problem.k), ("v", &problem.v)]
            .into_iter()
            .fold(source, |source, (name, layout)| setup.reads_halves(source, name, layout));
        setup.reads_one(source, "bias")
    }
}

/// Query rows that share keys: those of a head, or of all heads of a group if one's are few.
fn packed_rows(setup: &Setup<'_>, rows: usize) -> usize {
    setup.sizes.rows * setup.span(rows)
}

/// Whether there are rows enough for the matrices of the device: with fewer, each multiplies mostly zeros.
pub(super) fn fills(setup: &Setup<'_>) -> bool {
    let sizes = [16, 8].into_iter().filter(|&size| setup.profile.cooperative_lanes(size).is_ok());
    sizes.map(|size| size as usize).next().is_some_and(|size| packed_rows(setup, size) >= size)
}

pub(super) fn refusal(setup: &Setup<'_>, size: u32) -> Option<String> {
    Shape::of(setup, size).err()
}

pub(super) fn kernel(setup: &Setup<'_>, size: u32) -> Result<Kernel> {
    let refused =
        |reason| Error::NoVariant { family: "attention", reasons: vec![format!("coop_{size}x{size}: {reason}")] };
    let shape = Shape::of(setup, size).map_err(refused)?;
    let tiling = shape.tiling(setup);
    let mut kernel = setup.begin()?;
    if tiling.splits > 1 {
        let parts = Parts::new(setup, tiling);
        let to = parts.place(&mut kernel);
        kernel.launches.push(Launch {
            label: format!("coop: {} parts", tiling.splits),
            source: shape.source(setup).region("SPLIT", true).source()?,
            bindings: setup.inputs().into_iter().chain([Binding::write(to)]).collect(),
            params: setup.params(tiling),
            grid: setup.grid(tiling)?,
            flops: setup.flops(),
            exponentials: setup.exponentials(),
            bytes: setup.bytes() + parts.bytes,
        });
        parts.merge(setup, &mut kernel, to)?;
        return Ok(kernel);
    }
    let mask = shape.mask(setup);
    // A tile of the mask has the rows of one head.
    let tiling = if mask.is_some() { Tiling { span: 1, ..tiling } } else { tiling };
    let mask_tiles = mask.as_ref().map(|mask| mask.place(setup, &mut kernel)).transpose()?;
    let out = setup.out(&mut kernel);
    kernel.launches.push(Launch {
        label: "coop".into(),
        source: setup
            .writes_four(shape.source(setup), out)
            .region("LSE", setup.problem.lse)
            .region("MASK_TILES", mask_tiles.is_some())
            .source()?,
        bindings: setup.inputs_and(mask_tiles).into_iter().chain(setup.outputs(out)).collect(),
        params: setup.params_and(tiling, mask.as_ref()),
        grid: setup.grid(tiling)?,
        flops: setup.flops(),
        exponentials: setup.exponentials(),
        bytes: setup.bytes(),
    });
    setup.finish(&mut kernel, out)?;
    Ok(kernel)
}
