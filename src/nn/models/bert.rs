use super::{
    config::{COMMON, Config, Keys, Rule},
    expect_ids,
};
use crate::{
    DType, Error, Graph, Result, Tensor, ValueId,
    graph::{Binary, Mask, Reduce},
    nn::{
        Activation, Embedding, LayerNorm, Linear,
        attention::{merge, split},
        join, parameter,
    },
};

/// BERT (Devlin et al., 2018): a post-norm encoder over words, positions and segments, under the names of Hugging Face's
/// `BertModel`, so that its weights, and those of sentence-transformers that stand on it, load unchanged.
///
/// Parameters: `embeddings.word_embeddings.weight [V, E]`, `embeddings.position_embeddings.weight [P, E]`,
/// `embeddings.token_type_embeddings.weight [S, E]`, `embeddings.LayerNorm`; for each layer
/// `encoder.layer.N.attention.self.{query,key,value}`, `.attention.output.dense`, `.attention.output.LayerNorm`,
/// `.intermediate.dense`, `.output.dense`, `.output.LayerNorm`; and `pooler.dense`.
///
/// ```
/// use tilewise::{DType, Graph, nn::Bert};
/// let config = r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6,
///     "num_attention_heads": 12, "intermediate_size": 1536, "max_position_embeddings": 512, "type_vocab_size": 2,
///     "hidden_act": "gelu", "layer_norm_eps": 1e-12}"#;
/// let bert = Bert::from_config(config)?;
/// let mut g = Graph::new();
/// let ids = g.input("ids", DType::I32, [2, 16])?;
/// let lengths = g.input("lengths", DType::I32, [2])?;
/// let out = bert.build(&mut g, "", ids, None, Some(lengths))?;
/// assert_eq!(g.shape(out.hidden), &[2, 16, 384].into());
/// # Ok::<(), tilewise::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Bert {
    /// V: words of the vocabulary.
    pub vocabulary: usize,
    /// P: the most tokens of a sequence.
    pub positions: usize,
    /// S: segments that a token can belong to.
    pub token_types: usize,
    /// E: features of a token.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads; E is a multiple.
    pub heads: usize,
    /// Features inside the feed-forward blocks.
    pub hidden: usize,
    /// The function inside the feed-forward blocks; not [`Activation::SwiGlu`].
    pub activation: Activation,
    /// ε of the norms.
    pub epsilon: f32,
    /// Whether `tanh(dense(first token))` is computed too.
    pub pooler: bool,
}

/// The results of [`Bert::build`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BertOutput {
    /// The last layer's tokens: `[B, T, E]`, or `[ΣT, E]` packed.
    pub hidden: ValueId,
    /// `[B, E]`: what the pooler makes of each sequence's first token, if there is one.
    pub pooled: Option<ValueId>,
}

/// The keys of a BERT, and those that relatives of it have.
pub(super) const KEYS: Keys = {
    use Rule::{Built, Harmless, Only};
    &[
        ("hidden_size", Built),
        ("num_hidden_layers", Built),
        ("num_attention_heads", Built),
        ("intermediate_size", Built),
        ("max_position_embeddings", Built),
        ("type_vocab_size", Built),
        ("hidden_act", Built),
        ("layer_norm_eps", Built),
        ("position_embedding_type", Only(r#""absolute""#)),
        ("is_decoder", Only("false")),
        ("embedding_size", Only("null")),
        ("num_hidden_groups", Only("null")),
        ("rope_parameters", Only("null")),
        ("rope_scaling", Only("null")),
        ("attention_probs_dropout_prob", Harmless),
        ("hidden_dropout_prob", Harmless),
        ("directionality", Harmless),
        // Of a pooler that nothing reads.
        ("pooler_fc_size", Harmless),
        ("pooler_num_attention_heads", Harmless),
        ("pooler_num_fc_layers", Harmless),
        ("pooler_size_per_head", Harmless),
        ("pooler_type", Harmless),
    ]
};

/// ε where a file doesn't say.
const EPSILON: f32 = 1e-12;

impl Bert {
    /// BERT's own choices (gelu, ε = 1e-12, 2 segments, no pooler) with these sizes.
    pub fn new(vocabulary: usize, positions: usize, width: usize, layers: usize, heads: usize, hidden: usize) -> Self {
        Bert {
            vocabulary,
            positions,
            token_types: 2,
            width,
            layers,
            heads,
            hidden,
            activation: Activation::Gelu,
            epsilon: EPSILON,
            pooler: false,
        }
    }

    /// Sizes and options from a `config.json`; without the pooler.
    ///
    /// No key passes that would change numbers: each is built, or known to change none, or refused by its name. A key that is not
    /// known here passes if its value says nothing (`null`, `false`, empty).
    ///
    /// ```
    /// use tilewise::nn::Bert;
    /// let config = r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6,
    ///     "num_attention_heads": 12, "intermediate_size": 1536, "max_position_embeddings": 512,
    ///     "type_vocab_size": 2}"#;
    /// assert_eq!(Bert::from_config(config)?, Bert::new(30522, 512, 384, 6, 12, 1536));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] if the text is no such JSON, for another kind of model, and, with name and value, for what is not built
    /// here: positions that are not absolute, a decoder, an activation that is not known, quantised weights, every key that is
    /// not known and says something, and sizes that no model has (more than 4096 layers), before anything is built.
    /// [`Bert::check_weights`] holds them against the weights.
    pub fn from_config(json: &str) -> Result<Self> {
        const WHAT: &str = "BERT's config.json";
        let config = Config::parse(WHAT, json)?;
        match config.text("model_type")? {
            Some("bert") => {}
            Some(other) => return config.fail(format!("model_type is `{other}`, expected `bert`")),
            None => return config.fail("the field `model_type` is missing"),
        }
        config.check(&[COMMON, KEYS])?;
        let bert = Bert::new(
            config.needed("vocab_size")?,
            config.needed("max_position_embeddings")?,
            config.needed("hidden_size")?,
            config.needed("num_hidden_layers")?,
            config.needed("num_attention_heads")?,
            config.needed("intermediate_size")?,
        );
        let bert = Bert {
            token_types: config.needed("type_vocab_size")?,
            activation: config.activation("hidden_act")?.unwrap_or(bert.activation),
            epsilon: config.number("layer_norm_eps")?.map_or(EPSILON, |epsilon| epsilon as f32),
            ..bert
        };
        bert.of_buildable_sizes(WHAT)
    }

    /// The parameter's name for the name of a tensor in a published file; `None` for what this model does not use
    /// (heads for training, the table of positions' numbers, the pooler unless it is wanted). For
    /// [`Weights::rename`](crate::nn::Weights::rename).
    pub fn parameter_name(&self, stored: &str) -> Option<String> {
        let name = stored.strip_prefix("bert.").unwrap_or(stored);
        let used = (name.starts_with("embeddings.") && !name.ends_with("position_ids"))
            || name.starts_with("encoder.")
            || (self.pooler && name.starts_with("pooler."));
        // Files from TensorFlow call a norm's weight and bias gamma and beta.
        used.then(|| name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"))
    }

    /// Padded: `ids` i32 `[B, T]`, `token_types` i32 `[B, T]` (all 0 without it), `lengths` i32 `[B]` (all T without
    /// it). No token sees those past its sequence's length; the rows of the result there mean nothing. `name` is the
    /// prefix of the parameters.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Bert};
    /// # let mut g = Graph::new();
    /// let bert = Bert { pooler: true, ..Bert::new(100, 64, 16, 1, 4, 32) };
    /// let ids = g.input("ids", DType::I32, [2, 7])?;
    /// let lengths = g.input("lengths", DType::I32, [2])?;
    /// let out = bert.build(&mut g, "", ids, None, Some(lengths))?;
    /// assert_eq!(g.shape(out.hidden), &[2, 7, 16].into());
    /// assert_eq!(out.pooled.map(|pooled| g.shape(pooled)), Some(&[2, 16].into()));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if there are more tokens than positions, if an operand is not i32 of its shape, or if the model's
    /// sizes contradict each other; [`Error::Graph`] as [`parameter`].
    pub fn build(
        &self,
        g: &mut Graph,
        name: &str,
        ids: ValueId,
        token_types: Option<ValueId>,
        lengths: Option<ValueId>,
    ) -> Result<BertOutput> {
        expect_ids(g, "bert", "ids", ids, 2)?;
        let tokens = g.shape(ids)[1];
        self.check(tokens)?;
        let table = self.position_table(g, name)?;
        let rows = if tokens == self.positions { table } else { g.slice(table, 0, 0, tokens)? };
        let x = self.embed(g, name, ids, token_types, rows)?;
        let hidden = self.encode(g, name, x, &lengths.map_or_else(Mask::none, Mask::key_lengths))?;
        let first = g.slice(hidden, 1, 0, 1)?;
        let first = g.reshape(first, [g.shape(ids)[0], self.width])?;
        Ok(BertOutput { hidden, pooled: self.pool(g, name, first)? })
    }

    /// Packed: `ids` and `token_types` i32 `[ΣT]`, sequences end to end; `offsets` i32 `[B + 1]`, where each begins,
    /// and the end. No sequence may have more tokens than [`positions`](Bert::positions): the device can't tell, and
    /// repeats the last position.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Bert};
    /// # let mut g = Graph::new();
    /// let bert = Bert::new(100, 64, 16, 1, 4, 32);
    /// let ids = g.input("ids", DType::I32, [9])?;
    /// let offsets = g.input("offsets", DType::I32, [3])?;
    /// let out = bert.build_packed(&mut g, "", ids, None, offsets)?;
    /// assert_eq!(g.shape(out.hidden), &[9, 16].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if an operand is not i32 of its shape, or if the model's sizes contradict each other;
    /// [`Error::Graph`] as [`parameter`].
    pub fn build_packed(
        &self,
        g: &mut Graph,
        name: &str,
        ids: ValueId,
        token_types: Option<ValueId>,
        offsets: ValueId,
    ) -> Result<BertOutput> {
        expect_ids(g, "bert", "ids", ids, 1)?;
        expect_ids(g, "bert", "offsets", offsets, 1)?;
        self.check(0)?;
        let (tokens, items) = (g.shape(ids)[0], g.shape(offsets)[0].saturating_sub(1));
        // A token's position: its row less the beginning of its sequence, which is the last that is not after it.
        let rows = g.constant(Tensor::new([tokens], (0..tokens as i32).collect::<Vec<_>>())?)?;
        let column = g.reshape(rows, [tokens, 1])?;
        let ends = g.slice(offsets, 0, 1, items + 1)?;
        let ended = g.binary(Binary::LessEqual, ends, column)?;
        let ended = g.cast(ended, DType::I32)?;
        let item = g.reduce(Reduce::Sum, ended, &[1], false)?;
        let begin = g.gather(offsets, item, 0)?;
        let position = g.sub(rows, begin)?;
        let table = self.position_table(g, name)?;
        let rows = g.gather(table, position, 0)?;
        let x = self.embed(g, name, ids, token_types, rows)?;
        let hidden = self.encode(g, name, x, &Mask::packed(offsets, offsets))?;
        let begins = g.slice(offsets, 0, 0, items)?;
        let first = g.gather(hidden, begins, 0)?;
        Ok(BertOutput { hidden, pooled: self.pool(g, name, first)? })
    }

    fn check(&self, tokens: usize) -> Result<()> {
        if tokens > self.positions {
            return Err(Error::op(
                "bert",
                format!("{tokens} tokens are given, the model has {} positions: shorten the sequences", self.positions),
            ));
        }
        if self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            return Err(Error::op("bert", format!("width {} is no multiple of {} heads", self.width, self.heads)));
        }
        if self.activation == Activation::SwiGlu {
            return Err(Error::op("bert", "its feed-forward blocks have no third matrix for SwiGLU"));
        }
        Ok(())
    }

    fn position_table(&self, g: &mut Graph, name: &str) -> Result<ValueId> {
        parameter(g, &join(name, "embeddings.position_embeddings.weight"), [self.positions, self.width])
    }

    fn embed(
        &self,
        g: &mut Graph,
        name: &str,
        ids: ValueId,
        token_types: Option<ValueId>,
        positions: ValueId,
    ) -> Result<ValueId> {
        let words = Embedding { entries: self.vocabulary, width: self.width };
        let words = words.build(g, &join(name, "embeddings.word_embeddings"), ids)?;
        let types = Embedding { entries: self.token_types, width: self.width };
        let types_name = join(name, "embeddings.token_type_embeddings");
        let types = match token_types {
            Some(given) if g.shape(given) != g.shape(ids) => {
                let (types, ids) = (g.shape(given), g.shape(ids));
                return Err(Error::op("bert", format!("`token_types` is {types}, expected the shape of `ids`, {ids}")));
            }
            Some(given) => types.build(g, &types_name, given)?,
            None => {
                let table = types.weight(g, &types_name)?;
                g.slice(table, 0, 0, 1)?
            }
        };
        let sum = g.add(words, types)?;
        let sum = g.add(sum, positions)?;
        self.norm(g, &join(name, "embeddings"), sum)
    }

    fn encode(&self, g: &mut Graph, name: &str, mut x: ValueId, mask: &Mask) -> Result<ValueId> {
        for i in 0..self.layers {
            x = self.layer(g, &join(name, &format!("encoder.layer.{i}")), x, mask)?;
        }
        Ok(x)
    }

    fn layer(&self, g: &mut Graph, name: &str, x: ValueId, mask: &Mask) -> Result<ValueId> {
        let linear =
            |g: &mut Graph, part: &str, x, inputs, outputs| Linear::new(inputs, outputs).build(g, &join(name, part), x);
        let (width, hidden) = (self.width, self.hidden);
        let heads = |g: &mut Graph, part: &str| {
            let y = linear(g, part, x, width, width)?;
            split(g, y, self.heads)
        };
        let q = heads(g, "attention.self.query")?;
        let k = heads(g, "attention.self.key")?;
        let v = heads(g, "attention.self.value")?;
        let attended = g.attention(q, k, v, mask.clone())?;
        let attended = merge(g, attended)?;
        let y = linear(g, "attention.output.dense", attended, width, width)?;
        let sum = g.add(y, x)?;
        let x = self.norm(g, &join(name, "attention.output"), sum)?;
        let y = linear(g, "intermediate.dense", x, width, hidden)?;
        let y = self.activation.apply(g, y)?;
        let y = linear(g, "output.dense", y, hidden, width)?;
        let sum = g.add(y, x)?;
        self.norm(g, &join(name, "output"), sum)
    }

    fn norm(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        LayerNorm { width: self.width, epsilon: self.epsilon, bias: true }.build(g, &join(name, "LayerNorm"), x)
    }

    fn pool(&self, g: &mut Graph, name: &str, first: ValueId) -> Result<Option<ValueId>> {
        if !self.pooler {
            return Ok(None);
        }
        let y = Linear::new(self.width, self.width).build(g, &join(name, "pooler.dense"), first)?;
        g.tanh(y).map(Some)
    }
}
