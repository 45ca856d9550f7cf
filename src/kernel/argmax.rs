//! The place of the largest element along an axis. Twins: `shaders/argmax/`, `src/reference/reduce.rs`,
//! `tests/device/argmax.rs`.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Operands, Parameters, Problem, Profile, Specialization,
    access::{axes::Axis, strided::touched},
    rows::{
        self, Deal, MERGE, PACKED_TOTAL, Pack, RowSetup, Rows, SHARES, most_rounds_in_blocks, rounds, rounds_in_blocks,
    },
    variant::{self, Needs},
};
use crate::{DType, Error, Layout, Result};

/// The index of the largest element along an axis of an f32, i32 or u32 tensor that has elements there. A NaN is larger than all
/// else.
///
/// One input, one output: i32, dense, in the shape of the other axes. `x` may have any strides.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgmaxProblem {
    /// The element type of the input.
    pub dtype: DType,
    /// Where the input lies.
    pub x: Layout,
    /// The axis.
    pub axis: usize,
    /// Of equal elements the last one is taken, not the first.
    pub last: bool,
}

impl ArgmaxProblem {
    /// The first of the largest elements of `x` along `axis`.
    pub fn new(dtype: DType, x: Layout, axis: usize) -> Self {
        ArgmaxProblem { dtype, x, axis, last: false }
    }
}

/// A checked [`ArgmaxProblem`] on a device.
struct Setup<'a> {
    problem: &'a ArgmaxProblem,
    profile: &'a Profile,
    merged: Merged,
    /// Without vectors across results, which a second stage can't read.
    for_shares: Merged,
}

/// The axes of an argmax.
struct Merged {
    rows: Rows,
    pack: Option<Pack>,
    /// Axes of the results; strides in elems.
    kept: Vec<Axis<1>>,
    /// The axis along which the largest is sought, in elems.
    axis: Axis<1>,
    /// The first elem.
    offset: usize,
}

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = ArgmaxProblem::FAMILY;

    fn profile(&self) -> &Profile {
        self.profile
    }
}

impl ArgmaxProblem {
    const FAMILY: &str = "argmax";

    fn on<'a>(&'a self, profile: &'a Profile) -> Result<Setup<'a>> {
        let shape = &self.x.shape;
        if !matches!(self.dtype, DType::F32 | DType::I32 | DType::U32) {
            return Err(Error::dtype(Self::FAMILY, "x", self.dtype, "f32, i32 or u32 (cast it first)"));
        }
        let axis = shape.axis(Self::FAMILY, self.axis as isize)?;
        if shape[axis] == 0 {
            let message = format!("axis {axis} of {shape} is empty: there is no largest element");
            return Err(Error::op(Self::FAMILY, message));
        }
        shape.checked_elements(Self::FAMILY)?;
        let merged = |packs: &[Pack]| self.merged(axis, packs);
        Ok(Setup {
            problem: self,
            profile,
            merged: merged(&[Pack::Along, Pack::Across]),
            for_shares: merged(&[Pack::Along]),
        })
    }

    /// How often elements are gone through, at the most: floats once more if one of them may be a NaN.
    fn looks(&self) -> usize {
        if self.dtype == DType::F32 { 2 } else { 1 }
    }

    /// Its axes, in vectors of one of these kinds if they fit.
    fn merged(&self, axis: usize, packs: &[Pack]) -> Merged {
        let Layout { shape, strides, offset } = &self.x;
        let others = (0..shape.rank()).filter(|&other| other != axis);
        let (sizes, others): (Vec<usize>, Vec<isize>) = others.map(|other| (shape[other], strides[other])).unzip();
        let mut kept = Axis::merged(&sizes, [&others]);
        let mut along = [Axis { size: shape[axis], strides: [strides[axis]] }];
        let side_by_side =
            strides[axis].abs() != 1 && kept.last().is_some_and(|axis: &Axis<1>| axis.strides[0].abs() == 1);
        let pack = Pack::of(&kept, &along, *offset).filter(|pack| packs.contains(pack));
        if let Some(pack) = pack {
            pack.count(Pack::ELEMENTS, &mut kept, &mut along);
        }
        let [axis] = along;
        let width = if pack.is_some() { Pack::ELEMENTS } else { 1 };
        let rows = Rows {
            rows: kept.iter().map(|axis| axis.size).product(),
            elems: axis.size,
            pack: width,
            registers: 1,
            accesses: 1,
            passes: self.looks(),
            plain_rounds: self.looks() * rounds_in_blocks(axis.size),
            side_by_side,
        };
        Merged { rows, pack, kept, axis, offset: offset / width }
    }
}

impl Merged {
    fn parameters(&self, stats: usize, shares: usize) -> Parameters {
        Parameters::new()
            .set("stats", stats)
            .set("shares", shares)
            .set("elems", self.rows.elems)
            .set("elems_of_share", self.rows.elems.div_ceil(shares))
            .set("x", self.offset)
            .set("x_axis", self.axis.strides[0])
            .and(Axis::parameters(&self.kept, ["x"], "kept", "r"))
    }
}

impl RowSetup for Setup<'_> {
    fn rows(&self) -> &Rows {
        &self.merged.rows
    }

    fn whole(&self, deal: Deal) -> Result<Kernel> {
        let launch = self.launch(&self.merged, 1, deal, deal.name())?;
        Ok(Kernel { launches: vec![launch], workspace: Vec::new() })
    }

    fn shares(&self) -> (usize, Needs) {
        let (shares, rows) = self.dealt_shares();
        let workspace = self.workspace(shares);
        // The second stage goes through all shares.
        let needs = Deal::of_shares(&rows, self.profile).needs(&rows).and(rounds(shares + 1));
        (shares, Needs { workspace, ..needs })
    }

    fn split(&self) -> Result<Kernel> {
        let (shares, rows) = self.dealt_shares();
        // The last share may be short.
        let deal = Deal::of_shares(&rows, self.profile).without_chunks();
        Ok(Kernel {
            launches: vec![self.launch(&self.for_shares, shares, deal, SHARES)?, self.merge(shares)?],
            workspace: vec![self.workspace(shares)],
        })
    }
}

impl Setup<'_> {
    /// Into how many shares the split variant deals a result, and they as rows.
    fn dealt_shares(&self) -> (usize, Rows) {
        let rows = &self.for_shares.rows;
        let least = self.profile.loop_rounds().map_or(1, |most| rows.elems.div_ceil(3 * most as usize));
        let shares = rows.shares(self.profile).max(least);
        let share = rows.elems.div_ceil(shares);
        let plain_rounds = self.problem.looks() * most_rounds_in_blocks(share);
        (shares, Rows { rows: rows.rows * shares, elems: share, plain_rounds, ..rows.clone() })
    }

    /// Bytes of the places that the shares find.
    fn workspace(&self, shares: usize) -> u64 {
        4 * (self.for_shares.rows.rows * shares) as u64
    }

    fn launch(&self, merged: &Merged, shares: usize, deal: Deal, label: &str) -> Result<Launch> {
        let shader = match deal {
            Deal::Plain(_) => "argmax::plain",
            Deal::Workgroup(_) => "argmax::workgroup",
            Deal::Subgroup(_) => "argmax::subgroup",
        };
        let floats = self.problem.dtype == DType::F32;
        let mut shader = self.slots(deal.slots(Specialization::new(shader).on(self.profile.backend)), merged);
        shader = shader.region("FLOATS", floats);
        if let Some(pack) = merged.pack {
            shader = shader.ty("elem", "vec4<scalar>").ty("elem_place", "vec4<u32>").function("total", PACKED_TOTAL);
            shader = match pack {
                Pack::Along => shader.function("fold", FOLD),
                Pack::Across => {
                    shader.ty("stat", "vec4<scalar>").ty("stat_place", "vec4<u32>").ty("result", "vec4<i32>")
                }
            };
        }
        let stats = merged.rows.rows * shares;
        let parameters = merged.parameters(stats, shares).and(deal.parameters());
        let source = shader.source()?;
        let to = if shares > 1 { Operand::Workspace(0) } else { Operand::Output(0) };
        let written = stats * if merged.pack == Some(Pack::Across) { Pack::ELEMENTS } else { 1 };
        Ok(Launch {
            label: label.into(),
            params: source.words(&parameters)?,
            source,
            bindings: vec![Binding::read(Operand::Input(0)), Binding::write(to)],
            grid: deal.grid(ArgmaxProblem::FAMILY, stats, self.profile)?,
            flops: self.problem.x.shape.iter().product::<usize>() as u64,
            exponentials: 0,
            bytes: 4 * (touched(&self.problem.x) + written as u64),
        })
    }

    /// The second stage of the split variant: in elements, not vectors.
    fn merge(&self, shares: usize) -> Result<Launch> {
        let merged = self.problem.merged(self.problem.axis, &[]);
        let results = merged.rows.rows;
        let deal = Deal::ANY;
        let source = self.slots(deal.slots(Specialization::new("argmax::merge")), &merged).source()?;
        Ok(Launch {
            label: MERGE.into(),
            params: source.words(&merged.parameters(results, shares))?,
            source,
            bindings: vec![
                Binding::read(Operand::Input(0)),
                Binding::write(Operand::Output(0)),
                Binding::read(Operand::Workspace(0)),
            ],
            grid: deal.grid(ArgmaxProblem::FAMILY, results, self.profile)?,
            flops: (results * shares) as u64,
            exponentials: 0,
            bytes: 4 * (2 * results * shares + results) as u64,
        })
    }

    /// Fills the slots that all shaders have.
    fn slots(&self, shader: Specialization, merged: &Merged) -> Specialization {
        let shader = shader
            .value("KEPT_AXES", merged.kept.len() - 1)
            .value("LAST", self.problem.last)
            .ty("scalar", self.problem.dtype.name());
        // Of f32 as it stands.
        match self.problem.dtype {
            DType::I32 => shader.function("rank_of", RANK_OF_I32),
            DType::U32 => shader.function("rank_of", RANK_OF_U32),
            DType::F32 | DType::F16 | DType::BF16 | DType::Bool => shader,
        }
    }
}

/// The slot `rank_of` for integers.
const RANK_OF_I32: &str =
    "fn rank_of(x: stat) -> stat_place { return bitcast<stat_place>(x) ^ stat_place(0x80000000u); }";
const RANK_OF_U32: &str = "fn rank_of(x: stat) -> stat_place { return x; }";

/// The slot `fold` for vectors along the axis.
const FOLD: &str = "fn fold(v: elem, place: elem_place) -> Best { return better(better(Best(rank_of(v.x), 4u * place.x), \
                    Best(rank_of(v.y), 4u * place.y + 1u)), better(Best(rank_of(v.z), 4u * place.z + 2u), \
                    Best(rank_of(v.w), 4u * place.w + 3u))); }";

impl Problem for ArgmaxProblem {
    fn family(&self) -> &'static str {
        Self::FAMILY
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        rows::candidates(self.on(profile))
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        rows::kernel(self.on(profile), variant)
    }

    fn summary(&self) -> String {
        let last = if self.last { " last" } else { "" };
        format!("{} {} axis={}{last}", self.dtype, self.x.shape, self.axis)
    }
}

impl ArgmaxProblem {
    /// Of [`Op::Argmax`](crate::graph::Op::Argmax).
    pub(super) fn of(axis: usize, last: bool, operands: &mut Operands) -> Result<Self> {
        operands.widen_narrow();
        Ok(ArgmaxProblem { dtype: operands.dtype(0), x: operands.layout(0), axis, last })
    }
}
