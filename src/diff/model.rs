//! Models described in a few lines of JSON, built with the layers of [`nn`](crate::nn).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Diff, Padding, Report, names::quoted};
use crate::{
    DType, Error, Graph, Result, Tensor, ValueId, fields,
    graph::{Align, Mask},
    nn::{
        Activation, AttentionMasks, Decoder, DecoderLayer, Encoder, EncoderLayer, FEATURES, HEADS, LAYERS,
        MultiheadAttention, Transformer, check_sizes,
    },
};

/// A model as PyTorch's `nn` has it, and what its dump is called.
///
/// ```json
/// {"model": "decoder_layer", "width": 20, "heads": 4, "hidden": 80, "memory_width": 12, "causal": true}
/// ```
///
/// Inputs have the names of PyTorch's arguments and are taken from the dump, those in brackets if they are there:
///
/// | model | inputs |
/// |---|---|
/// | `multihead_attention` | `query` (`key`, `value`: else the query; `attn_mask`, `key_padding_mask`, `key_lengths`) |
/// | `encoder_layer`, `encoder` | `src` (`src_mask`, `src_key_padding_mask`, `src_lengths`) |
/// | `decoder_layer`, `decoder` | `tgt`, `memory` (`tgt_mask`, `memory_mask`, …`_key_padding_mask`, …`_lengths`) |
/// | `transformer` | `src`, `tgt` (all of the masks above) |
///
/// Masks are in PyTorch's polarity: true may not be seen, floats are added. Lengths are i32 `[B]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What it is.
    pub model: ModelKind,
    /// Features of a token (`d_model`, `embed_dim`).
    pub width: usize,
    /// Heads (`nhead`).
    pub heads: usize,
    /// Features inside the feed-forward block (`dim_feedforward`); default 2048.
    #[serde(default = "hidden")]
    pub hidden: usize,
    /// Layers of an encoder or a decoder (`num_layers`); default 6.
    #[serde(default = "six")]
    pub layers: usize,
    /// Encoder layers of a transformer; default 6.
    #[serde(default = "six")]
    pub encoder_layers: usize,
    /// Decoder layers of a transformer; default 6.
    #[serde(default = "six")]
    pub decoder_layers: usize,
    /// Features of the memory (of keys and values), if others than `width` (`kdim`, `vdim`).
    #[serde(default)]
    pub memory_width: Option<usize>,
    /// The function inside the feed-forward block; default relu.
    #[serde(default)]
    pub activation: ActivationKind,
    /// Norm before each block; default false.
    #[serde(default)]
    pub norm_first: bool,
    /// ε of the norms (`layer_norm_eps`); default 1e-5.
    #[serde(default = "epsilon")]
    pub epsilon: f32,
    /// Whether linear layers and norms have biases; default true.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Operands are `[B, T, E]`; default true (PyTorch's is false).
    #[serde(default = "yes")]
    pub batch_first: bool,
    /// Whether a stack ends with a norm; default: only a transformer's do.
    #[serde(default)]
    pub final_norm: Option<bool>,
    /// Whether self-attention is causal (`is_causal`, `tgt_is_causal`): the decoder's, or the only one; default false.
    #[serde(default)]
    pub causal: bool,
    /// What stands before the names of weights and modules, as `model.decoder`; default nothing.
    #[serde(default)]
    pub prefix: String,
}

/// What a [`Model`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// `nn.MultiheadAttention`
    MultiheadAttention,
    /// `nn.TransformerEncoderLayer`
    EncoderLayer,
    /// `nn.TransformerDecoderLayer`
    DecoderLayer,
    /// `nn.TransformerEncoder`
    Encoder,
    /// `nn.TransformerDecoder`
    Decoder,
    /// `nn.Transformer`
    Transformer,
}

/// [`Activation`], by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationKind {
    /// [`Activation::Relu`]
    #[default]
    Relu,
    /// [`Activation::Gelu`]
    Gelu,
    /// [`Activation::GeluTanh`]
    GeluTanh,
    /// [`Activation::Silu`]
    Silu,
    /// [`Activation::SwiGlu`]
    Swiglu,
}

fn hidden() -> usize {
    2048
}

fn six() -> usize {
    6
}

fn epsilon() -> f32 {
    1e-5
}

fn yes() -> bool {
    true
}

/// A graph whose inputs come from a dump.
struct Inputs<'a> {
    g: Graph,
    dump: &'a BTreeMap<String, Tensor>,
    padding: Vec<Padding>,
    batch_first: bool,
}

impl Inputs<'_> {
    fn optional(&mut self, name: &str) -> Result<Option<ValueId>> {
        let Some(tensor) = self.dump.get(name) else { return Ok(None) };
        // Halves are computed with in f32, as everything here.
        let dtype = if tensor.dtype().is_float() { DType::F32 } else { tensor.dtype() };
        self.g.input(name, dtype, tensor.shape()).map(Some)
    }

    fn required(&mut self, name: &str) -> Result<ValueId> {
        self.optional(name)?.ok_or_else(|| {
            let near = super::names::hint(name, self.dump.keys().map(String::as_str));
            let found = quoted(self.dump.keys().map(String::as_str));
            Error::Binding(format!("the model's input `{name}` is not in the dump{near}\nfound: {found}"))
        })
    }

    fn masks(&mut self, name: &str, causal: bool, prefix: &str) -> Result<AttentionMasks> {
        let all = if causal { Mask::causal(Align::TopLeft) } else { Mask::none() };
        let [mask, padding, lengths] = match name {
            "" => ["attn_mask", "key_padding_mask", "key_lengths"].map(String::from),
            name => ["mask", "key_padding_mask", "lengths"].map(|part| format!("{name}_{part}")),
        };
        let mut masks =
            AttentionMasks { attn_mask: self.optional(&mask)?, key_padding_mask: self.optional(&padding)?, mask: all };
        if let Some(tensor) = self.dump.get(&padding) {
            let hidden = |x: &f64| if tensor.dtype() == DType::Bool { *x != 0.0 } else { *x == f64::NEG_INFINITY };
            self.pad(&padding, tensor.shape(), tensor.to_f64().iter().map(hidden).collect(), prefix);
        }
        if let Some(value) = self.optional(&lengths)? {
            masks.mask = masks.mask & Mask::key_lengths(value);
        }
        Ok(masks)
    }

    fn pad(&mut self, name: &str, sizes: &[usize], rows: Vec<bool>, prefix: &str) {
        if let [items, positions] = *sizes {
            let (name, prefix, batch_first) = (name.to_string(), prefix.to_string(), self.batch_first);
            self.padding.push(Padding { name, prefix, sizes: [items, positions], rows, batch_first });
        }
    }

    /// Padding by lengths, for a sequence of this shape.
    fn pad_by_lengths(&mut self, name: &str, of: ValueId, prefix: &str) {
        let shape = self.g.shape(of).clone();
        let [a, b, _] = shape[..] else { return };
        let [items, positions] = if self.batch_first { [a, b] } else { [b, a] };
        if let Some(lengths) = self.dump.get(name).and_then(Tensor::as_i32).filter(|lengths| lengths.len() == items) {
            let rows = lengths.iter().flat_map(|&n| (0..positions).map(move |t| t as i64 >= i64::from(n))).collect();
            self.pad(name, &[items, positions], rows, prefix);
        }
    }
}

impl Model {
    /// Reads a description.
    ///
    /// # Errors
    /// [`Error::Format`] if the text is no such JSON, or has sizes that no model has (more than 4096 layers).
    pub fn from_json(text: &str) -> Result<Model> {
        let model: Model = fields::parse(text).map_err(|message| Error::format("model", message))?;
        let sizes = [
            ("width", model.width, FEATURES),
            ("heads", model.heads, HEADS),
            ("hidden", model.hidden, FEATURES),
            ("layers", model.layers, LAYERS),
            ("encoder_layers", model.encoder_layers, LAYERS),
            ("decoder_layers", model.decoder_layers, LAYERS),
            ("memory_width", model.memory_width.unwrap_or(1), FEATURES),
        ];
        check_sizes("model", &sizes).map(|()| model)
    }

    /// Holds the layers against the number of tensors that there are, of dump and weights: before the graph is built.
    ///
    /// # Errors
    /// [`Error::Format`] if there are fewer tensors than layers, each of which has several.
    pub fn check_layers(&self, tensors: usize) -> Result<()> {
        let layers: &[(&str, usize)] = match self.model {
            ModelKind::MultiheadAttention | ModelKind::EncoderLayer | ModelKind::DecoderLayer => &[],
            ModelKind::Encoder | ModelKind::Decoder => &[("layers", self.layers)],
            ModelKind::Transformer => {
                &[("encoder_layers", self.encoder_layers), ("decoder_layers", self.decoder_layers)]
            }
        };
        match layers.iter().find(|(_, layers)| *layers > tensors) {
            None => Ok(()),
            Some((key, layers)) => Err(Error::format(
                "model",
                format!("`{key}` is {layers}, but dump and weights have {tensors} tensors, and a layer has several"),
            )),
        }
    }

    fn encoder_layer(&self) -> EncoderLayer {
        EncoderLayer {
            activation: match self.activation {
                ActivationKind::Relu => Activation::Relu,
                ActivationKind::Gelu => Activation::Gelu,
                ActivationKind::GeluTanh => Activation::GeluTanh,
                ActivationKind::Silu => Activation::Silu,
                ActivationKind::Swiglu => Activation::SwiGlu,
            },
            norm_first: self.norm_first,
            epsilon: self.epsilon,
            bias: self.bias,
            batch_first: self.batch_first,
            ..EncoderLayer::new(self.width, self.heads, self.hidden)
        }
    }

    fn decoder_layer(&self) -> DecoderLayer {
        let EncoderLayer { activation, norm_first, epsilon, bias, batch_first, .. } = self.encoder_layer();
        DecoderLayer {
            activation,
            norm_first,
            epsilon,
            bias,
            batch_first,
            memory_width: self.memory_width,
            ..DecoderLayer::new(self.width, self.heads, self.hidden)
        }
    }

    /// The graph for the inputs in a dump, with the output `output`, and which rows of its values are padding.
    ///
    /// # Errors
    /// [`Error::Binding`] if the dump lacks an input; those of the layers ([`nn`](crate::nn)) if an input does not fit
    /// them.
    pub fn graph(&self, dump: &BTreeMap<String, Tensor>) -> Result<(Graph, Vec<Padding>)> {
        let mut io = Inputs { g: Graph::new(), dump, padding: Vec::new(), batch_first: self.batch_first };
        let prefix = self.prefix.as_str();
        let final_norm = self.final_norm.unwrap_or(self.model == ModelKind::Transformer);
        let y = match self.model {
            ModelKind::MultiheadAttention => {
                let query = io.required("query")?;
                let key = io.optional("key")?.unwrap_or(query);
                let value = io.optional("value")?.unwrap_or(key);
                let masks = io.masks("", self.causal, prefix)?;
                // What is padding among the keys is none among the queries, unless they are the same.
                if key != query {
                    io.padding.clear();
                } else {
                    io.pad_by_lengths("key_lengths", query, prefix);
                }
                let layer = MultiheadAttention {
                    key_width: self.memory_width,
                    value_width: self.memory_width,
                    bias: self.bias,
                    batch_first: self.batch_first,
                    ..MultiheadAttention::new(self.width, self.heads)
                };
                layer.build(&mut io.g, prefix, [query, key, value], &masks)?
            }
            ModelKind::EncoderLayer | ModelKind::Encoder => {
                let src = io.required("src")?;
                let masks = io.masks("src", self.causal, prefix)?;
                io.pad_by_lengths("src_lengths", src, prefix);
                if self.model == ModelKind::EncoderLayer {
                    self.encoder_layer().build(&mut io.g, prefix, src, &masks)?
                } else {
                    let stack = Encoder { layer: self.encoder_layer(), layers: self.layers, final_norm };
                    stack.build(&mut io.g, prefix, src, &masks)?
                }
            }
            ModelKind::DecoderLayer | ModelKind::Decoder => {
                let (tgt, memory) = (io.required("tgt")?, io.required("memory")?);
                let own = io.masks("tgt", self.causal, prefix)?;
                io.pad_by_lengths("tgt_lengths", tgt, prefix);
                let padding = io.padding.clone();
                let over = io.masks("memory", false, prefix)?;
                io.padding = padding;
                if self.model == ModelKind::DecoderLayer {
                    self.decoder_layer().build(&mut io.g, prefix, tgt, memory, &own, &over)?
                } else {
                    let stack = Decoder { layer: self.decoder_layer(), layers: self.layers, final_norm };
                    stack.build(&mut io.g, prefix, tgt, memory, &own, &over)?
                }
            }
            ModelKind::Transformer => {
                if self.memory_width.is_some_and(|width| width != self.width) {
                    return Err(Error::format(
                        "model",
                        "a transformer's memory is as wide as the model: leave out memory_width",
                    ));
                }
                let (src, tgt) = (io.required("src")?, io.required("tgt")?);
                let join = |part: &str| crate::nn::join(prefix, part);
                let source = io.masks("src", false, &join("encoder"))?;
                io.pad_by_lengths("src_lengths", src, &join("encoder"));
                let target = io.masks("tgt", self.causal, &join("decoder"))?;
                io.pad_by_lengths("tgt_lengths", tgt, &join("decoder"));
                let padding = io.padding.clone();
                let over = io.masks("memory", false, prefix)?;
                io.padding = padding;
                let mut model = Transformer::new(self.encoder_layer(), self.encoder_layers, self.decoder_layers);
                (model.encoder.final_norm, model.decoder.final_norm) = (final_norm, final_norm);
                model.build(&mut io.g, prefix, [src, tgt], &source, &target, &over)?
            }
        };
        io.g.output("output", y)?;
        Ok((io.g, io.padding))
    }

    /// Other models with the same weights that one may have described or built by mistake, with what is different.
    fn variants(&self) -> Vec<(String, Model)> {
        let mut all = Vec::new();
        let mut add = |what: String, model: Model| all.push((what, model));
        if self.model != ModelKind::MultiheadAttention {
            add(
                format!("\"norm_first\": {}", !self.norm_first),
                Model { norm_first: !self.norm_first, ..self.clone() },
            );
            for (name, activation) in [
                ("relu", ActivationKind::Relu),
                ("gelu", ActivationKind::Gelu),
                ("gelu_tanh", ActivationKind::GeluTanh),
                ("silu", ActivationKind::Silu),
            ] {
                if activation != self.activation && self.activation != ActivationKind::Swiglu {
                    add(format!("\"activation\": \"{name}\""), Model { activation, ..self.clone() });
                }
            }
            for epsilon in [1e-12f32, 1e-6, 1e-5, 1e-3] {
                if epsilon != self.epsilon {
                    add(format!("\"epsilon\": {epsilon:e}"), Model { epsilon, ..self.clone() });
                }
            }
        }
        for heads in [1, self.heads / 2, self.heads * 2] {
            if heads > 0 && heads != self.heads && self.width.is_multiple_of(heads) {
                add(format!("\"heads\": {heads}"), Model { heads, ..self.clone() });
            }
        }
        add(format!("\"causal\": {}", !self.causal), Model { causal: !self.causal, ..self.clone() });
        all
    }

    /// Other descriptions of the model that leave fewer departures than `report` has, the best first: for a dump in
    /// which several values depart.
    ///
    /// # Errors
    /// As [`Diff::run`], but for descriptions that the weights don't fit: those are passed over.
    pub fn better(
        &self,
        given: &BTreeMap<String, Tensor>,
        theirs: &BTreeMap<String, Tensor>,
        tolerance: Option<f64>,
        report: &Report,
    ) -> Result<Vec<(String, usize)>> {
        let now = report.departures().count();
        let mut better = Vec::new();
        for (what, model) in self.variants() {
            let (graph, padding) = model.graph(given)?;
            let diff = Diff { tolerance, padding: &padding, hypotheses: false, ..Diff::new(&graph, given, theirs) };
            let departures = match diff.run() {
                Ok(report) => report.departures().count(),
                // Other weights, or other shapes: no variant of this model.
                Err(Error::Binding(_) | Error::Op { .. }) => continue,
                Err(other) => return Err(other),
            };
            if departures < now {
                better.push((what, departures));
            }
        }
        better.sort_by_key(|(_, departures)| *departures);
        Ok(better)
    }
}
