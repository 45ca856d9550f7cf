//! What a norm is asked to compute.

use crate::{DType, Layout, Shape};

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
    pub(super) fn named(self) -> [(&'static str, DType); 6] {
        let NormDTypes { x, residual, weight, bias, sum, y } = self;
        [("x", x), ("residual", residual), ("weight", weight), ("bias", bias), ("sum", sum), ("y", y)]
    }

    /// Of the inputs, in the order of the places that they have in a problem with all of them.
    pub(super) fn inputs(self) -> [DType; 4] {
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

impl NormProblem {
    pub(super) const FAMILY: &str = "norm";
}
