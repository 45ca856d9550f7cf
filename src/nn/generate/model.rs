use crate::{
    Error, Graph, Result, ValueId,
    nn::{Cache, Memory},
};

/// A model that says one token after the other: what [`Generator`](super::Generator) needs of it.
///
/// [`Gpt`](crate::nn::Gpt) and [`Seq2Seq`](crate::nn::Seq2Seq) are such models; a model of one's own needs `step` and `logits`, for
/// which [`Cache`] and [`Memory`] do the bookkeeping.
pub trait Autoregressive {
    /// Words that it can say.
    fn vocabulary(&self) -> usize;

    /// The most tokens of a sequence, prompt included.
    fn positions(&self) -> usize;

    /// Tokens that a token sees, itself among them; `None` is all before it.
    fn window(&self) -> Option<usize> {
        None
    }

    /// What it reads before it says anything, if it is an encoder–decoder.
    fn source(&self) -> Option<Source> {
        None
    }

    /// The features `[B, T, E]` of some tokens of each item, behind the last norm.
    fn step(&self, g: &mut Graph, step: &Step) -> Result<ValueId>;

    /// The logits `[B, V]` of features `[B, E]`.
    fn logits(&self, g: &mut Graph, x: ValueId) -> Result<ValueId>;

    /// Encodes sources, i32 `[B, S]`, and keeps what the decoder's steps need of them.
    fn remember(&self, _g: &mut Graph, _ids: ValueId, _memory: &Memory) -> Result<()> {
        Err(Error::op("generate", "this model has a source, but no `remember` that encodes it"))
    }
}

/// What an encoder–decoder reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Words of the source.
    pub vocabulary: usize,
    /// The most tokens of a source.
    pub positions: usize,
}

/// The tokens of one step.
#[derive(Clone, Debug)]
pub struct Step {
    /// i32 `[B, T]`.
    pub ids: ValueId,
    /// What came before them; also says where they stand.
    pub cache: Cache,
    /// What an encoder–decoder remembers of its source.
    pub memory: Option<Memory>,
}
