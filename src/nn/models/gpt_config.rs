//! Models as they are published: `config.json` and the names in weight files.

use serde_json::{Map, Value};

use super::{
    config::{COMMON, Config, Keys, Rule},
    gpt::{Biases, Gpt, GptNames, Positions, Windowed},
};
use crate::{
    Result,
    nn::{Activation, Rope, RopeScaling},
};

const WHAT: &str = "GPT's config.json";
const ROPE: &str = "GPT's config.json: rotary positions";

/// The keys of a GPT-2. Those of other models' names are aliases in `transformers` too.
pub(super) const GPT2: Keys = {
    use Rule::{Built, Harmless, Only};
    &[
        ("n_positions", Built),
        ("max_position_embeddings", Built),
        ("n_embd", Built),
        ("hidden_size", Built),
        ("n_layer", Built),
        ("num_hidden_layers", Built),
        ("n_head", Built),
        ("num_attention_heads", Built),
        ("n_inner", Built),
        ("activation_function", Built),
        ("layer_norm_epsilon", Built),
        ("scale_attn_weights", Only("true")),
        ("scale_attn_by_inverse_layer_idx", Only("false")),
        // The same numbers in f32, which sums are here.
        ("reorder_and_upcast_attn", Harmless),
        ("n_ctx", Harmless),
        ("is_decoder", Harmless),
        ("attn_pdrop", Harmless),
        ("embd_pdrop", Harmless),
        ("resid_pdrop", Harmless),
        // Of a head of another task.
        ("n_special", Harmless),
        ("predict_special_tokens", Harmless),
        ("summary_activation", Harmless),
        ("summary_first_dropout", Harmless),
        ("summary_proj_to_labels", Harmless),
        ("summary_type", Harmless),
        ("summary_use_proj", Harmless),
    ]
};

/// The keys of a Llama, Mistral, Ministral or Qwen2, and those that relatives of them have.
pub(super) const LLAMA: Keys = {
    use Rule::{Built, Harmless, Only};
    &[
        ("hidden_size", Built),
        ("intermediate_size", Built),
        ("num_hidden_layers", Built),
        ("num_attention_heads", Built),
        ("num_key_value_heads", Built),
        ("head_dim", Built),
        ("hidden_act", Built),
        ("rms_norm_eps", Built),
        ("max_position_embeddings", Built),
        ("rope_theta", Built),
        ("rope_scaling", Built),
        ("rope_parameters", Built),
        ("partial_rotary_factor", Built),
        ("sliding_window", Built),
        ("use_sliding_window", Built),
        ("max_window_layers", Built),
        ("layer_types", Built),
        ("sliding_window_pattern", Built),
        ("attention_bias", Only("false")),
        ("mlp_bias", Only("false")),
        ("qkv_bias", Only("false")),
        ("alibi", Only("false")),
        ("position_embedding_type", Only(r#""rope""#)),
        ("rope_interleave", Only("false")),
        ("rope_interleaved", Only("false")),
        ("use_mrope", Only("false")),
        ("use_qk_norm", Only("false")),
        ("qk_norm", Only("false")),
        ("qk_layernorm", Only("false")),
        ("attn_logit_softcapping", Only("null")),
        ("final_logit_softcapping", Only("null")),
        ("query_pre_attn_scalar", Only("null")),
        ("attention_multiplier", Only("null")),
        ("attention_chunk_size", Only("null")),
        ("embedding_multiplier", Only("1")),
        ("residual_multiplier", Only("1")),
        ("logits_scaling", Only("1")),
        ("logit_scale", Only("1")),
        ("clip_qkv", Only("null")),
        ("num_experts", Only("0")),
        ("num_local_experts", Only("0")),
        ("num_experts_per_tok", Only("0")),
        ("n_routed_experts", Only("0")),
        ("attention_dropout", Harmless),
        ("hidden_dropout", Harmless),
        ("is_decoder", Harmless),
        // How products were cut in the training: the same sums.
        ("pretraining_tp", Harmless),
        ("cache_implementation", Harmless),
    ]
};

impl Gpt {
    /// Sizes and options from the `config.json` of a GPT-2, Llama, Mistral, Ministral or Qwen2, as `transformers` 4 and 5 write it.
    ///
    /// Rotary positions may be plain, on a part of the features (`partial_rotary_factor`), or scaled: `linear`, `dynamic`,
    /// `llama3`, `yarn` ([`RopeScaling`]), for all layers or by kind of layer. Windows may be in all layers, from one on
    /// (`max_window_layers`), or where `layer_types` or `sliding_window_pattern` has them: what a file says of its layers is
    /// built. With `dynamic` scaling a model has `factor` times the positions of the file.
    ///
    /// No key passes that would change numbers: each is built, or known to change none, or refused by its name. A key that is not
    /// known here passes if its value says nothing (`null`, `false`, empty).
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
    /// [`Error::Format`](crate::Error::Format) if the text is no such JSON, for another kind of model, and, with name and value,
    /// for what is not built here: other scalings of positions, biases that Llama lacks, another activation than silu in a
    /// Llama, experts, multipliers, quantised weights, every key that is not known and says something, and sizes that no model
    /// has (more than 4096 layers), before anything is built. [`Gpt::check_weights`] holds them against the weights.
    pub fn from_config(json: &str) -> Result<Self> {
        let config = Config::parse(WHAT, json)?;
        let gpt = match config.text("model_type")? {
            Some("gpt2") => gpt2(&config),
            Some("llama") => llama(Kind::Llama, &config),
            Some("mistral") => llama(Kind::Mistral, &config),
            Some("ministral") => llama(Kind::Ministral, &config),
            Some("qwen2") => llama(Kind::Qwen2, &config),
            Some(other) => {
                config.fail(format!("model_type is `{other}`, expected gpt2, llama, mistral, ministral or qwen2"))
            }
            None => config.fail("the field `model_type` is missing"),
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

fn gpt2(config: &Config) -> Result<Gpt> {
    config.check(&[COMMON, GPT2])?;
    let size = |own: &str, alias: &str| match config.size(own)? {
        Some(size) => Ok(size),
        None => config.size(alias)?.map_or_else(|| config.needed(own), Ok),
    };
    let gpt = Gpt::gpt2(
        config.needed("vocab_size")?,
        size("n_positions", "max_position_embeddings")?,
        size("n_embd", "hidden_size")?,
        size("n_layer", "num_hidden_layers")?,
        size("n_head", "num_attention_heads")?,
    );
    Ok(Gpt {
        hidden: config.size("n_inner")?.unwrap_or(gpt.hidden),
        activation: config.activation("activation_function")?.unwrap_or(gpt.activation),
        epsilon: config.number("layer_norm_epsilon")?.map_or(gpt.epsilon, |epsilon| epsilon as f32),
        tied: config.flag("tie_word_embeddings")?.unwrap_or(true),
        ..gpt
    })
}

/// The relatives of Llama, which differ in what they take for what a file leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Llama,
    Mistral,
    Ministral,
    Qwen2,
}

impl Kind {
    /// Key heads where a file doesn't say (`null` is one for each query head).
    fn key_heads(self) -> Option<usize> {
        match self {
            Kind::Llama => None,
            Kind::Mistral | Kind::Ministral => Some(8),
            Kind::Qwen2 => Some(32),
        }
    }

    /// The window where a file doesn't say (`null` is none).
    fn window(self) -> Option<usize> {
        match self {
            Kind::Llama => None,
            Kind::Mistral | Kind::Ministral | Kind::Qwen2 => Some(4096),
        }
    }
}

fn llama(kind: Kind, config: &Config) -> Result<Gpt> {
    config.check(&[COMMON, LLAMA])?;
    let act = config.activation("hidden_act")?.unwrap_or(Activation::Silu);
    if act != Activation::Silu {
        let given = config.text("hidden_act")?.unwrap_or_default();
        return config.fail(format!("hidden_act is `{given}`, expected silu: the blocks are SwiGLUs"));
    }
    let gpt = Gpt::llama(
        config.needed("vocab_size")?,
        config.needed("max_position_embeddings")?,
        config.needed("hidden_size")?,
        config.needed("num_hidden_layers")?,
        config.needed("num_attention_heads")?,
        config.needed("intermediate_size")?,
    );
    let unsaid = |key: &str, value: Option<usize>| if config.has(key) { None } else { value };
    let key_heads = config.size("num_key_value_heads")?.or(unsaid("num_key_value_heads", kind.key_heads()));
    let (window, windowed) = windows(kind, config, gpt.layers)?;
    let [rope, local] = ropes(config, gpt.positions, window.is_some())?;
    let positions = match rope.scaling {
        // Sequences get longer than those of the training only so.
        RopeScaling::Dynamic { factor, original } => (factor * original as f64) as usize,
        RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } | RopeScaling::Yarn { .. } => {
            gpt.positions
        }
    };
    Ok(Gpt {
        positions,
        key_heads: key_heads.unwrap_or(gpt.key_heads),
        head_width: config.size("head_dim")?.unwrap_or(gpt.head_width),
        position: Positions::Rotary(rope),
        local: (local != rope).then_some(local),
        epsilon: config.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        biases: if kind == Kind::Qwen2 { Biases::Queries } else { Biases::None },
        tied: config.flag("tie_word_embeddings")?.unwrap_or(false),
        window,
        windowed,
        ..gpt
    })
}

/// The window, and which layers have it.
fn windows(kind: Kind, config: &Config, layers: usize) -> Result<(Option<usize>, Windowed)> {
    const FULL: &str = "full_attention";
    const SLIDING: &str = "sliding_attention";
    let unsaid = if config.has("sliding_window") { None } else { kind.window() };
    let said = config.size("sliding_window")?.or(unsaid);
    let window = match (config.flag("use_sliding_window")?, kind) {
        (Some(true), _) | (None, Kind::Llama | Kind::Mistral | Kind::Ministral) => said,
        (Some(false) | None, Kind::Qwen2) => None,
        (Some(false), Kind::Llama | Kind::Mistral | Kind::Ministral) if said.is_some() => {
            return config.fail(format!(
                "`use_sliding_window` is false, but `sliding_window` is {}, which models of this kind use: set it to null",
                said.unwrap_or_default()
            ));
        }
        (Some(false), Kind::Llama | Kind::Mistral | Kind::Ministral) => None,
    };
    let types = config.list("layer_types")?;
    let windowed = match types {
        Some(types) if types.len() != layers => {
            return config.fail(format!("`layer_types` has {} entries for {layers} layers", types.len()));
        }
        Some(types) => {
            let mut list = Vec::with_capacity(types.len());
            for (i, name) in types.iter().enumerate() {
                list.push(match name.as_str() {
                    Some(FULL) => false,
                    Some(SLIDING) => true,
                    _ => {
                        return config
                            .fail(format!("layer {i} is {name} in `layer_types`, expected {FULL} or {SLIDING}"));
                    }
                });
            }
            Windowed::Listed(list)
        }
        None => match (config.size("sliding_window_pattern")?, kind) {
            (Some(0), _) => return config.fail("`sliding_window_pattern` is 0, expected at least 1"),
            (Some(pattern), _) => Windowed::AllButEvery(pattern),
            (None, Kind::Llama) if window.is_some() => {
                return config.fail(format!(
                    "`sliding_window` is {}, but no key says which layers have it, and models of this kind have none: set \
                     it to null, or list `layer_types`",
                    window.unwrap_or_default()
                ));
            }
            (None, Kind::Llama | Kind::Mistral | Kind::Ministral) => Windowed::All,
            (None, Kind::Qwen2) => Windowed::From(config.size("max_window_layers")?.unwrap_or(28)),
        },
    };
    if window.is_none() && types.is_some() && !windowed.is_none(layers) {
        return config.fail(format!("`layer_types` has {SLIDING}, but there is no `sliding_window` that is used"));
    }
    let window = window.filter(|_| !windowed.is_none(layers));
    let windowed = if window.is_none() || windowed.is_all(layers) { Windowed::All } else { windowed };
    Ok((window, windowed))
}

/// Rotary positions of layers without a window, and of those with one.
fn ropes(config: &Config, positions: usize, windowed: bool) -> Result<[Rope; 2]> {
    let read = |key: &str| match config.object(key)? {
        Some(given) => by_layer(config, given, positions, windowed).map(Some),
        None => Ok(None),
    };
    match (read("rope_parameters")?, read("rope_scaling")?) {
        (Some(a), Some(b)) if a != b => {
            config.fail("`rope_parameters` and `rope_scaling` say different things: keep one of them")
        }
        (Some(ropes), _) | (None, Some(ropes)) => Ok(ropes),
        (None, None) => Ok([one(config, &Map::new(), positions)?; 2]),
    }
}

/// The same for all layers, or an object for each kind of layer.
fn by_layer(config: &Config, given: &Map<String, Value>, positions: usize, windowed: bool) -> Result<[Rope; 2]> {
    if given.is_empty() || !given.values().all(|value| value.is_object() || value.is_null()) {
        return Ok([one(config, given, positions)?; 2]);
    }
    let kinds = ["full_attention", "sliding_attention"];
    if let Some(other) = given.keys().find(|key| !kinds.contains(&key.as_str())) {
        return config
            .fail(format!("there are rotary positions for `{other}` layers, expected {}", kinds.join(" or ")));
    }
    let of =
        |kind: &str| given.get(kind).and_then(Value::as_object).map(|part| one(config, part, positions)).transpose();
    match (of(kinds[0])?, of(kinds[1])?) {
        (Some(full), Some(sliding)) => Ok([full, sliding]),
        (Some(full), None) if !windowed => Ok([full; 2]),
        (None, Some(sliding)) if windowed => Ok([sliding; 2]),
        (full, _) => {
            let lacking = if full.is_some() { kinds[1] } else { kinds[0] };
            config.fail(format!("there are no rotary positions for `{lacking}` layers"))
        }
    }
}

/// The keys that all types of rotary positions may have, and those of each type. The length of the training's sequences is
/// written for all types, and read by those that need it.
const ROPE_KEYS: [&str; 6] =
    ["rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings", "finetuned"];
const ROPE_TYPES: [(&str, &[&str]); 5] = [
    ("default", &[]),
    ("linear", &["factor"]),
    ("dynamic", &["factor"]),
    ("llama3", &["factor", "low_freq_factor", "high_freq_factor"]),
    ("yarn", &["factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"]),
];

fn one(config: &Config, given: &Map<String, Value>, positions: usize) -> Result<Rope> {
    let part = Config::part(ROPE, given.clone());
    let name = part.text("rope_type")?.or(part.text("type")?).unwrap_or("default");
    let Some((_, own)) = ROPE_TYPES.iter().find(|(other, _)| *other == name) else {
        let known: Vec<&str> = ROPE_TYPES.iter().map(|(name, _)| *name).collect();
        return part.fail(format!("rope_type is `{name}`, which is not built here: expected {}", known.join(", ")));
    };
    if let Some((key, value)) = given
        .iter()
        .find(|(key, value)| !value.is_null() && !own.contains(&key.as_str()) && !ROPE_KEYS.contains(&key.as_str()))
    {
        return part.fail(format!("`{key}` is {value}, which rope_type `{name}` doesn't have here"));
    }
    let either = |key: &str| -> Result<Option<f64>> { Ok(part.number(key)?.or(config.number(key)?)) };
    let original = part.size("original_max_position_embeddings")?;
    let scaling = match name {
        "linear" => RopeScaling::Linear { factor: part.needed_number("factor")? },
        // Transformers takes the model's own length here.
        "dynamic" => RopeScaling::Dynamic { factor: part.needed_number("factor")?, original: positions },
        "llama3" => RopeScaling::Llama3 {
            factor: part.needed_number("factor")?,
            low: part.needed_number("low_freq_factor")?,
            high: part.needed_number("high_freq_factor")?,
            original: original.unwrap_or(positions),
        },
        "yarn" => yarn(&part, original.unwrap_or(positions), positions)?,
        _ => RopeScaling::None,
    };
    let rope = Rope {
        base: either("rope_theta")?.unwrap_or(10_000.0),
        part: either("partial_rotary_factor")?.unwrap_or(1.0),
        scaling,
    };
    Ok(rope)
}

fn yarn(part: &Config, original: usize, positions: usize) -> Result<RopeScaling> {
    let factor = part.number("factor")?.unwrap_or(positions as f64 / original as f64);
    // How much the scores' temperature changes, as a factor on q and k.
    let warmth = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let of_zero = |number: Option<f64>| number.filter(|&number| number != 0.0);
    let scales = (of_zero(part.number("mscale")?), of_zero(part.number("mscale_all_dim")?));
    let attention = match (part.number("attention_factor")?, scales) {
        (Some(said), _) => said,
        (None, (Some(scale), Some(all))) => warmth(scale) / warmth(all),
        (None, _) => warmth(1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        original,
        fast: of_zero(part.number("beta_fast")?).unwrap_or(32.0),
        slow: of_zero(part.number("beta_slow")?).unwrap_or(1.0),
        attention,
        whole: part.flag("truncate")?.unwrap_or(true),
    })
}
