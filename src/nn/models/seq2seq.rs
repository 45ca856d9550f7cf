use super::expect_ids;
use crate::{
    Error, Graph, Result, Tensor, ValueId,
    graph::{Align, Mask},
    nn::{
        AttentionMasks, Embedding, Linear, Memory, Transformer,
        generate::{Autoregressive, Source, Step},
    },
};

/// An encoder–decoder over words: `torch.nn.Transformer` between embeddings and an output layer, under the names of PyTorch's
/// translation tutorial.
///
/// Words are scaled by √E and get the sinusoidal positions of Vaswani et al. (2017). Parameters:
/// `src_tok_emb.embedding.weight [Vs, E]`, `tgt_tok_emb.embedding.weight [Vt, E]`, `transformer.encoder…`,
/// `transformer.decoder…`, `generator.weight [Vt, E]`, `generator.bias [Vt]`. The layers are batch first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seq2Seq {
    /// Encoder and decoder; both are E wide.
    pub transformer: Transformer,
    /// Words of the source.
    pub source_vocabulary: usize,
    /// Words of the target.
    pub target_vocabulary: usize,
    /// The most tokens of a source.
    pub source_positions: usize,
    /// The most tokens of a target.
    pub target_positions: usize,
}

const SOURCE: &str = "src_tok_emb.embedding";
const TARGET: &str = "tgt_tok_emb.embedding";
const ENCODER: &str = "transformer.encoder";
const DECODER: &str = "transformer.decoder";

impl Seq2Seq {
    /// All tokens at once: sources i32 `[B, S]` with their lengths i32 `[B]`, targets i32 `[B, T]` → logits
    /// `[B, T, Vt]`; row t is about token t + 1 of the target.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::{EncoderLayer, Seq2Seq, Transformer}};
    /// # let mut g = Graph::new();
    /// let model = Seq2Seq {
    ///     transformer: Transformer::new(EncoderLayer::new(16, 4, 32), 1, 1),
    ///     source_vocabulary: 50,
    ///     target_vocabulary: 60,
    ///     source_positions: 64,
    ///     target_positions: 64,
    /// };
    /// let source = g.input("source", DType::I32, [2, 7])?;
    /// let lengths = g.input("lengths", DType::I32, [2])?;
    /// let target = g.input("target", DType::I32, [2, 5])?;
    /// let logits = model.build(&mut g, source, lengths, target)?;
    /// assert_eq!(g.shape(logits), &[2, 5, 60].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if an operand is not i32 of its shape, if a sequence has more tokens than positions, if the layers
    /// are not batch first, or if encoder and decoder differ in width; and as [`Transformer::build`].
    pub fn build(&self, g: &mut Graph, source: ValueId, lengths: ValueId, target: ValueId) -> Result<ValueId> {
        let memory = self.encode(g, source, lengths)?;
        expect_ids(g, "seq2seq", "target", target, 2)?;
        let (items, tokens) = (g.shape(target)[0], g.shape(target)[1]);
        fits("target", tokens, self.target_positions)?;
        let positions = g.constant(Tensor::new([tokens], (0..tokens as i32).collect::<Vec<_>>())?)?;
        let positions = g.broadcast(positions, [items, tokens])?;
        let x = self.embed_target(g, target, positions)?;
        let causal = AttentionMasks::from(Mask::causal(Align::TopLeft));
        let real = AttentionMasks::from(Mask::key_lengths(lengths));
        let x = self.transformer.decoder.build(g, DECODER, x, memory, &causal, &real)?;
        self.logits(g, x)
    }

    fn encode(&self, g: &mut Graph, source: ValueId, lengths: ValueId) -> Result<ValueId> {
        self.check()?;
        expect_ids(g, "seq2seq", "source", source, 2)?;
        let tokens = g.shape(source)[1];
        fits("source", tokens, self.source_positions)?;
        let width = self.transformer.encoder.layer.width;
        let table = Embedding { entries: self.source_vocabulary, width };
        let words = table.build(g, SOURCE, source)?;
        let words = scaled(g, words, width)?;
        let positions = crate::nn::sinusoidal_positions(g, tokens, width)?;
        let x = g.add(words, positions)?;
        self.transformer.encoder.build(g, ENCODER, x, &Mask::key_lengths(lengths).into())
    }

    fn embed_target(&self, g: &mut Graph, ids: ValueId, positions: ValueId) -> Result<ValueId> {
        let width = self.transformer.decoder.layer.width;
        let table = Embedding { entries: self.target_vocabulary, width };
        let words = table.build(g, TARGET, ids)?;
        let words = scaled(g, words, width)?;
        let table = crate::nn::sinusoidal_positions(g, self.target_positions, width)?;
        let rows = g.gather(table, positions, 0)?;
        g.add(words, rows)
    }

    fn check(&self) -> Result<()> {
        let (encoder, decoder) = (&self.transformer.encoder.layer, &self.transformer.decoder.layer);
        if !(encoder.batch_first && decoder.batch_first) {
            return Err(Error::op("seq2seq", "its layers must be batch first"));
        }
        let width = decoder.memory_width.unwrap_or(decoder.width);
        if width != encoder.width {
            return Err(Error::op(
                "seq2seq",
                format!("the encoder's tokens are {} wide, the decoder expects {width}", encoder.width),
            ));
        }
        Ok(())
    }
}

fn fits(what: &str, tokens: usize, positions: usize) -> Result<()> {
    if tokens <= positions {
        return Ok(());
    }
    Err(Error::op("seq2seq", format!("the {what} has {tokens} tokens, the model has {positions} positions for it")))
}

fn scaled(g: &mut Graph, x: ValueId, width: usize) -> Result<ValueId> {
    let root = g.scalar((width as f64).sqrt(), x)?;
    g.mul(x, root)
}

impl Autoregressive for Seq2Seq {
    fn vocabulary(&self) -> usize {
        self.target_vocabulary
    }

    fn positions(&self) -> usize {
        self.target_positions
    }

    fn source(&self) -> Option<Source> {
        Some(Source { vocabulary: self.source_vocabulary, positions: self.source_positions })
    }

    fn remember(&self, g: &mut Graph, ids: ValueId, memory: &Memory) -> Result<()> {
        let encoded = self.encode(g, ids, memory.lengths())?;
        self.transformer.decoder.remember(g, DECODER, encoded, memory)
    }

    fn step(&self, g: &mut Graph, step: &Step) -> Result<ValueId> {
        self.check()?;
        let Some(memory) = &step.memory else {
            return Err(Error::op("seq2seq", "a step needs the memory of a source"));
        };
        let x = self.embed_target(g, step.ids, step.cache.positions())?;
        self.transformer.decoder.step(g, DECODER, x, &step.cache, memory)
    }

    fn logits(&self, g: &mut Graph, x: ValueId) -> Result<ValueId> {
        Linear::new(self.transformer.decoder.layer.width, self.target_vocabulary).build(g, "generator", x)
    }
}
