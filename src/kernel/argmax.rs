//! The place of the largest element along an axis. Twins: `shaders/argmax*.wgsl`, `tests/argmax.rs`.

use crate::{DType, Layout};

/// The index of the largest element along an axis of an f32, i32 or u32 tensor that has elements there.
///
/// One input, one output: i32, dense, in the shape of the other axes. `x` may have any strides.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgmaxProblem {
    /// The element type of the input.
    pub dtype: DType,
    /// Where the input lies.
    pub x: Layout,
    /// The axis.
    pub axis: usize,
    /// Of equal elements the last one is taken, not the first.
    pub last: bool,
}

impl ArgmaxProblem {
    /// The first of the largest elements of `x` along `axis`.
    pub fn new(dtype: DType, x: Layout, axis: usize) -> Self {
        ArgmaxProblem { dtype, x, axis, last: false }
    }
}
