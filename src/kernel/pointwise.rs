//! Chains of pointwise functions. Twins: `shaders/pointwise.wgsl`, `src/reference/pointwise.rs`, `tests/pointwise.rs`.

use crate::{
    DType, Layout, Shape,
    graph::{Binary, Unary},
};

/// A chain of functions of single elements, computed in one pass: what would be a kernel a function stays in registers.
///
/// ```text
/// out[i] = body(x0[i], x1[i], …)         i over `shape`, operands read through their layouts
/// ```
///
/// Inputs are the operands in order; the one output is dense, of `shape` and `dtype`.
///
/// Types are the graph's: the operands of a [`Binary`] have one dtype, and so have both choices of a where. f16 and bf16
/// values are computed in f32, and rounded (to nearest, halves to even) where they are stored or where an
/// [`Instr::Cast`] says so; the unfused graph rounds after each function.
///
/// The bounds of the functions are those of [`unary_wgsl`](super::unary_wgsl). add, sub and mul are rounded correctly, div
/// within 2.5 ulp, pow within (16 + 4·|b·log₂|a||) ulp; pow by a scalar 2, 3, ½, 0, 1 or −1 is as good as products, root
/// and quotient. Integers wrap around; i32::MIN / −1 is i32::MIN; an integer to a negative power is that power of ±1,
/// else 0.
#[derive(Clone, Debug, PartialEq)]
pub struct PointwiseProblem {
    /// The shape of the output.
    pub shape: Shape,
    /// The dtype of the output, which the last instruction has.
    pub dtype: DType,
    /// The inputs: what they are, and where they lie; each layout has the shape of the output (see
    /// [`Layout::broadcast`]). At most [`PointwiseProblem::MAX_OPERANDS`].
    pub operands: Vec<(DType, Layout)>,
    /// What is computed, in order; the last instruction is the result.
    pub body: Vec<Instr>,
    /// The operand whose buffer the output takes over, if any.
    pub in_place: Option<usize>,
}

/// One function in a [`PointwiseProblem`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instr {
    /// A function of one value.
    Unary(Unary, Value),
    /// A function of two values of one dtype.
    Binary(Binary, Value, Value),
    /// `condition ? a : b`: a bool and two values of one dtype.
    Where(Value, Value, Value),
    /// Conversion: float to integer truncates and saturates, anything but 0 is true.
    Cast(DType, Value),
}

/// What an [`Instr`] works on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// The element of the operand of this number.
    Operand(usize),
    /// The result of the instruction of this number, an earlier one.
    Instr(usize),
    /// A number of this dtype, which f64 holds exactly (true is 1). It is a parameter: another number compiles nothing.
    Scalar(DType, f64),
}

impl PointwiseProblem {
    /// The most operands a chain can have: a portable device binds eight storage buffers, and one is the output.
    pub const MAX_OPERANDS: usize = 7;

    /// A chain whose output has memory of its own.
    pub fn new(shape: impl Into<Shape>, dtype: DType, operands: Vec<(DType, Layout)>, body: Vec<Instr>) -> Self {
        PointwiseProblem { shape: shape.into(), dtype, operands, body, in_place: None }
    }
}
