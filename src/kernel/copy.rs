//! Dense copies, concatenation and padding. Twins: `shaders/copy*.wgsl`, `src/reference/copy.rs`, `tests/copy.rs`.

use crate::{DType, Layout};

/// A strided view copied into a dense tensor of its shape, bit for bit.
///
/// ```text
/// out[i, j, …] = input[offset + i·strides[0] + j·strides[1] + …]
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyProblem {
    /// Of input and output.
    pub dtype: DType,
    /// The view.
    pub input: Layout,
}

/// Tensors end to end along an axis, bit for bit. Any number of inputs, in order; the one output is dense.
///
/// ```text
/// out[…, starts[n] + i, …] = inputs[n][…, i, …]        starts[n] = Σ of the sizes of the inputs before n
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcatProblem {
    /// Of every input and the output.
    pub dtype: DType,
    /// The axis along which the inputs follow each other. Other sizes are equal.
    pub axis: usize,
    /// The inputs.
    pub inputs: Vec<Layout>,
}

/// A tensor in a frame of one value.
///
/// ```text
/// out[i, j, …] = input[i − before[0], j − before[1], …] if that is inside, else value
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PadProblem {
    /// Of input and output.
    pub dtype: DType,
    /// The tensor inside.
    pub input: Layout,
    /// Elements before each axis.
    pub before: Vec<usize>,
    /// Elements after each axis.
    pub after: Vec<usize>,
    /// The value around it, converted to the dtype: rounded for floats; truncated and saturated for integers; true
    /// unless 0.
    pub value: f64,
}
