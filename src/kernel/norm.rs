//! Layer norm and RMS norm, with the residual addition before them. Twins: `shaders/norm*.wgsl`, `tests/norm.rs`.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Operands, Problem, Profile, Specialization,
    axes::Axis,
    narrow::{Elems, Store, check_floats, narrow_ones},
    rows::{Deal, PACKED_TOTAL, Pack, Rows, SPLIT, Split, rounds_in_blocks},
    strided::touched,
};
use crate::{DType, Error, Layout, Result, Shape};

/// What a [`NormProblem`] takes off and divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `(x − mean)/√(var + ε)`: Ba, Kiros and Hinton, 2016.
    Layer,
    /// `x/√(mean(x²) + ε)`: Zhang and Sennrich, 2019.
    Rms,
}

/// Layer norm or RMS norm over the trailing axes, of operands in f32, f16 or bf16 each.
///
/// ```text
/// s = x + residual                                 R rows (leading axes) of W elements (trailing axes)
/// y = (s − mean)·rstd · weight + bias              rstd = 1/√(var + ε)               layer norm
/// y = s·rstd · weight + bias                       rstd = 1/√(mean(s²) + ε)          RMS norm
/// ```
///
/// - Inputs, in order: `x`, \[`residual`\], \[`weight`\], \[`bias`\].
/// - Outputs, in order: `y`, \[`sum`\], \[`mean`\], \[`rstd`\]; all dense. `y` and `sum` have the shape of `x`, `mean` and
///   `rstd` (in f32) that of its leading axes.
/// - All is computed in f32, and rounded once, where it is written. What is normalised is the sum as it was in f32.
/// - Rows of no elements have mean 0 and variance 0.
///
/// Every layout may have any strides. Fastest are rows whose elements lie side by side, aligned to four.
#[derive(Clone, Debug, PartialEq)]
pub struct NormProblem {
    /// Layer norm or RMS norm.
    pub kind: NormKind,
    /// How the operands and results lie in memory.
    pub dtypes: NormDTypes,
    /// How many trailing axes are normalised together.
    pub axes: usize,
    /// ε, inside the root.
    pub epsilon: f32,
    /// Where `x` lies.
    pub x: Layout,
    /// Where `residual` lies, broadcast to the shape of `x`.
    pub residual: Option<Layout>,
    /// Where `weight` lies, broadcast to the trailing axes of `x`.
    pub weight: Option<Layout>,
    /// Where `bias` lies, broadcast to the trailing axes of `x`.
    pub bias: Option<Layout>,
    /// Whether `sum = x + residual` is an output.
    pub sum: bool,
    /// Whether the mean is an output (layer norm only).
    pub mean: bool,
    /// Whether `rstd` is an output.
    pub rstd: bool,
    /// The input (0, or 1 for `residual`) whose buffer `y` shares.
    pub in_place: Option<usize>,
}

/// The dtypes of a norm's float operands and results: f32, f16 or bf16 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NormDTypes {
    /// Of x.
    pub x: DType,
    /// Of the residual, if there is one.
    pub residual: DType,
    /// Of the weight, if there is one.
    pub weight: DType,
    /// Of the bias, if there is one.
    pub bias: DType,
    /// Of the sum, if it is an output. What is normalised is not rounded to it.
    pub sum: DType,
    /// Of y.
    pub y: DType,
}

impl Default for NormDTypes {
    /// f32 for all.
    fn default() -> Self {
        NormDTypes::all(DType::F32)
    }
}

impl NormDTypes {
    /// The same for all.
    pub fn all(dtype: DType) -> Self {
        NormDTypes { x: dtype, residual: dtype, weight: dtype, bias: dtype, sum: dtype, y: dtype }
    }

    /// With names.
    fn named(self) -> [(&'static str, DType); 6] {
        let NormDTypes { x, residual, weight, bias, sum, y } = self;
        [("x", x), ("residual", residual), ("weight", weight), ("bias", bias), ("sum", sum), ("y", y)]
    }

    /// Of the inputs, in the order of the places that they have in a problem with all of them.
    fn inputs(self) -> [DType; 4] {
        [self.x, self.residual, self.weight, self.bias]
    }
}

impl NormProblem {
    /// `y` alone, of `x` alone, in f32; set the fields for more.
    pub fn new(kind: NormKind, axes: usize, epsilon: f32, x: Layout) -> Self {
        NormProblem {
            kind,
            dtypes: NormDTypes::default(),
            axes,
            epsilon,
            x,
            residual: None,
            weight: None,
            bias: None,
            sum: false,
            mean: false,
            rstd: false,
            in_place: None,
        }
    }

    /// The shape of the normalised axes, which `weight` and `bias` have to have.
    pub fn row_shape(&self) -> Shape {
        self.x.shape[self.x.shape.rank().saturating_sub(self.axes)..].into()
    }
}

/// A [`NormProblem`] that holds together, with its axes merged.
struct Plan {
    rows: Rows,
    width: usize,
    /// Strides in x and residual, in elems.
    leading: Vec<Axis<2>>,
    /// Strides in x, residual, weight and bias, in elems.
    trailing: Vec<Axis<4>>,
    /// First elems of x, residual, weight and bias.
    offsets: [usize; 4],
}

/// Shift, count, mean and squares of a share.
const PART_BYTES: u64 = 16;

/// Where the results of a norm are written that have the shape of x.
struct Stores {
    y: Store,
    sum: Option<Store>,
}

/// What a launch does of a norm.
#[derive(Clone, Copy)]
enum Stage {
    /// All of it.
    Whole(Deal),
    /// The statistics of shares.
    Shares(Split),
    /// The rest.
    Apply(Split),
}

impl NormProblem {
    const FAMILY: &str = "norm";

    fn plan(&self) -> Result<Plan> {
        let plan = self.merged()?;
        match self.in_place {
            Some(input) if !self.fits_in_place(input, &plan) => {
                let message = format!(
                    "y can't share the buffer of input {input}: it has to be x or residual, dense, \
                                       and stored in the width of y"
                );
                Err(Error::op(Self::FAMILY, message))
            }
            _ => Ok(plan),
        }
    }

    /// Whether each elem of the input lies where the elem of y does.
    fn fits_in_place(&self, input: usize, plan: &Plan) -> bool {
        let (layout, dtype) = match input {
            0 => (Some(&self.x), self.dtypes.x),
            1 => (self.residual.as_ref(), self.dtypes.residual),
            _ => return false,
        };
        let y = Elems { dtype: self.dtypes.y, packed: plan.rows.pack > 1 };
        layout.is_some_and(Layout::is_contiguous) && dtype.bytes() == y.dtype.bytes() && y.own_words()
    }

    /// The plan, but for what is computed in place.
    fn merged(&self) -> Result<Plan> {
        let fault = |message: String| Err(Error::op(Self::FAMILY, message));
        let shape = &self.x.shape;
        let rank = shape.rank();
        if self.axes == 0 || self.axes > rank {
            return fault(format!("{} trailing axes of x {shape} can't be normalised; 1 to {rank} can", self.axes));
        }
        if !(self.epsilon >= 0.0 && self.epsilon.is_finite()) {
            return fault(format!("epsilon is {}, expected 0 or a finite number above", self.epsilon));
        }
        if self.mean && self.kind == NormKind::Rms {
            return fault("an RMS norm has no mean to write".into());
        }
        let row_shape = self.row_shape();
        let affine = [("weight", &self.weight), ("bias", &self.bias)];
        for (name, layout, expected) in [("residual", &self.residual, shape)]
            .into_iter()
            .chain(affine.map(|(name, layout)| (name, layout, &row_shape)))
        {
            if let Some(layout) = layout
                && layout.shape != *expected
            {
                return Err(Error::shape(Self::FAMILY, name, &layout.shape, format!("{expected}: broadcast it first")));
            }
        }
        check_floats(Self::FAMILY, self.dtypes.named())?;
        shape.checked_elements(Self::FAMILY)?;

        let first = rank - self.axes;
        let layouts = [Some(&self.x), self.residual.as_ref(), self.weight.as_ref(), self.bias.as_ref()];
        let still = vec![0; rank];
        let strides = layouts.map(|layout| layout.map_or(&still[..], |layout| &layout.strides));
        let [x, residual, weight, bias] = strides;
        let mut leading = Axis::merged(&shape[..first], [&x[..first], &residual[..first]]);
        let trailing =
            Axis::merged(&row_shape, [&x[first..], &residual[first..], &weight[..self.axes], &bias[..self.axes]]);
        let mut offsets = layouts.map(|layout| layout.map_or(0, |layout| layout.offset));
        let (rows, width) = (shape[..first].iter().product(), row_shape.iter().product());

        const PACK: usize = Pack::ELEMENTS;
        let dense = trailing.len() == 1
            && layouts.iter().zip(trailing[0].strides).all(|(layout, stride)| layout.is_none() || stride == 1);
        let aligned = width % PACK == 0
            && offsets.iter().all(|offset| offset % PACK == 0)
            && leading.iter().all(|axis| axis.strides.iter().all(|stride| stride % PACK as isize == 0));
        let pack = if dense && aligned { PACK } else { 1 };
        if pack > 1 {
            offsets = offsets.map(|offset| offset / pack);
            leading.iter_mut().for_each(|axis| axis.strides = axis.strides.map(|stride| stride / pack as isize));
        }
        let side_by_side = leading.last().is_some_and(|axis| axis.strides[0].abs() == 1 && axis.size > 1) && !dense;
        // Of each element itself, weight and bias.
        let registers = 1 + affine.iter().filter(|(_, layout)| layout.is_some()).count();
        let elems = width / pack;
        let rows = Rows {
            family: Self::FAMILY,
            rows,
            elems,
            pack,
            registers,
            accesses: 1 + registers + usize::from(self.residual.is_some()) + usize::from(self.sum),
            passes: 3,
            // And one for the head.
            plain_rounds: 9 + 2 * rounds_in_blocks(elems),
            side_by_side,
        };
        Ok(Plan { rows, width, leading, trailing, offsets })
    }

    /// Where y and the sum go.
    fn stores(&self, plan: &Plan, scratch: &mut Vec<u64>) -> Stores {
        let elements = plan.rows.rows * plan.width;
        let mut store = |output, dtype| Store::new(output, dtype, plan.rows.pack > 1, elements, scratch);
        let y = store(0, self.dtypes.y);
        Stores { y, sum: self.sum.then(|| store(1, self.dtypes.sum)) }
    }

    /// The launch of a stage: the shader with the operands that the stage reads and writes.
    fn launch(&self, plan: &Plan, stores: &Stores, stage: Stage, label: String, profile: &Profile) -> Result<Launch> {
        let shader = match stage {
            Stage::Whole(Deal::Plain { .. }) => "norm::plain",
            Stage::Whole(Deal::Workgroup { .. }) => "norm::workgroup",
            Stage::Whole(Deal::Subgroup { .. }) => "norm::subgroup",
            Stage::Shares(_) => "norm::shares",
            Stage::Apply(_) => "norm::apply",
        };
        let shader = Specialization::new(shader)
            .value("ROW_AXES", plan.leading.len() - 1)
            .value("COL_AXES", plan.trailing.len() - 1)
            .value("PACK", plan.rows.pack)
            .value("RMS", self.kind == NormKind::Rms);
        let (mut shader, grid, split) = match stage {
            Stage::Whole(deal) => (deal.slots(shader), deal.grid(Self::FAMILY, plan.rows.rows, profile)?, None),
            Stage::Shares(split) | Stage::Apply(split) => {
                (split.slots(shader), split.grid(Self::FAMILY, plan.rows.rows, profile)?, Some(split))
            }
        };
        if plan.rows.pack > 1 {
            shader = shader.ty("elem", "vec4<f32>").function("total", PACKED_TOTAL);
        }

        // Of the two stages the first adds x and residual, and the second does the rest: from the sum, if that was not rounded.
        let (first, last) = (!matches!(stage, Stage::Apply(_)), !matches!(stage, Stage::Shares(_)));
        let adds = first || !self.sum || self.dtypes.sum.is_narrow();
        let mut bindings = Vec::new();
        let mut input = 0;
        // Where an operand is read: from its own binding, from that of y, or not at all.
        let packed = plan.rows.pack > 1;
        for ((region, name, given, used, absent), dtype) in [
            ("X", "x", true, adds, "elem()"),
            ("RESIDUAL", "residual", self.residual.is_some(), adds, "elem()"),
            ("WEIGHT", "weight", self.weight.is_some(), last, "elem(1.0)"),
            ("BIAS", "bias", self.bias.is_some(), last, "elem()"),
        ]
        .into_iter()
        .zip(self.dtypes.inputs())
        {
            let elems = Elems { dtype, packed };
            let shared = given && self.in_place == Some(input);
            let body = match (given && used, shared) {
                (true, true) => elems.read("y"),
                (true, false) => {
                    shader = elems.slots(shader.region(region, true), &format!("{name}_word"));
                    bindings.push(Binding::read(Operand::Input(input)));
                    elems.read(name)
                }
                (false, _) => format!("return {absent};"),
            };
            shader = shader.function(&format!("read_{name}"), format!("fn read_{name}(i: u32) -> elem {{ {body} }}"));
            input += usize::from(given);
        }
        let mut narrow = false;
        for (name, region, store, used) in
            [("y", "Y", Some(stores.y), last || self.in_place.is_some()), ("sum", "SUM", stores.sum, first || !adds)]
        {
            let Some(store) = store.filter(|_| used) else { continue };
            let write = format!("fn write_{name}(i: u32, v: elem) {{ {} }}", store.elems.write(name));
            shader = store.elems.slots(shader.region(region, true), &format!("{name}_word"));
            shader = shader.function(&format!("write_{name}"), write);
            bindings.push(Binding::write(store.operand));
            narrow |= store.elems.dtype.is_narrow();
        }
        let mut output = 1 + usize::from(self.sum);
        for (region, wanted) in [("MEAN", self.mean), ("RSTD", self.rstd)] {
            if wanted && last {
                shader = shader.region(region, true);
                bindings.push(Binding::write(Operand::Output(output)));
            }
            output += usize::from(wanted);
        }
        shader = shader.region("NARROW", narrow);
        match stage {
            Stage::Whole(_) => {}
            Stage::Shares(_) => bindings.push(Binding::write(Operand::Scratch(0))),
            Stage::Apply(_) => bindings.push(Binding::read(Operand::Scratch(0))),
        }

        let (shares, share) = split.map_or((1, plan.rows.elems), |split| (split.shares, split.share));
        let turns = if let Stage::Whole(deal) = stage { deal.turns() } else { 1 };
        let mut params = vec![
            plan.rows.rows as u32,
            plan.width as u32,
            plan.rows.elems as u32,
            shares as u32,
            share as u32,
            turns as u32,
            self.epsilon.to_bits(),
        ];
        params.extend(plan.offsets.map(|offset| offset as u32));
        let (row, rows) = Axis::words(&plan.leading);
        let (column, columns) = Axis::words(&plan.trailing);
        params.extend(row.into_iter().chain(column).chain(rows).chain(columns));

        let nothing = plan.width == 0 && !self.mean && !self.rstd;
        Ok(Launch {
            label,
            source: shader.source()?,
            bindings,
            params,
            grid: if nothing { [0; 3] } else { grid },
            flops: if last { self.flops((plan.rows.rows * plan.width) as u64) } else { 0 },
            exponentials: 0,
            bytes: if last { self.bytes(plan, stores) } else { self.bytes_of_shares(plan, stores) },
        })
    }

    /// Per element: sum, difference, square and its sum, difference, product (RMS: square, its sum, product).
    fn flops(&self, elements: u64) -> u64 {
        let norm = if self.kind == NormKind::Layer { 6 } else { 3 };
        let options = [&self.residual, &self.weight, &self.bias].into_iter().filter(|layout| layout.is_some()).count();
        elements * (norm + options as u64)
    }

    /// What reading the first `count` of x, residual, weight and bias takes.
    fn bytes_read(&self, count: usize) -> u64 {
        let inputs = [Some(&self.x), self.residual.as_ref(), self.weight.as_ref(), self.bias.as_ref()];
        let read = inputs.into_iter().zip(self.dtypes.inputs()).take(count);
        read.filter_map(|(layout, dtype)| Some(touched(layout?) * dtype.bytes() as u64)).sum()
    }

    /// Of the results; those that are rounded by a launch of their own are f32 here.
    fn bytes(&self, plan: &Plan, stores: &Stores) -> u64 {
        let row = |store: Store| (plan.width * store.elems.dtype.bytes()) as u64;
        let statistics = 4 * (u64::from(self.mean) + u64::from(self.rstd));
        let of_row = row(stores.y) + stores.sum.map_or(0, row) + statistics;
        self.bytes_read(4) + plan.rows.rows as u64 * of_row
    }

    /// What the first stage of the split variant reads for the sums: it all comes once more.
    fn bytes_of_shares(&self, plan: &Plan, stores: &Stores) -> u64 {
        let sum = |store: Store| (plan.rows.rows * plan.width * store.elems.dtype.bytes()) as u64;
        self.bytes_read(2) + stores.sum.map_or(0, sum)
    }
}

impl Problem for NormProblem {
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
            kernel.scratch.push((plan.rows.rows * split.shares) as u64 * PART_BYTES);
            vec![(Stage::Shares(split), format!("{SPLIT}: shares")), (Stage::Apply(split), format!("{SPLIT}: apply"))]
        } else {
            vec![(Stage::Whole(plan.rows.deal(variant, profile)?), variant.to_string())]
        };
        let stores = self.stores(&plan, &mut kernel.scratch);
        for (stage, label) in stages {
            kernel.launches.push(self.launch(&plan, &stores, stage, label, profile)?);
        }
        for store in [Some(stores.y), stores.sum].into_iter().flatten() {
            kernel.launches.extend(store.finish(profile)?);
        }
        Ok(kernel)
    }

    fn summary(&self) -> String {
        let first = self.x.shape.rank().saturating_sub(self.axes);
        let (rows, width) = self.x.shape.split_at(first);
        let (rows, width): (usize, usize) = (rows.iter().product(), width.iter().product());
        let kind = if self.kind == NormKind::Layer { "layer" } else { "rms" };
        let options = [
            ("+residual", self.residual.is_some()),
            ("+weight", self.weight.is_some()),
            ("+bias", self.bias.is_some()),
            ("→sum", self.sum),
            ("→mean", self.mean),
            ("→rstd", self.rstd),
        ];
        let options = options.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_string());
        let there = [true, self.residual.is_some(), self.weight.is_some(), self.bias.is_some(), self.sum, true];
        let stored = self.dtypes.named().into_iter().zip(there).filter(|(_, there)| *there);
        let narrow = narrow_ones(stored.map(|(operand, _)| operand));
        let words: String = options.chain(narrow).map(|word| format!(" {word}")).collect();
        format!("{kind} rows={rows} width={width}{words}")
    }

    fn allows_in_place(&self, input: usize) -> bool {
        self.merged().is_ok_and(|plan| self.fits_in_place(input, &plan))
    }

    fn set_in_place(&mut self, input: usize) {
        self.in_place = Some(input);
    }
}

/// A norm of whatever operands. Inputs: x, \[residual\], \[weight\], \[bias\]. Outputs: y, \[sum\], \[mean\], \[rstd\].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    pub(crate) kind: NormKind,
    pub(crate) axes: usize,
    pub(crate) epsilon: f32,
    pub(crate) residual: bool,
    pub(crate) weight: bool,
    pub(crate) bias: bool,
    pub(crate) sum: bool,
    pub(crate) mean: bool,
    pub(crate) rstd: bool,
}

impl Norm {
    /// Of x alone to y alone.
    pub(crate) fn new(kind: NormKind, axes: usize, epsilon: f32) -> Self {
        let [residual, weight, bias, sum, mean, rstd] = [false; 6];
        Norm { kind, axes, epsilon, residual, weight, bias, sum, mean, rstd }
    }
}

impl NormProblem {
    pub(crate) fn of(norm: Norm, operands: &mut Operands) -> Result<Self> {
        let Norm { kind, axes, epsilon, sum, mean, rstd, .. } = norm;
        let mut problem = NormProblem::new(kind, axes, epsilon, operands.layout(0));
        let (whole, row) = (operands.out_shape().clone(), problem.row_shape());
        let mut others = 1..operands.count();
        let given = [(norm.residual, &whole), (norm.weight, &row), (norm.bias, &row)];
        let [residual, weight, bias] = given.map(|(given, shape)| {
            let input = given.then(|| others.next()).flatten()?;
            Some((operands.layout(input).broadcast(shape), operands.dtype(input)))
        });
        let stored = |operand: &Option<(Layout, DType)>| operand.as_ref().map_or(DType::F32, |&(_, dtype)| dtype);
        problem.dtypes = NormDTypes {
            x: operands.dtype(0),
            residual: stored(&residual),
            weight: stored(&weight),
            bias: stored(&bias),
            sum: if sum { operands.out_dtype(1) } else { DType::F32 },
            y: operands.out_dtype(0),
        };
        let layout = |operand: Option<(Layout, DType)>| operand.map(|(layout, _)| layout);
        [problem.residual, problem.weight, problem.bias] = [residual, weight, bias].map(layout);
        Ok(NormProblem { sum, mean, rstd, ..problem })
    }
}
