use super::expect_ids;
use crate::{
    Error, Graph, Result, Tensor, ValueId,
    nn::{
        Activation, Embedding, LayerNorm, Linear, RmsNorm, Rope,
        attention::{merge, split},
        cache::{Cache, Past},
        generate::{Autoregressive, Step},
        join, parameter,
    },
};

/// The way in which positions enter the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// A learned table, added to the words (GPT-2).
    Learned,
    /// Queries and keys turn by their positions (Su et al., 2021).
    Rotary(Rope),
}

/// The norm before each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Layer norm (GPT-2).
    Layer,
    /// RMS norm (Llama).
    Rms,
}

/// The linear layers that have biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Biases {
    /// None (Llama).
    None,
    /// Those of queries, keys and values (Qwen2).
    Queries,
    /// All, and the layer norms (GPT-2).
    All,
}

/// The layers that have a window; the others see all that is before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Windowed {
    /// All of them.
    #[default]
    All,
    /// Those from this one on (`max_window_layers`; Qwen2).
    From(usize),
    /// All but every so many-th: the last of each so many (`sliding_window_pattern`; Gemma).
    AllButEvery(usize),
    /// Those that are true; an entry for each layer (`layer_types`).
    Listed(Vec<bool>),
}

impl Windowed {
    /// Whether this layer, counted from 0, has it.
    pub fn has(&self, layer: usize) -> bool {
        match self {
            Windowed::All => true,
            Windowed::From(first) => layer >= *first,
            Windowed::AllButEvery(pattern) => !(layer + 1).is_multiple_of(*pattern),
            Windowed::Listed(list) => list.get(layer).copied().unwrap_or(false),
        }
    }

    /// Whether all of so many layers have it.
    pub(super) fn is_all(&self, layers: usize) -> bool {
        match self {
            Windowed::All => true,
            Windowed::From(first) => *first == 0 || layers == 0,
            Windowed::AllButEvery(pattern) => *pattern > layers,
            Windowed::Listed(list) => list.iter().all(|&has| has),
        }
    }

    /// Whether none of so many layers has it.
    pub(super) fn is_none(&self, layers: usize) -> bool {
        match self {
            Windowed::All => layers == 0,
            Windowed::From(first) => *first >= layers,
            Windowed::AllButEvery(pattern) => *pattern == 1 || layers == 0,
            Windowed::Listed(list) => !list.contains(&true),
        }
    }
}

/// The names of the parameters, and the layout of their matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GptNames {
    /// `wte`, `wpe`, `h.N.ln_1`, `h.N.attn.{c_attn,c_proj}`, `h.N.ln_2`, `h.N.mlp.{c_fc,c_proj}`, `ln_f`, `lm_head`, as in
    /// Hugging Face's `GPT2LMHeadModel`. Queries, keys and values are one matrix, and matrices are `[in, out]`. A SwiGLU has its
    /// gate in `mlp.c_gate`.
    Gpt2,
    /// `model.embed_tokens`, `model.layers.N.{input_layernorm,post_attention_layernorm}`, `.self_attn.{q,k,v,o}_proj`,
    /// `.mlp.{gate,up,down}_proj`, `model.norm`, `lm_head`, as in Hugging Face's `LlamaForCausalLM`. Matrices are `[out, in]`. A
    /// learned table of positions is `model.embed_positions`.
    Llama,
}

/// A decoder-only Transformer, pre-norm: GPT-2, Llama and what lies between, by options.
///
/// ```text
/// x = words[ids] (+ positions)
/// x = x + out(attention(norm(x)))        causal, heads grouped or not, q and k rotated or not
/// x = x + down(activation(up(norm(x))))  or down(silu(gate(norm(x))) · up(norm(x)))
/// logits = norm(x) · headᵀ               head = words if tied
/// ```
///
/// [`Generator`](crate::nn::generate::Generator) decodes with it; [`Gpt::build`] computes all tokens at once.
///
/// Radford et al., 2019; Touvron et al., 2023; Ainslie et al., 2023 (grouped heads); Shazeer, 2020 (SwiGLU).
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt {
    /// Words of the vocabulary.
    pub vocabulary: usize,
    /// The most tokens of a sequence.
    pub positions: usize,
    /// Features of a token.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; `heads` is a multiple.
    pub key_heads: usize,
    /// Features of a head.
    pub head_width: usize,
    /// Features inside the feed-forward blocks.
    pub hidden: usize,
    /// The way in which positions enter the model.
    pub position: Positions,
    /// The norm before each block.
    pub norm: Norm,
    /// ε of the norms.
    pub epsilon: f32,
    /// The function inside the feed-forward blocks.
    pub activation: Activation,
    /// The linear layers that have biases.
    pub biases: Biases,
    /// Whether the output layer is the table of words.
    pub tied: bool,
    /// Tokens that a token sees, itself among them; `None` is all up to itself.
    pub window: Option<usize>,
    /// The layers that have the window.
    pub windowed: Windowed,
    /// Rotary positions of the layers with the window, if they are others than those of the rest.
    pub local: Option<Rope>,
    /// The names of the parameters.
    pub names: GptNames,
}

impl Gpt {
    /// GPT-2's choices with these sizes.
    pub fn gpt2(vocabulary: usize, positions: usize, width: usize, layers: usize, heads: usize) -> Self {
        Gpt {
            vocabulary,
            positions,
            width,
            layers,
            heads,
            key_heads: heads,
            head_width: width.checked_div(heads).unwrap_or(0),
            hidden: width.saturating_mul(4),
            position: Positions::Learned,
            norm: Norm::Layer,
            epsilon: 1e-5,
            activation: Activation::GeluTanh,
            biases: Biases::All,
            tied: true,
            window: None,
            windowed: Windowed::All,
            local: None,
            names: GptNames::Gpt2,
        }
    }

    /// Llama's choices with these sizes, and a key head for each query head.
    pub fn llama(
        vocabulary: usize,
        positions: usize,
        width: usize,
        layers: usize,
        heads: usize,
        hidden: usize,
    ) -> Self {
        Gpt {
            hidden,
            position: Positions::Rotary(Rope::new(10_000.0)),
            norm: Norm::Rms,
            activation: Activation::SwiGlu,
            biases: Biases::None,
            tied: false,
            names: GptNames::Llama,
            ..Gpt::gpt2(vocabulary, positions, width, layers, heads)
        }
    }

    /// All tokens at once: `ids` i32 `[B, T]` → logits `[B, T, V]`; row t is about token t + 1. A token sees none after
    /// it, so that padding behind a sequence changes nothing before it.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::Gpt};
    /// # let mut g = Graph::new();
    /// let ids = g.input("ids", DType::I32, [2, 7])?;
    /// let logits = Gpt::llama(50, 64, 16, 2, 4, 32).build(&mut g, ids)?;
    /// assert_eq!(g.shape(logits), &[2, 7, 50].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if `ids` are not i32 `[B, T]`, if there are more tokens than positions, or if the model's sizes
    /// contradict each other (heads that key heads can't share, rotary positions of an odd width, a window of 0, a list of
    /// windowed layers that is not one entry a layer);
    /// [`Error::Graph`] as [`parameter`].
    pub fn build(&self, g: &mut Graph, ids: ValueId) -> Result<ValueId> {
        expect_ids(g, "gpt", "ids", ids, 2)?;
        let (items, tokens) = (g.shape(ids)[0], g.shape(ids)[1]);
        if tokens > self.positions {
            return Err(Error::op(
                "gpt",
                format!("{tokens} tokens are given, the model has {} positions: shorten the sequences", self.positions),
            ));
        }
        let positions = g.constant(Tensor::new([tokens], (0..tokens as i32).collect::<Vec<_>>())?)?;
        let positions = g.broadcast(positions, [items, tokens])?;
        let x = self.decode(g, ids, positions, Past::None)?;
        self.logits(g, x)
    }

    fn decode(&self, g: &mut Graph, ids: ValueId, positions: ValueId, past: Past<'_>) -> Result<ValueId> {
        self.check()?;
        let words = self.words().build(g, self.root("wte", "model.embed_tokens"), ids)?;
        let mut tables = None;
        let mut x = words;
        match self.position {
            Positions::Learned => {
                let table = Embedding { entries: self.positions, width: self.width };
                let rows = table.build(g, self.root("wpe", "model.embed_positions"), positions)?;
                x = g.add(words, rows)?;
            }
            Positions::Rotary(rope) => {
                // What is cached was turned by the frequencies of a sequence's beginning.
                let (rows, tokens) = match past {
                    Past::None => (g.shape(ids)[1], g.shape(ids)[1]),
                    Past::Cache(_) => (Autoregressive::positions(self), 0),
                };
                let own = rope.tables(g, self.head_width, rows, tokens)?;
                let local = match self.local {
                    Some(local) => local.tables(g, self.head_width, rows, tokens)?,
                    None => own,
                };
                tables = Some([own, local]);
            }
        }
        for i in 0..self.layers {
            let name = format!("{}.{i}", self.root("h", "model.layers"));
            let window = self.window_of(i);
            let turn = tables.map(|[own, local]| (if window.is_some() { local } else { own }, positions));
            let normed = self.norm(g, &join(&name, self.root("ln_1", "input_layernorm")), x)?;
            let y = self.attention(g, &join(&name, self.root("attn", "self_attn")), normed, turn, (past, window))?;
            x = g.add(x, y)?;
            let normed = self.norm(g, &join(&name, self.root("ln_2", "post_attention_layernorm")), x)?;
            let y = self.feed_forward(g, &join(&name, "mlp"), normed)?;
            x = g.add(x, y)?;
        }
        self.norm(g, self.root("ln_f", "model.norm"), x)
    }

    /// The window of a layer, if it has one.
    fn window_of(&self, layer: usize) -> Option<usize> {
        self.window.filter(|_| self.windowed.has(layer))
    }

    fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::op("gpt", message));
        let Gpt { heads, key_heads, head_width, .. } = *self;
        let features = |heads: usize| heads.checked_mul(head_width).filter(|&all| all <= i32::MAX as usize / 4);
        if features(heads).is_none() || features(key_heads).is_none() {
            return fail(format!(
                "{heads} and {key_heads} heads of {head_width} features are more than an axis can have"
            ));
        }
        if heads == 0 || key_heads == 0 || head_width == 0 || heads % key_heads != 0 {
            return fail(format!("{heads} heads of {head_width} features can't share {key_heads} key heads"));
        }
        if let Positions::Rotary(rope) = self.position {
            rope.check(head_width)?;
        }
        if let Some(local) = self.local {
            if matches!(self.position, Positions::Learned) {
                return fail("layers with a window have rotary positions, the others learned ones".into());
            }
            local.check(head_width)?;
        }
        if let Windowed::Listed(list) = &self.windowed
            && list.len() != self.layers
        {
            return fail(format!("{} layers are listed as windowed or not, there are {}", list.len(), self.layers));
        }
        if self.windowed == Windowed::AllButEvery(0) {
            return fail("every 0th layer sees all: expected at least every 1st".into());
        }
        if self.window == Some(0) {
            return fail("a window of 0 tokens hides a token from itself: expected at least 1, or None".into());
        }
        Ok(())
    }

    fn words(&self) -> Embedding {
        Embedding { entries: self.vocabulary, width: self.width }
    }

    fn root(&self, gpt2: &'static str, llama: &'static str) -> &'static str {
        match self.names {
            GptNames::Gpt2 => gpt2,
            GptNames::Llama => llama,
        }
    }

    fn linear(
        &self,
        g: &mut Graph,
        name: &str,
        x: ValueId,
        [inputs, outputs]: [usize; 2],
        bias: bool,
    ) -> Result<ValueId> {
        match self.names {
            GptNames::Llama => Linear { inputs, outputs, bias }.build(g, name, x),
            GptNames::Gpt2 => {
                let weight = parameter(g, &join(name, "weight"), [inputs, outputs])?;
                let product = g.matmul(x, weight)?;
                if !bias {
                    return Ok(product);
                }
                let bias = parameter(g, &join(name, "bias"), [outputs])?;
                g.add(product, bias)
            }
        }
    }

    fn norm(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        let (width, epsilon) = (self.width, self.epsilon);
        match self.norm {
            Norm::Layer => LayerNorm { width, epsilon, bias: self.biases == Biases::All }.build(g, name, x),
            Norm::Rms => RmsNorm { width, epsilon }.build(g, name, x),
        }
    }

    fn attention(
        &self,
        g: &mut Graph,
        name: &str,
        x: ValueId,
        turn: Option<([ValueId; 2], ValueId)>,
        (past, window): (Past<'_>, Option<usize>),
    ) -> Result<ValueId> {
        let (queries, keys) = (self.heads * self.head_width, self.key_heads * self.head_width);
        let bias = self.biases != Biases::None;
        let [q, k, v] = match self.names {
            GptNames::Gpt2 => {
                let all = self.linear(g, &join(name, "c_attn"), x, [self.width, queries + 2 * keys], bias)?;
                let mut part = |from, to| g.slice(all, -1, from, to);
                [part(0, queries)?, part(queries, queries + keys)?, part(queries + keys, queries + 2 * keys)?]
            }
            GptNames::Llama => {
                let mut part = |kind, size| self.linear(g, &join(name, kind), x, [self.width, size], bias);
                [part("q_proj", queries)?, part("k_proj", keys)?, part("v_proj", keys)?]
            }
        };
        let mut q = split(g, q, self.heads)?;
        let mut k = split(g, k, self.key_heads)?;
        let v = split(g, v, self.key_heads)?;
        if let Some((tables, positions)) = turn {
            q = g.rotary(q, tables, positions, false)?;
            k = g.rotary(k, tables, positions, false)?;
        }
        let y = past.attend(g, name, [q, k, v], window)?;
        let y = merge(g, y)?;
        let out = join(name, self.root("c_proj", "o_proj"));
        self.linear(g, &out, y, [queries, self.width], self.biases == Biases::All)
    }

    fn feed_forward(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        let bias = self.biases == Biases::All;
        let sizes = [self.width, self.hidden];
        let up = self.linear(g, &join(name, self.root("c_fc", "up_proj")), x, sizes, bias)?;
        let inner = if self.activation == Activation::SwiGlu {
            let gate = self.linear(g, &join(name, self.root("c_gate", "gate_proj")), x, sizes, bias)?;
            let gate = self.activation.apply(g, gate)?;
            g.mul(gate, up)?
        } else {
            self.activation.apply(g, up)?
        };
        self.linear(g, &join(name, self.root("c_proj", "down_proj")), inner, [self.hidden, self.width], bias)
    }
}

impl Autoregressive for Gpt {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// As many as all turn by the same frequencies.
    fn positions(&self) -> usize {
        let ropes = match self.position {
            Positions::Learned => [None, None],
            Positions::Rotary(rope) => [Some(rope), self.local],
        };
        let steady = ropes.into_iter().flatten().filter_map(|rope| rope.steady());
        steady.chain([self.positions]).min().unwrap_or_default()
    }

    /// That of all layers.
    fn window(&self) -> Option<usize> {
        self.window.filter(|_| self.windowed.is_all(self.layers))
    }

    fn step(&self, g: &mut Graph, step: &Step) -> Result<ValueId> {
        let cache: &Cache = &step.cache;
        self.decode(g, step.ids, cache.positions(), Past::Cache(cache))
    }

    fn logits(&self, g: &mut Graph, x: ValueId) -> Result<ValueId> {
        let table = if self.tied {
            self.words().weight(g, self.root("wte", "model.embed_tokens"))?
        } else {
            parameter(g, "lm_head.weight", [self.vocabulary, self.width])?
        };
        g.linear(x, table, None)
    }
}
