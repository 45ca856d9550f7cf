//! Softmax and log-softmax along an axis. Twins: `shaders/softmax/`, `src/reference/softmax.rs`, `tests/device/softmax.rs`.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Operands, Parameters, Problem, Profile, Specialization,
    access::{
        axes::Axis,
        elems::Elems,
        narrow::{check_floats, narrow_ones},
        strided::touched,
    },
    pointwise::Store,
    rows::{self, Deal, PACKED_LARGEST, PACKED_TOTAL, Pack, Rows, Stage, Staged, rounds_in_blocks},
    variant,
};
use crate::{DType, Error, Layout, Result};

/// Softmax or log-softmax along one axis, from f32, f16 or bf16 to one of them.
///
/// ```text
/// y_j = exp(s_j − m)/l        log: y_j = (s_j − m) − log l        s = scale·x, m = max s, l = Σ exp(s − m)
/// ```
///
/// An element of −inf (tested by its bits, before the scale) gives exactly 0, or −inf for the log; so does each element
/// of a line that has no other. A NaN or +inf makes all of its line NaN. One input, one output: dense, in the shape of `x`. All is computed in f32, and rounded
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

/// A checked [`SoftmaxProblem`] on a device.
struct Setup<'a> {
    problem: &'a SoftmaxProblem,
    profile: &'a Profile,
    merged: Merged,
}

/// The axes of a softmax.
struct Merged {
    rows: Rows,
    pack: Option<Pack>,
    /// Of lines; strides in x and y, in elems.
    lines: Vec<Axis<2>>,
    /// A line.
    axis: Axis<2>,
    /// The first elem of x.
    offset: usize,
}

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = SoftmaxProblem::FAMILY;

    fn profile(&self) -> &Profile {
        self.profile
    }
}

impl SoftmaxProblem {
    const FAMILY: &str = "softmax";

    fn on<'a>(&'a self, profile: &'a Profile) -> Result<Setup<'a>> {
        let merged = self.merged()?;
        if self.in_place && !self.fits_in_place(&merged) {
            let message = "y can't share the buffer of x, which is not dense, or stored in another width than y";
            return Err(Error::op(Self::FAMILY, message));
        }
        Ok(Setup { problem: self, profile, merged })
    }

    /// Whether each elem of x lies where the elem of y does.
    fn fits_in_place(&self, merged: &Merged) -> bool {
        let y = Elems { dtype: self.dtypes.y, packed: merged.pack.is_some() };
        self.x.is_contiguous() && self.dtypes.x.bytes() == y.dtype.bytes() && y.own_words()
    }

    /// The axes of a problem that holds together, but for what it does in place.
    fn merged(&self) -> Result<Merged> {
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
        let mut line = [Axis { size: shape[axis], strides: [strides[axis], dense[axis]] }];
        let pack = Pack::of(&lines, &line, *offset);
        if let Some(pack) = pack {
            pack.count(Pack::ELEMENTS, &mut lines, &mut line);
        }
        let [axis] = line;
        let side_by_side = axis.strides[0].abs() != 1 && lines.last().is_some_and(|axis| axis.strides[0].abs() == 1);
        let width = if pack.is_some() { Pack::ELEMENTS } else { 1 };
        let rows = Rows {
            rows: lines.iter().map(|axis| axis.size).product(),
            elems: axis.size,
            pack: width,
            // The element, and its weight.
            registers: 2,
            accesses: 2,
            passes: 3,
            plain_rounds: 2 * rounds_in_blocks(axis.size),
            side_by_side,
        };
        Ok(Merged { rows, pack, lines, axis, offset: offset / width })
    }
}

impl Staged for Setup<'_> {
    fn rows(&self) -> &Rows {
        &self.merged.rows
    }

    /// Maximum and sum.
    fn partial_bytes(&self) -> usize {
        let of_elem = if self.merged.pack == Some(Pack::Across) { Pack::ELEMENTS } else { 1 };
        2 * 4 * of_elem
    }

    fn kernel(&self, stages: &[Stage], workspace: Vec<u64>) -> Result<Kernel> {
        let mut kernel = Kernel { launches: Vec::new(), workspace };
        let (packed, elements) = (self.merged.pack.is_some(), self.problem.x.shape.iter().product());
        let store = Store::new(0, self.problem.dtypes.y, packed, elements, &mut kernel.workspace);
        for &stage in stages {
            kernel.launches.push(self.launch(store, stage)?);
        }
        kernel.launches.extend(store.finish(self.profile)?);
        Ok(kernel)
    }
}

impl Setup<'_> {
    fn launch(&self, store: Store, stage: Stage) -> Result<Launch> {
        let Setup { problem, profile, merged } = self;
        let Rows { rows, elems: length, .. } = merged.rows;
        let shader = match stage {
            Stage::Whole(Deal::Plain(_)) => "softmax::plain",
            Stage::Whole(Deal::Workgroup(_)) => "softmax::workgroup",
            Stage::Whole(Deal::Subgroup(_)) => "softmax::subgroup",
            Stage::Shares(_) => "softmax::shares",
            Stage::Apply(_) => "softmax::apply",
        };
        let mut shader = stage
            .slots(Specialization::new(shader).on(profile.backend))
            .value("LINE_AXES", merged.lines.len() - 1)
            .value("LOG", problem.log);
        if let Some(pack) = merged.pack {
            shader = shader.ty("elem", "vec4<f32>").ty("bits", "vec4<u32>");
            shader = match pack {
                Pack::Along => shader.function("total", PACKED_TOTAL).function("largest", PACKED_LARGEST),
                Pack::Across => shader.ty("stat", "vec4<f32>").ty("stat_bits", "vec4<u32>"),
            };
        }
        let last = stage.is_last();
        let mut bindings = Vec::new();
        let elems = Elems { dtype: problem.dtypes.x, packed: merged.pack.is_some() };
        let read = elems.read_infinities(if problem.in_place { "y" } else { "x" });
        shader = shader.function("read_x", format!("fn read_x(i: u32) -> elem {{ {read} }}"));
        if !problem.in_place {
            shader = elems.slots(shader.region("X", true), "x_word");
            bindings.push(Binding::read(Operand::Input(0)));
        }
        if last || problem.in_place {
            let write = format!("fn write_y(i: u32, v: elem) {{ {} }}", store.elems.write("y"));
            shader = store.elems.slots(shader.region("Y", true), "y_word").function("write_y", write);
            shader = shader.region("NARROW", store.elems.dtype.is_narrow());
            bindings.push(Binding::write(store.operand));
        }
        bindings.extend(stage.between());

        let [x_axis, y_axis] = merged.axis.strides;
        let parameters = Parameters::new()
            .set("lines", rows)
            .set("elems", length)
            .and(stage.parameters())
            .set("scale", problem.scale)
            .set("x", merged.offset)
            .set("x_axis", x_axis)
            .set("y_axis", y_axis)
            .and(Axis::parameters(&merged.lines, ["x", "y"], "line", "r"));
        let source = shader.source()?;
        let elements = problem.x.shape.iter().product::<usize>() as u64;
        let read = touched(&problem.x) * problem.dtypes.x.bytes() as u64;
        let written = elements * store.elems.dtype.bytes() as u64;
        Ok(Launch {
            label: stage.label(),
            params: source.words(&parameters)?,
            source,
            bindings,
            grid: if elements == 0 { [0; 3] } else { stage.grid(SoftmaxProblem::FAMILY, rows, profile)? },
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
        rows::candidates(self.on(profile))
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        rows::kernel(self.on(profile), variant)
    }

    fn summary(&self) -> String {
        let log = if self.log { "log " } else { "" };
        let scale = if self.scale == 1.0 { String::new() } else { format!(" scale={}", self.scale) };
        let narrow: String = narrow_ones(self.dtypes.named()).map(|stored| format!(" {stored}")).collect();
        format!("{log}{} axis={}{scale}{narrow}", self.x.shape, self.axis)
    }

    fn allows_in_place(&self, input: usize) -> bool {
        input == 0 && self.merged().is_ok_and(|merged| self.fits_in_place(&merged))
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
