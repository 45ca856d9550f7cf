//! Models as they are published: `config.json` and the names in weight files.

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    activation,
    gpt::{Biases, Gpt, GptNames, Positions},
};
use crate::{Error, Result, fields, nn::Activation};

const WHAT: &str = "GPT's config.json";

#[derive(Deserialize)]
struct Gpt2 {
    vocab_size: usize,
    n_positions: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    #[serde(default)]
    n_inner: Option<usize>,
    #[serde(default)]
    activation_function: Option<String>,
    #[serde(default)]
    layer_norm_epsilon: Option<f32>,
    #[serde(default)]
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
}

#[derive(Deserialize)]
struct Llama {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    #[serde(default)]
    num_key_value_heads: Option<usize>,
    #[serde(default)]
    head_dim: Option<usize>,
    #[serde(default)]
    hidden_act: Option<String>,
    #[serde(default)]
    rms_norm_eps: Option<f32>,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_scaling: Option<serde_json::Value>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: Option<bool>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

#[derive(Deserialize)]
struct Kind {
    model_type: String,
}

impl Gpt {
    /// Sizes and options from the `config.json` of a GPT-2, Llama, Mistral or Qwen2.
    ///
    /// ```
    /// use tilewise::nn::Gpt;
    /// let config = r#"{"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12,
    ///     "n_head": 12, "activation_function": "gelu_new"}"#;
    /// assert_eq!(Gpt::from_config(config)?, Gpt::gpt2(50257, 1024, 768, 12, 12));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] if the text is no such JSON, for another kind of model, and for what is not built here: scaled
    /// rotary positions, biases that Llama lacks, another activation than silu in a Llama, attention scaled by layers; and for
    /// sizes that no model has (more than 4096 layers), before anything is built. [`Gpt::check_weights`] holds them against the
    /// weights.
    pub fn from_config(json: &str) -> Result<Self> {
        let Kind { model_type } = parse(json)?;
        let gpt = match model_type.as_str() {
            "gpt2" => gpt2(parse(json)?),
            kind @ ("llama" | "mistral" | "qwen2") => llama(kind, parse(json)?),
            other => fail(format!("model_type is `{other}`, expected gpt2, llama, mistral or qwen2")),
        };
        gpt?.of_buildable_sizes(WHAT)
    }

    /// The parameter's name for the name of a tensor in a published file; `None` for what this model does not use
    /// (masks and tables that are computed, the output layer if it is tied). For
    /// [`Weights::rename`](crate::nn::Weights::rename).
    pub fn parameter_name(&self, stored: &str) -> Option<String> {
        let name = match self.names {
            GptNames::Gpt2 => stored.strip_prefix("transformer.").unwrap_or(stored),
            GptNames::Llama => stored,
        };
        let computed = [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"];
        let unused = computed.iter().any(|end| name.ends_with(end)) || (self.tied && name == "lm_head.weight");
        (!unused).then(|| name.to_string())
    }
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T> {
    fields::parse(json).map_err(|message| Error::format(WHAT, message))
}

fn fail<T>(message: String) -> Result<T> {
    Err(Error::format(WHAT, message))
}

fn gpt2(config: Gpt2) -> Result<Gpt> {
    if config.scale_attn_by_inverse_layer_idx {
        return fail("scale_attn_by_inverse_layer_idx is not built here".into());
    }
    let gpt = Gpt::gpt2(config.vocab_size, config.n_positions, config.n_embd, config.n_layer, config.n_head);
    Ok(Gpt {
        hidden: config.n_inner.unwrap_or(gpt.hidden),
        activation: config.activation_function.map_or(Ok(gpt.activation), |name| activation(WHAT, &name))?,
        epsilon: config.layer_norm_epsilon.unwrap_or(gpt.epsilon),
        tied: config.tie_word_embeddings.unwrap_or(true),
        ..gpt
    })
}

fn llama(kind: &str, config: Llama) -> Result<Gpt> {
    if let Some(scaling) = config.rope_scaling.filter(|scaling| !scaling.is_null()) {
        return fail(format!("rope_scaling is {scaling}, only plain rotary positions are built here"));
    }
    if config.attention_bias || config.mlp_bias {
        return fail("attention_bias and mlp_bias are not built here".into());
    }
    let given = config.hidden_act;
    let act = given.as_deref().map_or(Ok(Activation::Silu), |name| activation(WHAT, name))?;
    if act != Activation::Silu {
        let given = given.unwrap_or_default();
        return fail(format!("hidden_act is `{given}`, expected silu: the blocks are SwiGLUs"));
    }
    let gpt = Gpt::llama(
        config.vocab_size,
        config.max_position_embeddings,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
    );
    // Qwen2 lists a window that it does not use.
    let windowed = config.use_sliding_window.unwrap_or(kind == "mistral");
    Ok(Gpt {
        key_heads: config.num_key_value_heads.unwrap_or(gpt.key_heads),
        head_width: config.head_dim.unwrap_or(gpt.head_width),
        position: Positions::Rotary { base: config.rope_theta.unwrap_or(10_000.0) },
        epsilon: config.rms_norm_eps.unwrap_or(1e-6),
        biases: if kind == "qwen2" { Biases::Queries } else { Biases::None },
        tied: config.tie_word_embeddings,
        window: config.sliding_window.filter(|_| windowed),
        ..gpt
    })
}
