//! Whole models: thin compositions of the layers, under the names that published weights have.

mod bert;
mod config;
mod gpt;
mod gpt_config;
mod seq2seq;
mod sizes;

pub use bert::{Bert, BertOutput};
pub use gpt::{Biases, Gpt, GptNames, Norm, Positions, Windowed};
pub use seq2seq::Seq2Seq;
pub(crate) use sizes::{FEATURES, HEADS, LAYERS, check_sizes};

use super::Activation;
use crate::{DType, Error, Graph, Result, ValueId};

/// Activations by the names in `config.json` of Hugging Face's models; the message of one that is not built.
fn activation(name: &str) -> Result<Activation, String> {
    match name {
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => {
            Err(format!("activation `{other}` is not known, expected gelu, gelu_new, gelu_pytorch_tanh, relu or silu"))
        }
    }
}

/// An error unless `value` is i32 of this rank.
fn expect_ids(g: &Graph, op: &str, what: &str, value: ValueId, rank: usize) -> Result<()> {
    if g.dtype(value) == DType::I32 && g.shape(value).rank() == rank {
        return Ok(());
    }
    let shape = ["[]", "[B] or [ΣT]", "[B, T]"][rank.min(2)];
    Err(Error::op(op, format!("`{what}` is {}, expected i32 {shape}", g.describe(value))))
}
