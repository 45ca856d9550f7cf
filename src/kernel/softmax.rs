//! Softmax and log-softmax along an axis. Twins: `shaders/softmax*.wgsl`, `tests/softmax.rs`.

use crate::Layout;

/// Softmax or log-softmax along one axis of an f32 tensor.
///
/// ```text
/// y_j = exp(s_j − m)/l        log: y_j = (s_j − m) − log l        s = scale·x, m = max s, l = Σ exp(s − m)
/// ```
///
/// An element of −inf (tested by its bits, before the scale) gives exactly 0, or −inf for the log; so does each element
/// of a line that has no other. One input, one output: dense, in the shape of `x`.
///
/// `x` may have any strides. Fastest are lines whose elements lie side by side, aligned to four.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxProblem {
    /// Whether the logarithm of the softmax is computed.
    pub log: bool,
    /// The axis.
    pub axis: usize,
    /// A finite factor on `x`, usually 1.
    pub scale: f32,
    /// Where `x` lies.
    pub x: Layout,
    /// Whether `y` shares the buffer of `x`.
    pub in_place: bool,
}

impl SoftmaxProblem {
    /// The softmax of `x` along `axis`; set the fields for more.
    pub fn new(axis: usize, x: Layout) -> Self {
        SoftmaxProblem { log: false, axis, scale: 1.0, x, in_place: false }
    }
}
