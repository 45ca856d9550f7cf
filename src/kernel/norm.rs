//! Layer norm and RMS norm, with the residual addition before them. Twins: `shaders/norm*.wgsl`, `tests/norm.rs`.

use super::{
    Binding, Candidate, Kernel, Launch, Operand, Problem, Profile, Specialization,
    axes::Axis,
    rows::{Deal, PACKED_TOTAL, Pack, Rows, SPLIT, Split, rounds_in_blocks},
    strided::touched,
};
use crate::{Error, Layout, Result, Shape};

/// What a [`NormProblem`] takes off and divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `(x − mean)/√(var + ε)`: Ba, Kiros and Hinton, 2016.
    Layer,
    /// `x/√(mean(x²) + ε)`: Zhang and Sennrich, 2019.
    Rms,
}

/// Layer norm or RMS norm over the trailing axes of f32 tensors.
///
/// ```text
/// s = x + residual                                 R rows (leading axes) of W elements (trailing axes)
/// y = (s − mean)·rstd · weight + bias              rstd = 1/√(var + ε)               layer norm
/// y = s·rstd · weight + bias                       rstd = 1/√(mean(s²) + ε)          RMS norm
/// ```
///
/// - Inputs, in order: `x`, \[`residual`\], \[`weight`\], \[`bias`\].
/// - Outputs, in order: `y`, \[`sum`\], \[`mean`\], \[`rstd`\]; all dense and f32. `y` and `sum` have the shape of `x`,
///   `mean` and `rstd` that of its leading axes.
/// - Rows of no elements have mean 0 and variance 0.
///
/// Every layout may have any strides. Fastest are rows whose elements lie side by side, aligned to four.
#[derive(Clone, Debug, PartialEq)]
pub struct NormProblem {
    /// Layer norm or RMS norm.
    pub kind: NormKind,
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

impl NormProblem {
    /// `y` alone, of `x` alone; set the fields for more.
    pub fn new(kind: NormKind, axes: usize, epsilon: f32, x: Layout) -> Self {
        NormProblem {
            kind,
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
        if let Some(input) = self.in_place
            && !self.allows_in_place(input)
        {
            return fault(format!("y can't share the buffer of input {input}: it has to be x or residual, and dense"));
        }
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

    /// The launch of a stage: the shader with the operands that the stage reads and writes.
    fn launch(&self, plan: &Plan, stage: Stage, label: String, profile: &Profile) -> Result<Launch> {
        let (name, template) = match stage {
            Stage::Whole(Deal::Plain { .. }) => ("norm", include_str!("../../shaders/norm.wgsl")),
            Stage::Whole(Deal::Workgroup { .. }) => {
                ("norm_workgroup", include_str!("../../shaders/norm_workgroup.wgsl"))
            }
            Stage::Whole(Deal::Subgroup { .. }) => ("norm_subgroup", include_str!("../../shaders/norm_subgroup.wgsl")),
            Stage::Shares(_) => ("norm_shares", include_str!("../../shaders/norm_shares.wgsl")),
            Stage::Apply(_) => ("norm_apply", include_str!("../../shaders/norm_apply.wgsl")),
        };
        let shader = Specialization::new(name, template)
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

        // Of the two stages the first adds x and residual, and the second does the rest.
        let (first, last) = (!matches!(stage, Stage::Apply(_)), !matches!(stage, Stage::Shares(_)));
        let adds = first || !self.sum;
        let mut bindings = Vec::new();
        let mut input = 0;
        // Where an operand is read: from its own binding, from that of y, or not at all.
        for (region, read, given, used, absent) in [
            ("X", "read_x", true, adds, "elem()"),
            ("RESIDUAL", "read_residual", self.residual.is_some(), adds, "elem()"),
            ("WEIGHT", "read_weight", self.weight.is_some(), last, "elem(1.0)"),
            ("BIAS", "read_bias", self.bias.is_some(), last, "elem()"),
        ] {
            let shared = given && self.in_place == Some(input);
            if given && used && !shared {
                shader = shader.region(region, true);
                bindings.push(Binding::read(Operand::Input(input)));
            } else {
                let value = if shared && used { "y[i]" } else { absent };
                shader = shader.function(read, format!("fn {read}(i: u32) -> elem {{ return {value}; }}"));
            }
            input += usize::from(given);
        }
        let mut output = 0;
        for (region, wanted, used) in [
            ("Y", true, last || self.in_place.is_some()),
            ("SUM", self.sum, true),
            ("MEAN", self.mean, last),
            ("RSTD", self.rstd, last),
        ] {
            if wanted && used {
                shader = shader.region(region, true);
                bindings.push(Binding::write(Operand::Output(output)));
            }
            output += usize::from(wanted);
        }
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
            bytes: if last { self.bytes(plan) } else { self.bytes_of_shares(plan) },
        })
    }

    /// Per element: sum, difference, square and its sum, difference, product (RMS: square, its sum, product).
    fn flops(&self, elements: u64) -> u64 {
        let norm = if self.kind == NormKind::Layer { 6 } else { 3 };
        let options = [&self.residual, &self.weight, &self.bias].into_iter().filter(|layout| layout.is_some()).count();
        elements * (norm + options as u64)
    }

    fn bytes(&self, plan: &Plan) -> u64 {
        let inputs = [Some(&self.x), self.residual.as_ref(), self.weight.as_ref(), self.bias.as_ref()];
        let read: u64 = inputs.into_iter().flatten().map(touched).sum();
        let rows = plan.rows.rows as u64;
        let per_row = plan.width as u64 * (1 + u64::from(self.sum)) + u64::from(self.mean) + u64::from(self.rstd);
        4 * (read + rows * per_row)
    }

    /// What the first stage of the split variant reads for the sums: it all comes once more.
    fn bytes_of_shares(&self, plan: &Plan) -> u64 {
        let read: u64 = [Some(&self.x), self.residual.as_ref()].into_iter().flatten().map(touched).sum();
        4 * (read + if self.sum { (plan.rows.rows * plan.width) as u64 } else { 0 })
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
        if variant != SPLIT {
            let stage = Stage::Whole(plan.rows.deal(variant, profile)?);
            let launch = self.launch(&plan, stage, variant.into(), profile)?;
            return Ok(Kernel { launches: vec![launch], scratch: Vec::new() });
        }
        let refused = |reason| Error::NoVariant { family: Self::FAMILY, reasons: vec![format!("{SPLIT}: {reason}")] };
        let split = plan.rows.split(profile).map_err(refused)?;
        let parts = (plan.rows.rows * split.shares) as u64;
        Ok(Kernel {
            launches: vec![
                self.launch(&plan, Stage::Shares(split), format!("{SPLIT}: shares"), profile)?,
                self.launch(&plan, Stage::Apply(split), format!("{SPLIT}: apply"), profile)?,
            ],
            scratch: vec![parts * PART_BYTES],
        })
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
        let options = options.into_iter().filter(|(_, on)| *on).map(|(name, _)| format!(" {name}"));
        format!("{kind} rows={rows} width={width}{}", options.collect::<String>())
    }

    fn allows_in_place(&self, input: usize) -> bool {
        match input {
            0 => self.x.is_contiguous(),
            1 => self.residual.as_ref().is_some_and(Layout::is_contiguous),
            _ => false,
        }
    }

    fn set_in_place(&mut self, input: usize) {
        self.in_place = Some(input);
    }
}
