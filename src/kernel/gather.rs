//! Embedding lookup. Twins: `shaders/gather.wgsl`, `src/reference/gather.rs`, `tests/gather.rs`.

use crate::{DType, Layout};

/// Slices of `data` along an axis, picked by indices, bit for bit. Inputs: data, indices (i32). One dense output.
///
/// ```text
/// data [before…, N, after…], indices [index…] → out [before…, index…, after…]
/// out[b, i, a] = data[b, pick(indices[i]), a]        pick(k) = clamp(k < 0 ? k + N : k, 0, N − 1)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatherProblem {
    /// Of data and output.
    pub dtype: DType,
    /// Where the data lies.
    pub data: Layout,
    /// The axis of `data` that the indices run over. It has at least one element, unless there are no indices.
    pub axis: usize,
    /// Where the indices lie.
    pub indices: Layout,
}
