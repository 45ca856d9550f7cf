use super::{AttentionMasks, Cache, Dropout, LayerNorm, Linear, Memory, MultiheadAttention, join};
use crate::{Graph, Result, ValueId, graph::Unary};

/// The function between the two linear layers of a feed-forward block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0)
    #[default]
    Relu,
    /// x·Φ(x)
    Gelu,
    /// gelu's tanh form
    GeluTanh,
    /// x·sigmoid(x)
    Silu,
    /// `silu(W₁x) · W₃x`, with a third matrix `linear3` (Shazeer, 2020).
    SwiGlu,
}

impl Activation {
    /// The function of each element; of [`Activation::SwiGlu`] that on its gate.
    pub(super) fn apply(self, g: &mut Graph, x: ValueId) -> Result<ValueId> {
        g.unary(
            match self {
                Activation::Relu => Unary::Relu,
                Activation::Gelu => Unary::Gelu,
                Activation::GeluTanh => Unary::GeluTanh,
                Activation::Silu | Activation::SwiGlu => Unary::Silu,
            },
            x,
        )
    }
}

/// `linear2(activation(linear1(x)))`: the same for each token, so sequences of any length pass through it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeedForward {
    /// Features of x and of the result.
    pub width: usize,
    /// Features between the two.
    pub hidden: usize,
    /// The function between the two.
    pub activation: Activation,
    /// Whether the linear layers have biases.
    pub bias: bool,
    /// Dropout before `linear2`.
    pub dropout: Option<Dropout>,
}

impl FeedForward {
    /// Adds the block to a graph: `x [B, T, width]` → the same shape. Its parameters are `linear1`, `linear2` (and
    /// `linear3`) behind `name`.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::{Activation, FeedForward}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 5, 16])?;
    /// let block = FeedForward { width: 16, hidden: 64, activation: Activation::SwiGlu, bias: false, dropout: None };
    /// let y = block.build(&mut g, "mlp", x)?;
    /// assert_eq!(g.shape(y), &[2, 5, 16].into());
    /// let names: Vec<&str> = g.parameters().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["mlp.linear1.weight", "mlp.linear3.weight", "mlp.linear2.weight"]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`](crate::Error::Op) if `x` is not f32 `[…, width]`; [`Error::Graph`](crate::Error::Graph) as
    /// [`parameter`](super::parameter).
    pub fn build(&self, g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
        let up = Linear { inputs: self.width, outputs: self.hidden, bias: self.bias };
        let down = Linear { inputs: self.hidden, outputs: self.width, bias: self.bias };
        let hidden = up.build(g, &join(name, "linear1"), x)?;
        let mut hidden = self.activation.apply(g, hidden)?;
        if self.activation == Activation::SwiGlu {
            let value = up.build(g, &join(name, "linear3"), x)?;
            hidden = g.mul(hidden, value)?;
        }
        g.trace(&join(name, "activation"), hidden)?;
        let hidden = Dropout::maybe(self.dropout, g, &join(name, "dropout"), hidden)?;
        down.build(g, &join(name, "linear2"), hidden)
    }
}

macro_rules! layer {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name {
            /// Features of a token (`d_model`).
            pub width: usize,
            /// Heads (`nhead`).
            pub heads: usize,
            /// Features inside the feed-forward block (`dim_feedforward`).
            pub hidden: usize,
            /// The function inside the feed-forward block.
            pub activation: Activation,
            /// Norm before each block instead of after its residual (`norm_first`).
            pub norm_first: bool,
            /// ε of the norms (`layer_norm_eps`).
            pub epsilon: f32,
            /// Whether linear layers and norms have biases.
            pub bias: bool,
            /// Operands are `[B, T, E]`; otherwise `[T, B, E]`.
            pub batch_first: bool,
            /// Dropout behind each block and inside the feed-forward block (`dropout`), to train; attention's weights are not dropped.
            pub dropout: Option<Dropout>,
            $($(#[$field_doc])* pub $field: $ty,)*
        }

        impl $name {
            /// PyTorch's defaults (post-norm, relu), but batch first, and without dropout.
            pub fn new(width: usize, heads: usize, hidden: usize) -> Self {
                $name {
                    width,
                    heads,
                    hidden,
                    activation: Activation::Relu,
                    norm_first: false,
                    epsilon: 1e-5,
                    bias: true,
                    batch_first: true,
                    dropout: None,
                    $($field: $default,)*
                }
            }

            fn attention(&self) -> MultiheadAttention {
                let mut attention = MultiheadAttention::new(self.width, self.heads);
                (attention.bias, attention.batch_first) = (self.bias, self.batch_first);
                attention
            }

            fn feed_forward(&self) -> FeedForward {
                FeedForward {
                    width: self.width,
                    hidden: self.hidden,
                    activation: self.activation,
                    bias: self.bias,
                    dropout: self.dropout,
                }
            }

            /// `norm(x + block(x))`, or `x + block(norm(x))` with the norm first. Norm and dropout are
            /// the `number`-th of the layer `name`.
            fn residual(
                &self,
                g: &mut Graph,
                (name, number): (&str, usize),
                x: ValueId,
                block: impl FnOnce(&mut Graph, ValueId) -> Result<ValueId>,
            ) -> Result<ValueId> {
                let [norm, dropout] = ["norm", "dropout"].map(|part| join(name, &format!("{part}{number}")));
                let layer = LayerNorm { width: self.width, epsilon: self.epsilon, bias: self.bias };
                if self.norm_first {
                    let normed = layer.build(g, &norm, x)?;
                    let y = block(g, normed)?;
                    let y = Dropout::maybe(self.dropout, g, &dropout, y)?;
                    g.add(x, y)
                } else {
                    let y = block(g, x)?;
                    let y = Dropout::maybe(self.dropout, g, &dropout, y)?;
                    let sum = g.add(x, y)?;
                    layer.build(g, &norm, sum)
                }
            }
        }
    };
}

layer! {
    /// `torch.nn.TransformerEncoderLayer`: self-attention, then a feed-forward block, each with a residual and a norm.
    EncoderLayer {}
}

impl EncoderLayer {
    /// Adds the layer to a graph: `x [B, T, E]` → the same shape. `name` is the prefix of its parameters.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, graph::Mask, nn::EncoderLayer};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 5, 16])?;
    /// let lengths = g.input("lengths", DType::I32, [2])?;
    /// let y = EncoderLayer::new(16, 4, 64).build(&mut g, "layer", x, &Mask::key_lengths(lengths).into())?;
    /// assert_eq!(g.shape(y), &[2, 5, 16].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`MultiheadAttention::build`], [`FeedForward::build`] and [`LayerNorm::build`].
    pub fn build(&self, g: &mut Graph, name: &str, x: ValueId, masks: &AttentionMasks) -> Result<ValueId> {
        let x = self
            .residual(g, (name, 1), x, |g, x| self.attention().build(g, &join(name, "self_attn"), [x, x, x], masks))?;
        let y = self.residual(g, (name, 2), x, |g, x| self.feed_forward().build(g, name, x))?;
        g.trace(name, y)
    }
}

layer! {
    /// `torch.nn.TransformerDecoderLayer`: self-attention over the target, **encoder–decoder attention** whose queries come
    /// from the target and whose keys and values come from the encoder's output, then a feed-forward block. Target and memory
    /// may differ in length and in width.
    DecoderLayer {
        /// Features of the memory; `None` is the width of the target, as PyTorch has it.
        memory_width: Option<usize> = None,
    }
}

impl DecoderLayer {
    /// Adds the layer to a graph: target `x [B, T, E]` and `memory [B, S, memory width]` → `[B, T, E]`. `masks` are
    /// those of the self-attention (causal, as a rule), `memory_masks` those over the memory.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, graph::{Align, Mask}, nn::{AttentionMasks, DecoderLayer}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 5, 16])?;
    /// let memory = g.input("memory", DType::F32, [2, 7, 16])?;
    /// let (causal, all) = (Mask::causal(Align::TopLeft).into(), AttentionMasks::default());
    /// let y = DecoderLayer::new(16, 4, 64).build(&mut g, "layer", x, memory, &causal, &all)?;
    /// assert_eq!(g.shape(y), &[2, 5, 16].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`MultiheadAttention::build`], [`FeedForward::build`] and [`LayerNorm::build`].
    pub fn build(
        &self,
        g: &mut Graph,
        name: &str,
        x: ValueId,
        memory: ValueId,
        masks: &AttentionMasks,
        memory_masks: &AttentionMasks,
    ) -> Result<ValueId> {
        self.blocks(
            g,
            name,
            x,
            |g, x| self.attention().build(g, &join(name, "self_attn"), [x, x, x], masks),
            |g, x| self.cross().build(g, &join(name, "multihead_attn"), [x, memory, memory], memory_masks),
        )
    }

    fn cross(&self) -> MultiheadAttention {
        MultiheadAttention { key_width: self.memory_width, value_width: self.memory_width, ..self.attention() }
    }

    fn blocks(
        &self,
        g: &mut Graph,
        name: &str,
        x: ValueId,
        own: impl FnOnce(&mut Graph, ValueId) -> Result<ValueId>,
        cross: impl FnOnce(&mut Graph, ValueId) -> Result<ValueId>,
    ) -> Result<ValueId> {
        let x = self.residual(g, (name, 1), x, own)?;
        let x = self.residual(g, (name, 2), x, cross)?;
        let y = self.residual(g, (name, 3), x, |g, x| self.feed_forward().build(g, name, x))?;
        g.trace(name, y)
    }

    /// The layer for the tokens of one step, over a cache and the keys and values of a memory.
    fn step(&self, g: &mut Graph, name: &str, x: ValueId, cache: &Cache, memory: &Memory) -> Result<ValueId> {
        self.blocks(
            g,
            name,
            x,
            |g, x| self.attention().build_cached(g, &join(name, "self_attn"), x, cache),
            |g, x| {
                let name = join(name, "multihead_attn");
                let keys = memory.recall(g, &name, [self.heads, self.width.checked_div(self.heads).unwrap_or(0)])?;
                self.cross().build_over(g, &name, x, keys, memory.mask())
            },
        )
    }
}

/// `torch.nn.TransformerEncoder`: layers `layers.0`, `layers.1`, … and a last norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Encoder {
    /// Each layer.
    pub layer: EncoderLayer,
    /// The number of layers.
    pub layers: usize,
    /// Whether `norm` stands behind the last.
    pub final_norm: bool,
}

impl Encoder {
    /// Adds the stack to a graph: `x [B, T, E]` → the same shape. `name` is the prefix of its parameters.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, nn::{AttentionMasks, Encoder, EncoderLayer}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 5, 16])?;
    /// let encoder = Encoder { layer: EncoderLayer::new(16, 4, 64), layers: 2, final_norm: true };
    /// let y = encoder.build(&mut g, "encoder", x, &AttentionMasks::default())?;
    /// assert_eq!(g.traced("encoder.norm"), Some(y));
    /// assert!(g.find("encoder.layers.1.self_attn.in_proj_weight").is_some());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`EncoderLayer::build`].
    pub fn build(&self, g: &mut Graph, name: &str, mut x: ValueId, masks: &AttentionMasks) -> Result<ValueId> {
        for i in 0..self.layers {
            x = self.layer.build(g, &join(name, &format!("layers.{i}")), x, masks)?;
        }
        if self.final_norm {
            x = final_norm(g, name, x, self.layer.width, self.layer.epsilon, self.layer.bias)?;
        }
        g.trace(name, x)
    }
}

/// `torch.nn.TransformerDecoder`: layers `layers.0`, `layers.1`, … and a last norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decoder {
    /// Each layer.
    pub layer: DecoderLayer,
    /// The number of layers.
    pub layers: usize,
    /// Whether `norm` stands behind the last.
    pub final_norm: bool,
}

impl Decoder {
    /// Adds the stack to a graph: `x [B, T, E]` → the same shape; every layer attends to the same `memory`. `name` is
    /// the prefix of its parameters.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, graph::{Align, Mask}, nn::{AttentionMasks, Decoder, DecoderLayer}};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 5, 16])?;
    /// let memory = g.input("memory", DType::F32, [2, 7, 16])?;
    /// let (causal, all) = (Mask::causal(Align::TopLeft).into(), AttentionMasks::default());
    /// let decoder = Decoder { layer: DecoderLayer::new(16, 4, 64), layers: 2, final_norm: false };
    /// let y = decoder.build(&mut g, "decoder", x, memory, &causal, &all)?;
    /// assert_eq!(g.traced("decoder.layers.1"), Some(y));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`DecoderLayer::build`].
    pub fn build(
        &self,
        g: &mut Graph,
        name: &str,
        mut x: ValueId,
        memory: ValueId,
        masks: &AttentionMasks,
        memory_masks: &AttentionMasks,
    ) -> Result<ValueId> {
        for i in 0..self.layers {
            x = self.layer.build(g, &join(name, &format!("layers.{i}")), x, memory, masks, memory_masks)?;
        }
        if self.final_norm {
            x = final_norm(g, name, x, self.layer.width, self.layer.epsilon, self.layer.bias)?;
        }
        g.trace(name, x)
    }
}

impl Decoder {
    /// Keeps each layer's keys and values of the encoder's output.
    pub(super) fn remember(&self, g: &mut Graph, name: &str, encoded: ValueId, memory: &Memory) -> Result<()> {
        for i in 0..self.layers {
            let name = join(name, &format!("layers.{i}.multihead_attn"));
            let keys = self.layer.cross().keys_and_values(g, &name, encoded)?;
            memory.keep(g, &name, keys)?;
        }
        Ok(())
    }

    /// The stack for the tokens of one step, over a cache and a memory.
    pub(super) fn step(
        &self,
        g: &mut Graph,
        name: &str,
        mut x: ValueId,
        cache: &Cache,
        memory: &Memory,
    ) -> Result<ValueId> {
        for i in 0..self.layers {
            x = self.layer.step(g, &join(name, &format!("layers.{i}")), x, cache, memory)?;
        }
        let DecoderLayer { width, epsilon, bias, .. } = self.layer;
        if self.final_norm { final_norm(g, name, x, width, epsilon, bias) } else { Ok(x) }
    }
}

fn final_norm(g: &mut Graph, name: &str, x: ValueId, width: usize, epsilon: f32, bias: bool) -> Result<ValueId> {
    LayerNorm { width, epsilon, bias }.build(g, &join(name, "norm"), x)
}

/// `torch.nn.Transformer`: an encoder over the source and a decoder over the target, each with a last norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transformer {
    /// The encoder.
    pub encoder: Encoder,
    /// The decoder.
    pub decoder: Decoder,
}

impl Transformer {
    /// PyTorch's arrangement: one width, the same layer everywhere.
    pub fn new(layer: EncoderLayer, encoder_layers: usize, decoder_layers: usize) -> Self {
        let EncoderLayer { width, heads, hidden, activation, norm_first, epsilon, bias, batch_first, dropout } = layer;
        let decoder = DecoderLayer {
            width,
            heads,
            hidden,
            activation,
            norm_first,
            epsilon,
            bias,
            batch_first,
            dropout,
            memory_width: None,
        };
        Transformer {
            encoder: Encoder { layer, layers: encoder_layers, final_norm: true },
            decoder: Decoder { layer: decoder, layers: decoder_layers, final_norm: true },
        }
    }

    /// Adds both stacks to a graph: source `[B, S, E]`, target `[B, T, E]` → `[B, T, E]`. Their parameters are under
    /// `encoder` and `decoder` behind `name`.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, graph::{Align, Mask}, nn::{AttentionMasks, EncoderLayer, Transformer}};
    /// # let mut g = Graph::new();
    /// let source = g.input("source", DType::F32, [2, 7, 16])?;
    /// let target = g.input("target", DType::F32, [2, 5, 16])?;
    /// let (all, causal) = (AttentionMasks::default(), Mask::causal(Align::TopLeft).into());
    /// let model = Transformer::new(EncoderLayer::new(16, 4, 64), 1, 1);
    /// let y = model.build(&mut g, "", [source, target], &all, &causal, &all)?;
    /// assert_eq!(g.shape(y), &[2, 5, 16].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`EncoderLayer::build`] and [`DecoderLayer::build`].
    pub fn build(
        &self,
        g: &mut Graph,
        name: &str,
        [source, target]: [ValueId; 2],
        source_masks: &AttentionMasks,
        target_masks: &AttentionMasks,
        memory_masks: &AttentionMasks,
    ) -> Result<ValueId> {
        let memory = self.encoder.build(g, &join(name, "encoder"), source, source_masks)?;
        let y = self.decoder.build(g, &join(name, "decoder"), target, memory, target_masks, memory_masks)?;
        g.trace(name, y)
    }
}
