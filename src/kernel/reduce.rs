//! Sum, mean, maximum and minimum over axes. Twins: `shaders/reduce*.wgsl`, `tests/reduce.rs`.

use crate::{DType, Layout, graph::Reduce};

/// A reduction of an f32, i32 or u32 tensor over any set of its axes; the mean is for f32 alone.
///
/// One input, one output: dense, of the same dtype, in the shape of the axes that are kept (with or without 1 for the
/// reduced ones; that is the same buffer). The order of additions is fixed and depends on the variant; integers wrap.
/// Over no elements the result is that of [`Reduce`].
///
/// `x` may have any strides.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceProblem {
    /// What is computed.
    pub function: Reduce,
    /// The element type of input and output.
    pub dtype: DType,
    /// Where the input lies.
    pub x: Layout,
    /// The axes that are reduced, sorted, without repeats.
    pub axes: Vec<usize>,
}

impl ReduceProblem {
    /// `function` of `x` over `axes`.
    pub fn new(function: Reduce, dtype: DType, x: Layout, axes: impl Into<Vec<usize>>) -> Self {
        ReduceProblem { function, dtype, x, axes: axes.into() }
    }
}
