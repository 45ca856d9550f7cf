//! Floor 6: layers that *build graphs*, with PyTorch's names and semantics.
//!
//! A layer is a small struct of sizes and options. Its `build` adds nodes to a [`Graph`] and declares the parameters
//! it needs under PyTorch's `state_dict` names (`encoder.layers.0.self_attn.in_proj_weight`), so that the
//! weights of a PyTorch model load unchanged. Parameters of the same name and shape are the same parameter: this ties
//! weights. Each layer also [traces](Graph::trace) its result under the path of PyTorch's module (also of dropouts,
//! which do nothing unless a [`Dropout`] is given, to train): printed graphs show the paths, and [`diff`](mod@crate::diff) compares by
//! them.
//!
//! Boolean masks have two polarities here. In a [`Mask`](crate::graph::Mask), true means that a key **takes part**; in
//! `attn_mask` and `key_padding_mask` of [`AttentionMasks`], as in `torch.nn.MultiheadAttention`, that it is **masked**.
//! Float masks are added in both.
//!
//! ```
//! use tilewise::{DType, Graph, graph::{Align, Mask}, nn};
//! let mut g = Graph::new();
//! let target = g.input("target", DType::F32, [2, 5, 20])?;
//! let memory = g.input("memory", DType::F32, [2, 7, 12])?;
//! let layer = nn::DecoderLayer { memory_width: Some(12), ..nn::DecoderLayer::new(20, 4, 80) };
//! let causal = nn::AttentionMasks::from(Mask::causal(Align::TopLeft));
//! let y = layer.build(&mut g, "layer", target, memory, &causal, &nn::AttentionMasks::default())?;
//! assert_eq!(g.shape(y), &[2, 5, 20].into());
//! # Ok::<(), tilewise::Error>(())
//! ```

mod attention;
mod basic;
mod cache;
pub mod generate;
mod models;
mod packed;
mod rope;
mod sequence;
mod transformer;
#[cfg(feature = "native")]
mod weights;

pub use attention::{AttentionMasks, AttentionWeights, MultiheadAttention};
pub use basic::{
    Dropout, Embedding, LayerNorm, Linear, RmsNorm, alibi_slopes, learned_positions, sinusoidal_positions,
};
pub use cache::{Cache, Memory};
pub use models::{Bert, BertOutput, Biases, Gpt, GptNames, Norm, Positions, Seq2Seq, Windowed};
pub(crate) use models::{FEATURES, HEADS, LAYERS, check_sizes};
pub use packed::{from_packed_sequence, offsets, pack, to_packed_sequence, unpack};
pub use rope::{Rope, RopeScaling};
pub use sequence::{Pooling, key_mask, mask_rows, pool};
pub use transformer::{Activation, Decoder, DecoderLayer, Encoder, EncoderLayer, FeedForward, Transformer};
#[cfg(feature = "native")]
pub use weights::{Uploaded, Weights};

use crate::{DType, Error, Graph, Result, Shape, ValueId, graph::Op};

/// The parameter of this name: declared now, in f32, or the one that is there already in this shape (tied weights).
///
/// ```
/// # use tilewise::{DType, Graph, nn};
/// # let mut g = Graph::new();
/// let table = nn::parameter(&mut g, "table.weight", [50, 16])?;
/// assert_eq!(nn::parameter(&mut g, "table.weight", [50, 16])?, table);
/// assert_eq!(g.describe(table), "table.weight: f32 [50, 16]");
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Graph`] if the name belongs to a value that is no parameter or has another shape, or if it is empty or
/// begins with `%`.
pub fn parameter(g: &mut Graph, name: &str, shape: impl Into<Shape>) -> Result<ValueId> {
    let shape = shape.into();
    match g.find(name) {
        None => g.parameter(name, DType::F32, shape),
        Some(value) if matches!(g.definition(value).op, Op::Parameter { .. }) && g.shape(value) == &shape => Ok(value),
        Some(value) => Err(Error::Graph(format!(
            "parameter `{name}` {shape} is needed, but the name belongs to {}",
            g.describe(value)
        ))),
    }
}

/// `prefix.name`, or `name` where the prefix is empty.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
}
