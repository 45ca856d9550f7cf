use crate::{
    Error, Graph, Result, ValueId,
    nn::{Cache, Memory},
};

/// A model that gives one token after the other: what [`Generator`](super::Generator) needs of it.
///
/// [`Gpt`](crate::nn::Gpt) and [`Seq2Seq`](crate::nn::Seq2Seq) are such models. A model of your own needs `step` and
/// `logits`; [`Cache`] and [`Memory`] do the bookkeeping of attention.
///
/// ```
/// use tilewise::{DType, Graph, Result, Tensor, ValueId, gpu::Gpu, nn::{Embedding, generate::*}};
///
/// /// Its logits are a row of a table for the last token: a bigram model.
/// struct Bigrams;
///
/// impl Autoregressive for Bigrams {
///     fn vocabulary(&self) -> usize { 3 }
///     fn positions(&self) -> usize { 100 }
///     fn step(&self, g: &mut Graph, step: &Step) -> Result<ValueId> {
///         Embedding { entries: 3, width: 3 }.build(g, "table", step.ids)
///     }
///     fn logits(&self, _: &mut Graph, x: ValueId) -> Result<ValueId> {
///         Ok(x)
///     }
/// }
///
/// let table = Tensor::new([3, 3], vec![0.0f32, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0])?; // 0 → 1 → 2 → 0
/// let mut generator = Generator::new(&Gpu::new()?, Bigrams, [("table.weight", &table)], Capacity::items(1))?;
/// assert_eq!(generator.generate(&Request::new(vec![vec![0]], 4))?.sequences[0].ids, [1, 2, 0, 1]);
/// # Ok::<(), tilewise::Error>(())
/// ```
pub trait Autoregressive {
    /// The number of words that it can say: ids are below it.
    fn vocabulary(&self) -> usize;

    /// The most tokens of a sequence, prompt included.
    fn positions(&self) -> usize;

    /// Tokens that a token sees, itself among them; `None` is all before it.
    fn window(&self) -> Option<usize> {
        None
    }

    /// The sizes of what it reads first, if it is an encoder–decoder.
    fn source(&self) -> Option<Source> {
        None
    }

    /// The features `[B, T, E]` of some tokens of each item, behind the last norm.
    ///
    /// # Errors
    /// Those of the operations and layers that it adds to the graph.
    fn step(&self, g: &mut Graph, step: &Step) -> Result<ValueId>;

    /// The logits `[B, V]` of features `[B, E]`.
    ///
    /// # Errors
    /// Those of the operations and layers that it adds to the graph.
    fn logits(&self, g: &mut Graph, x: ValueId) -> Result<ValueId>;

    /// Encodes sources, i32 `[B, S]`, and keeps in the memory what the decoder's steps need of them.
    ///
    /// # Errors
    /// Those of the operations and layers that it adds to the graph; [`Error::Op`] unless a model with a source has a
    /// `remember` of its own.
    fn remember(&self, _g: &mut Graph, _ids: ValueId, _memory: &Memory) -> Result<()> {
        Err(Error::op("generate", "this model has a source, but no `remember` that encodes it"))
    }
}

/// The sizes of an encoder–decoder's source.
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
    /// The tokens before them, and their positions.
    pub cache: Cache,
    /// The encoded source, for an encoder–decoder.
    pub memory: Option<Memory>,
}
