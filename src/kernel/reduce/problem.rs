//! What a reduction is asked to compute.

use super::super::Operands;
use crate::{DType, Layout, Result, graph::Reduce};

/// A reduction of an f32, i32 or u32 tensor over any set of its axes; the mean is for f32 alone.
///
/// One input, one output: dense, of the same dtype, in the shape of the axes that are kept (with or without 1 for the
/// reduced ones; that is the same buffer). The order of additions is fixed and depends on variant and device; integers wrap.
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

impl ReduceProblem {
    pub(super) const FAMILY: &str = "reduce";

    /// The bits of the result over nothing.
    pub(super) fn identity(&self) -> u32 {
        match (self.function, self.dtype) {
            (Reduce::Sum | Reduce::Mean, _) => 0,
            (Reduce::Max, DType::I32) => i32::MIN as u32,
            (Reduce::Max, DType::U32) => u32::MIN,
            (Reduce::Max, _) => f32::NEG_INFINITY.to_bits(),
            (Reduce::Min, DType::I32) => i32::MAX as u32,
            (Reduce::Min, DType::U32) => u32::MAX,
            (Reduce::Min, _) => f32::INFINITY.to_bits(),
        }
    }
}

impl ReduceProblem {
    /// Of [`Op::Reduce`](crate::graph::Op::Reduce).
    pub(in crate::kernel) fn of(function: Reduce, axes: &[usize], operands: &mut Operands) -> Result<Self> {
        operands.widen_narrow();
        Ok(ReduceProblem::new(function, operands.dtype(0), operands.layout(0), axes))
    }
}
