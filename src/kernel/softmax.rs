//! Softmax and log-softmax along an axis. Twins: `shaders/softmax*.wgsl`, `tests/softmax.rs`.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Problem, Profile, Specialization,
    axes::Axis,
    rows::{Deal, PACKED_LARGEST, PACKED_TOTAL, Pack, Rows, rounds_in_blocks},
    strided::touched,
};
use crate::{Error, Layout, Result};

/// Softmax or log-softmax along one axis of an f32 tensor.
///
/// ```text
/// y_j = exp(s_j − m)/l        log: y_j = (s_j − m) − log l        s = scale·x, m = max s, l = Σ exp(s − m)
/// ```
///
/// An element of −inf (tested by its bits, before the scale) gives exactly 0, or −inf for the log; so does each element
/// of a line that has no other. One input, one output: dense, in the shape of `x`.
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
    /// Where `x` lies.
    pub x: Layout,
    /// Whether `y` shares the buffer of `x`.
    pub in_place: bool,
}

impl SoftmaxProblem {
    /// The softmax of `x` along `axis`; set the fields for more.
    pub fn new(axis: usize, x: Layout) -> Self {
        SoftmaxProblem { log: false, axis, scale: 1.0, x, in_place: false }
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
        let Layout { shape, strides, offset } = &self.x;
        let axis = shape.axis(Self::FAMILY, self.axis as isize)?;
        if !self.scale.is_finite() {
            return Err(Error::op(Self::FAMILY, format!("the scale is {}, expected a finite number", self.scale)));
        }
        if self.in_place && !self.allows_in_place(0) {
            return Err(Error::op(Self::FAMILY, "y can't share the buffer of x, which is not dense"));
        }
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
            passes: 3,
            plain_rounds: 2 * rounds_in_blocks(elems),
            side_by_side,
        };
        let offset = if pack.is_some() { offset / PACK } else { *offset };
        Ok(Plan { rows, pack, lines, steps, offset })
    }
}

impl Problem for SoftmaxProblem {
    fn family(&self) -> &'static str {
        Self::FAMILY
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        match self.plan() {
            Ok(plan) => plan.rows.candidates(profile),
            Err(error) => Rows::refused(&error),
        }
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        let plan = self.plan()?;
        let deal = plan.rows.deal(variant, profile)?;
        let (name, template) = match deal {
            Deal::Plain { .. } => ("softmax", include_str!("../../shaders/softmax.wgsl")),
            Deal::Workgroup { .. } => ("softmax_workgroup", include_str!("../../shaders/softmax_workgroup.wgsl")),
            Deal::Subgroup { .. } => ("softmax_subgroup", include_str!("../../shaders/softmax_subgroup.wgsl")),
        };
        let mut shader = deal
            .slots(Specialization::new(name, template))
            .value("LINE_AXES", plan.lines.len() - 1)
            .value("LOG", self.log)
            .region("X", !self.in_place);
        if let Some(pack) = plan.pack {
            shader = shader.ty("elem", "vec4<f32>").ty("bits", "vec4<u32>");
            shader = match pack {
                Pack::Along => shader.function("total", PACKED_TOTAL).function("largest", PACKED_LARGEST),
                Pack::Across => shader.ty("stat", "vec4<f32>"),
            };
        }
        if self.in_place {
            shader = shader.function("read_x", "fn read_x(i: u32) -> elem { return y[i]; }");
        }

        let Rows { rows, elems, .. } = plan.rows;
        let mut params = vec![rows as u32, elems as u32, deal.turns() as u32, self.scale.to_bits(), plan.offset as u32];
        let (outermost, others) = Axis::words(&plan.lines);
        params.extend(outermost.into_iter().chain(plan.steps.map(|step| step as u32)).chain(others));

        let read = (!self.in_place).then(|| Binding::read(Operand::Input(0)));
        let elements = self.x.shape.iter().product::<usize>() as u64;
        Ok(Kernel {
            launches: vec![Launch {
                label: variant.into(),
                source: shader.source()?,
                bindings: read.into_iter().chain([Binding::write(Operand::Output(0))]).collect(),
                params,
                grid: if elements == 0 { [0; 3] } else { deal.grid(Self::FAMILY, plan.rows.rows, profile)? },
                // Scale, maximum, difference, exponential, sum, and quotient or difference.
                flops: 6 * elements,
                bytes: 4 * (touched(&self.x) + elements),
            }],
            scratch: Vec::new(),
        })
    }

    fn summary(&self) -> String {
        let log = if self.log { "log " } else { "" };
        let scale = if self.scale == 1.0 { String::new() } else { format!(" scale={}", self.scale) };
        format!("{log}{} axis={}{scale}", self.x.shape, self.axis)
    }

    fn allows_in_place(&self, input: usize) -> bool {
        input == 0 && self.x.is_contiguous()
    }

    fn set_in_place(&mut self, input: usize) {
        self.in_place = input == 0;
    }
}
