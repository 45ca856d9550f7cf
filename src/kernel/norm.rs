//! Layer norm and RMS norm, with the residual addition before them. Twins: `shaders/norm*.wgsl`, `tests/norm.rs`.

use crate::{Layout, Shape};

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
/// Every layout may have any strides, as long as the leading axes merge into at most four groups, and the trailing axes
/// too (axes that one stride covers in every operand are one group); otherwise every variant is refused, and the operand
/// has to be copied to a dense tensor first.
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
