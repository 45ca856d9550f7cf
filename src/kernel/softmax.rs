//! Softmax and log-softmax along an axis. Twins: `shaders/softmax*.wgsl`, `tests/softmax.rs`.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Operands, Problem, Profile, Specialization,
    axes::Axis,
    narrow::{Elems, Store, check_floats, narrow_ones},
    rows::{Deal, PACKED_LARGEST, PACKED_TOTAL, Pack, Rows, SPLIT, Split, rounds_in_blocks},
    strided::touched,
};
use crate::{DType, Error, Layout, Result};

/// Softmax or log-softmax along one axis, from f32, f16 or bf16 to one of them.
///
/// ```text
/// y_j = exp(s_j − m)/l        log: y_j = (s_j − m) − log l        s = scale·x, m = max s, l = Σ exp(s − m)
/// ```
///
/// An element of −inf (tested by its bits, before the scale) gives exactly 0, or −inf for the log; so does each element
/// of a line that has no other. One input, one output: dense, in the shape of `x`. All is computed in f32, and rounded
/// once, where it is written.
///
/// `x` may have any strides. Fastest are lines whose elements lie side by side, aligned to four, then lines that
/// themselves lie side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxProblem {
    /// Whether the logarithm of the softmax is computed.
    pub log: bool,
    /// The axis.
    pub axis: usize,
    /// A finite factor on `x`, usually 1.
    pub scale: f32,
    /// How `x` and `y` lie in memory.
    pub dtypes: SoftmaxDTypes,
    /// Where `x` lies.
    pub x: Layout,
    /// Whether `y` shares the buffer of `x`.
    pub in_place: bool,
}

/// The dtypes of a softmax: f32, f16 or bf16 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SoftmaxDTypes {
    /// Of x.
    pub x: DType,
    /// Of y.
    pub y: DType,
}

impl Default for SoftmaxDTypes {
    /// f32 for both.
    fn default() -> Self {
        SoftmaxDTypes { x: DType::F32, y: DType::F32 }
    }
}

impl SoftmaxDTypes {
    /// With names.
    fn named(self) -> [(&'static str, DType); 2] {
        [("x", self.x), ("y", self.y)]
    }
}

impl SoftmaxProblem {
    /// The softmax of `x` along `axis` in f32; set the fields for more.
    pub fn new(axis: usize, x: Layout) -> Self {
        SoftmaxProblem { log: false, axis, scale: 1.0, dtypes: SoftmaxDTypes::default(), x, in_place: false }
    }
}

/// A [`SoftmaxProblem`] that holds together, with its axes merged.
struct Plan {
    rows: Rows,
    pack: Option<Pack>,
    /// Of lines; strides in x and y, in elems.
    lines: Vec<Axis<2>>,
    /// Along a line, in x and y.
    steps: [isize; 2],
    /// The first elem of x.
    offset: usize,
}

impl SoftmaxProblem {
    const FAMILY: &str = "softmax";

    fn plan(&self) -> Result<Plan> {
        let plan = self.merged()?;
        if self.in_place && !self.fits_in_place(&plan) {
            let message = "y can't share the buffer of x, which is not dense, or stored in another width than y";
            return Err(Error::op(Self::FAMILY, message));
        }
        Ok(plan)
    }

    /// Whether each elem of x lies where the elem of y does.
    fn fits_in_place(&self, plan: &Plan) -> bool {
        let y = Elems { dtype: self.dtypes.y, packed: plan.pack.is_some() };
        self.x.is_contiguous() && self.dtypes.x.bytes() == y.dtype.bytes() && y.own_words()
    }

    /// The plan, but for what is computed in place.
    fn merged(&self) -> Result<Plan> {
        let Layout { shape, strides, offset } = &self.x;
        let axis = shape.axis(Self::FAMILY, self.axis as isize)?;
        if !self.scale.is_finite() {
            return Err(Error::op(Self::FAMILY, format!("the scale is {}, expected a finite number", self.scale)));
        }
        check_floats(Self::FAMILY, self.dtypes.named())?;
        shape.checked_elements(Self::FAMILY)?;

        let dense = shape.strides();
        let but_axis = |all: &[isize]| -> Vec<isize> {
            all.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, &stride)| stride).collect()
        };
        let others: Vec<usize> = (0..shape.rank()).filter(|&i| i != axis).map(|i| shape[i]).collect();
        let mut lines = Axis::merged(&others, [&but_axis(strides), &but_axis(&dense)]);
        let (width, mut steps) = (shape[axis], [strides[axis], dense[axis]]);

        const PACK: usize = Pack::ELEMENTS;
        let multiple = |stride: isize| stride % PACK as isize == 0;
        let aligned = offset.is_multiple_of(PACK);
        let all_but_last = &lines[..lines.len() - 1];
        let pack = if steps == [1, 1]
            && aligned
            && width.is_multiple_of(PACK)
            && lines.iter().all(|axis| axis.strides.into_iter().all(multiple))
        {
            Some(Pack::Along)
        } else if lines.last().is_some_and(|axis| axis.strides == [1, 1] && axis.size.is_multiple_of(PACK))
            && aligned
            && steps.into_iter().all(multiple)
            && all_but_last.iter().all(|axis| axis.strides.into_iter().all(multiple))
        {
            Some(Pack::Across)
        } else {
            None
        };
        let in_elems = |stride: isize| if multiple(stride) { stride / PACK as isize } else { stride };
        if pack.is_some() {
            lines.iter_mut().for_each(|axis| axis.strides = axis.strides.map(in_elems));
            steps = steps.map(in_elems);
        }
        if pack == Some(Pack::Across)
            && let Some(last) = lines.last_mut()
        {
            last.size /= PACK;
        }
        let side_by_side = steps[0].abs() != 1 && lines.last().is_some_and(|axis| axis.strides[0].abs() == 1);
        let elems = if pack == Some(Pack::Along) { width / PACK } else { width };
        let rows = Rows {
            family: Self::FAMILY,
            rows: lines.iter().map(|axis| axis.size).product(),
            elems,
            pack: if pack.is_some() { PACK } else { 1 },
            // The element, and its weight.
            registers: 2,
            accesses: 2,
            passes: 3,
            plain_rounds: 2 * rounds_in_blocks(elems),
            side_by_side,
        };
        let offset = if pack.is_some() { offset / PACK } else { *offset };
        Ok(Plan { rows, pack, lines, steps, offset })
    }
}

/// What a launch does of a softmax.
#[derive(Clone, Copy)]
enum Stage {
    /// All of it.
    Whole(Deal),
    /// Maximum and sum of shares.
    Shares(Split),
    /// The rest.
    Apply(Split),
}

impl SoftmaxProblem {
    fn launch(&self, plan: &Plan, store: Store, stage: Stage, label: String, profile: &Profile) -> Result<Launch> {
        let shader = match stage {
            Stage::Whole(Deal::Plain { .. }) => "softmax::plain",
            Stage::Whole(Deal::Workgroup { .. }) => "softmax::workgroup",
            Stage::Whole(Deal::Subgroup { .. }) => "softmax::subgroup",
            Stage::Shares(_) => "softmax::shares",
            Stage::Apply(_) => "softmax::apply",
        };
        let Rows { rows, elems: length, .. } = plan.rows;
        let shader = Specialization::new(shader).value("LINE_AXES", plan.lines.len() - 1).value("LOG", self.log);
        let (mut shader, grid, [shares, share, turns]) = match stage {
            Stage::Whole(deal) => {
                (deal.slots(shader), deal.grid(Self::FAMILY, rows, profile)?, [1, length, deal.turns()])
            }
            Stage::Shares(split) | Stage::Apply(split) => {
                (split.slots(shader), split.grid(Self::FAMILY, rows, profile)?, [split.shares, split.share, 1])
            }
        };
        if let Some(pack) = plan.pack {
            shader = shader.ty("elem", "vec4<f32>").ty("bits", "vec4<u32>");
            shader = match pack {
                Pack::Along => shader.function("total", PACKED_TOTAL).function("largest", PACKED_LARGEST),
                Pack::Across => shader.ty("stat", "vec4<f32>"),
            };
        }
        let last = !matches!(stage, Stage::Shares(_));
        let elems = Elems { dtype: self.dtypes.x, packed: plan.pack.is_some() };
        let read = elems.read_infinities(if self.in_place { "y" } else { "x" });
        shader = shader.function("read_x", format!("fn read_x(i: u32) -> elem {{ {read} }}"));
        if !self.in_place {
            shader = elems.slots(shader.region("X", true), "x_word");
        }
        if last || self.in_place {
            let write = format!("fn write_y(i: u32, v: elem) {{ {} }}", store.elems.write("y"));
            shader = store.elems.slots(shader.region("Y", true), "y_word").function("write_y", write);
            shader = shader.region("NARROW", store.elems.dtype.is_narrow());
        }
        let bindings = [
            (!self.in_place).then(|| Binding::read(Operand::Input(0))),
            (last || self.in_place).then(|| Binding::write(store.operand)),
            match stage {
                Stage::Whole(_) => None,
                Stage::Shares(_) => Some(Binding::write(Operand::Scratch(0))),
                Stage::Apply(_) => Some(Binding::read(Operand::Scratch(0))),
            },
        ];

        let sizes = [rows, length, shares, share, turns].map(|size| size as u32);
        let mut params: Vec<u32> = sizes.into_iter().chain([self.scale.to_bits(), plan.offset as u32]).collect();
        let (outermost, others) = Axis::words(&plan.lines);
        params.extend(outermost.into_iter().chain(plan.steps.map(|step| step as u32)).chain(others));

        let elements = self.x.shape.iter().product::<usize>() as u64;
        let read = touched(&self.x) * self.dtypes.x.bytes() as u64;
        let written = elements * store.elems.dtype.bytes() as u64;
        Ok(Launch {
            label,
            source: shader.source()?,
            bindings: bindings.into_iter().flatten().collect(),
            params,
            grid: if elements == 0 { [0; 3] } else { grid },
            // Scale, maximum, difference, sum, and quotient or difference.
            flops: if last { 5 * elements } else { 0 },
            exponentials: if last { elements } else { 0 },
            // The second stage reads it all once more.
            bytes: if last { read + written } else { read },
        })
    }
}

impl Problem for SoftmaxProblem {
    fn family(&self) -> &'static str {
        Self::FAMILY
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        match self.plan() {
            Ok(plan) => {
                let shares = plan.rows.split(profile).map(|split| split.shares);
                plan.rows.candidates(shares, profile)
            }
            Err(error) => Rows::refused(&error),
        }
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        let plan = self.plan()?;
        let mut kernel = Kernel { launches: Vec::new(), scratch: Vec::new() };
        let stages = if variant == SPLIT {
            let refused =
                |reason| Error::NoVariant { family: Self::FAMILY, reasons: vec![format!("{SPLIT}: {reason}")] };
            let split = plan.rows.split(profile).map_err(refused)?;
            // Maximum and sum.
            let of_elem = if plan.pack == Some(Pack::Across) { Pack::ELEMENTS } else { 1 };
            kernel.scratch.push(4 * (2 * plan.rows.rows * split.shares * of_elem) as u64);
            vec![(Stage::Shares(split), format!("{SPLIT}: shares")), (Stage::Apply(split), format!("{SPLIT}: apply"))]
        } else {
            vec![(Stage::Whole(plan.rows.deal(variant, profile)?), variant.to_string())]
        };
        let elements = self.x.shape.iter().product();
        let store = Store::new(0, self.dtypes.y, plan.pack.is_some(), elements, &mut kernel.scratch);
        for (stage, label) in stages {
            kernel.launches.push(self.launch(&plan, store, stage, label, profile)?);
        }
        kernel.launches.extend(store.finish(profile)?);
        Ok(kernel)
    }

    fn summary(&self) -> String {
        let log = if self.log { "log " } else { "" };
        let scale = if self.scale == 1.0 { String::new() } else { format!(" scale={}", self.scale) };
        let narrow: String = narrow_ones(self.dtypes.named()).map(|stored| format!(" {stored}")).collect();
        format!("{log}{} axis={}{scale}{narrow}", self.x.shape, self.axis)
    }

    fn allows_in_place(&self, input: usize) -> bool {
        input == 0 && self.merged().is_ok_and(|plan| self.fits_in_place(&plan))
    }

    fn set_in_place(&mut self, input: usize) {
        self.in_place = input == 0;
    }
}

/// A softmax of whatever operand: `scale·x` along `axis`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softmax {
    pub(crate) log: bool,
    pub(crate) axis: usize,
    pub(crate) scale: f32,
}

impl SoftmaxProblem {
    pub(crate) fn of(softmax: Softmax, operands: &mut Operands) -> Result<Self> {
        let Softmax { log, axis, scale } = softmax;
        let dtypes = SoftmaxDTypes { x: operands.dtype(0), y: operands.out_dtype(0) };
        Ok(SoftmaxProblem { log, scale, dtypes, ..SoftmaxProblem::new(axis, operands.layout(0)) })
    }
}
