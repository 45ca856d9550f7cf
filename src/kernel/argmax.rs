//! The place of the largest element along an axis. Twins: `shaders/argmax*.wgsl`, `tests/argmax.rs`.

use super::{
    AdapterKind, Binding, Candidate, Kernel, Launch, Operand, Operands, Problem, Profile, Specialization,
    axes::Axis,
    rows::{Deal, Pack, Rows, SPLIT, most_rounds_in_blocks, rounds, rounds_in_blocks},
    strided::touched,
};
use crate::{DType, Error, Layout, Result};

/// The index of the largest element along an axis of an f32, i32 or u32 tensor that has elements there.
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

/// An [`ArgmaxProblem`] that holds together, with its axes merged.
struct Plan {
    rows: Rows,
    pack: Option<Pack>,
    /// Axes of the results; strides in elems.
    kept: Vec<Axis<1>>,
    /// Along the axis, in elems.
    step: isize,
    /// The first elem.
    offset: usize,
}

impl ArgmaxProblem {
    const FAMILY: &str = "argmax";

    /// Vectors across results are an option: a second stage can't read them.
    fn plan(&self, across: bool) -> Result<Plan> {
        let Layout { shape, strides, offset } = &self.x;
        if !matches!(self.dtype, DType::F32 | DType::I32 | DType::U32) {
            return Err(Error::dtype(Self::FAMILY, "x", self.dtype, "f32, i32 or u32 (cast it first)"));
        }
        let axis = shape.axis(Self::FAMILY, self.axis as isize)?;
        let elements = shape[axis];
        if elements == 0 {
            let message = format!("axis {axis} of {shape} is empty: there is no largest element");
            return Err(Error::op(Self::FAMILY, message));
        }
        shape.checked_elements(Self::FAMILY)?;

        let others = (0..shape.rank()).filter(|&other| other != axis);
        let (sizes, others): (Vec<usize>, Vec<isize>) = others.map(|other| (shape[other], strides[other])).unzip();
        let (mut kept, mut step) = (Axis::merged(&sizes, [&others]), strides[axis]);

        const PACK: usize = Pack::ELEMENTS;
        let multiple = |stride: isize| stride % PACK as isize == 0;
        let multiples = |axes: &[Axis<1>]| axes.iter().all(|axis| multiple(axis.strides[0]));
        let aligned = offset.is_multiple_of(PACK);
        let pack = match kept.split_last() {
            _ if step == 1 && elements.is_multiple_of(PACK) && aligned && multiples(&kept) => Some(Pack::Along),
            Some((last, outer)) if across && last.strides == [1] && last.size.is_multiple_of(PACK) => {
                (aligned && multiple(step) && multiples(outer)).then_some(Pack::Across)
            }
            _ => None,
        };
        let side_by_side = step.abs() != 1 && kept.last().is_some_and(|axis| axis.strides[0].abs() == 1);
        if pack.is_some() {
            let in_elems = |stride: isize| if multiple(stride) { stride / PACK as isize } else { stride };
            kept.iter_mut().for_each(|axis| axis.strides = axis.strides.map(in_elems));
            step = in_elems(step);
        }
        if pack == Some(Pack::Across)
            && let Some(last) = kept.last_mut()
        {
            last.size /= PACK;
        }
        let elems = if pack == Some(Pack::Along) { elements / PACK } else { elements };
        let rows = Rows {
            family: Self::FAMILY,
            rows: kept.iter().map(|axis| axis.size).product(),
            elems,
            pack: if pack.is_some() { PACK } else { 1 },
            registers: 1,
            accesses: 1,
            passes: 1,
            plain_rounds: rounds_in_blocks(elems),
            side_by_side,
        };
        Ok(Plan { rows, pack, kept, step, offset: if pack.is_some() { offset / PACK } else { *offset } })
    }

    /// Into how many shares the split variant deals a result, and how its first stage is dealt; or why the device can't
    /// run it.
    fn split(plan: &Plan, profile: &Profile) -> Result<(usize, Deal), String> {
        let Rows { rows: results, elems, .. } = plan.rows;
        let shares = Rows::shares(results, elems, profile).max(match profile.loop_rounds() {
            Some(most) => elems.div_ceil(4 * most as usize),
            None => 1,
        });
        let share = elems.div_ceil(shares);
        let rows = Rows {
            rows: results * shares,
            elems: share,
            plain_rounds: most_rounds_in_blocks(share),
            ..plan.rows.clone()
        };
        // The second stage goes through all shares.
        rounds(shares + 1, profile)?;
        let deal = match profile.kind {
            AdapterKind::Cpu => rows.plain(profile)?,
            AdapterKind::Gpu => rows.workgroup(profile)?,
        };
        // The last share may be short.
        Ok((shares, deal.without_chunks()))
    }

    fn launch(&self, plan: &Plan, shares: usize, deal: Deal, label: String, profile: &Profile) -> Result<Launch> {
        let shader = match deal {
            Deal::Plain { .. } => "argmax::plain",
            Deal::Workgroup { .. } => "argmax::workgroup",
            Deal::Subgroup { .. } => "argmax::subgroup",
        };
        let mut shader = deal
            .slots(Specialization::new(shader))
            .value("KEPT_AXES", plan.kept.len() - 1)
            .value("LAST", self.last)
            .ty("scalar", self.dtype.name());
        if let Some(pack) = plan.pack {
            shader = shader.ty("elem", "vec4<scalar>").ty("elem_place", "vec4<u32>");
            shader = match pack {
                Pack::Along => shader.function("fold", FOLD),
                Pack::Across => {
                    shader.ty("stat", "vec4<scalar>").ty("stat_place", "vec4<u32>").ty("result", "vec4<i32>")
                }
            };
        }
        let Rows { rows: results, elems, .. } = plan.rows;
        let stats = results * shares;
        let mut params = vec![
            stats as u32,
            shares as u32,
            elems as u32,
            elems.div_ceil(shares) as u32,
            deal.turns() as u32,
            plan.offset as u32,
            plan.step as u32,
        ];
        let (outermost, others) = Axis::words(&plan.kept);
        params.extend(outermost.into_iter().chain(others));
        let to = if shares > 1 { Operand::Scratch(0) } else { Operand::Output(0) };
        let written = stats * if plan.pack == Some(Pack::Across) { Pack::ELEMENTS } else { 1 };
        Ok(Launch {
            label,
            source: shader.source()?,
            bindings: vec![Binding::read(Operand::Input(0)), Binding::write(to)],
            params,
            grid: deal.grid(Self::FAMILY, stats, profile)?,
            flops: self.x.shape.iter().product::<usize>() as u64,
            exponentials: 0,
            bytes: 4 * (touched(&self.x) + written as u64),
        })
    }

    /// The second stage of the split variant.
    fn join(&self, plan: &Plan, shares: usize, profile: &Profile) -> Result<Launch> {
        let results = plan.rows.rows;
        let deal = Deal::Plain { wg: 64 };
        let shader = deal
            .slots(Specialization::new("argmax::join"))
            .value("KEPT_AXES", plan.kept.len() - 1)
            .value("LAST", self.last)
            .ty("scalar", self.dtype.name());
        // In elements, not vectors.
        let unit = if plan.pack.is_some() { Pack::ELEMENTS } else { 1 };
        let kept: Vec<Axis<1>> = plan
            .kept
            .iter()
            .map(|&Axis { size, strides: [stride] }| Axis { size, strides: [stride * unit as isize] })
            .collect();
        let step = self.x.strides[self.axis];
        let mut params = vec![results as u32, shares as u32, (plan.offset * unit) as u32, step as u32];
        let (outermost, others) = Axis::words(&kept);
        params.extend(outermost.into_iter().chain(others));
        Ok(Launch {
            label: format!("{SPLIT}: join"),
            source: shader.source()?,
            bindings: vec![
                Binding::read(Operand::Input(0)),
                Binding::read(Operand::Scratch(0)),
                Binding::write(Operand::Output(0)),
            ],
            params,
            grid: deal.grid(Self::FAMILY, results, profile)?,
            flops: (results * shares) as u64,
            exponentials: 0,
            bytes: 4 * (2 * results * shares + results) as u64,
        })
    }
}

/// The slot `fold` for vectors along the axis.
const FOLD: &str = "fn fold(v: elem, place: elem_place) -> Best { return better(better(Best(v.x, 4u * place.x), \
                    Best(v.y, 4u * place.y + 1u)), better(Best(v.z, 4u * place.z + 2u), Best(v.w, 4u * place.w + 3u))); }";

impl Problem for ArgmaxProblem {
    fn family(&self) -> &'static str {
        Self::FAMILY
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        match (self.plan(true), self.plan(false)) {
            (Ok(plan), Ok(scalar)) => {
                let split = Self::split(&scalar, profile).map(|(shares, _)| shares);
                plan.rows.candidates(split, profile)
            }
            (Err(error), _) | (_, Err(error)) => Rows::refused(&error),
        }
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        if variant != SPLIT {
            let plan = self.plan(true)?;
            let deal = plan.rows.deal(variant, profile)?;
            let launch = self.launch(&plan, 1, deal, variant.into(), profile)?;
            return Ok(Kernel { launches: vec![launch], scratch: Vec::new() });
        }
        let plan = self.plan(false)?;
        let refused = |reason| Error::NoVariant { family: Self::FAMILY, reasons: vec![format!("{SPLIT}: {reason}")] };
        let (shares, deal) = Self::split(&plan, profile).map_err(refused)?;
        Ok(Kernel {
            launches: vec![
                self.launch(&plan, shares, deal, format!("{SPLIT}: shares"), profile)?,
                self.join(&plan, shares, profile)?,
            ],
            scratch: vec![4 * (plan.rows.rows * shares) as u64],
        })
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
