//! Files that describe models: `config.json` of GPT and BERT, and descriptions for `tilewise diff`.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use serde_json::{Value, json};
use tilewise::{
    DType, Graph, Tensor,
    diff::Model,
    kernel::Profile,
    lower::{self, Options},
    nn::{Bert, Gpt},
};

use super::{Outcome, Target, json};

pub(super) const TARGET: Target = Target { name: "config", make, check };

const WORDS: [&str; 64] = [
    "model_type",
    "gpt2",
    "llama",
    "mistral",
    "qwen2",
    "bert",
    "vocab_size",
    "n_positions",
    "n_embd",
    "n_layer",
    "n_head",
    "n_inner",
    "activation_function",
    "layer_norm_epsilon",
    "tie_word_embeddings",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rope_type",
    "type",
    "factor",
    "linear",
    "dynamic",
    "llama3",
    "yarn",
    "default",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "attention_bias",
    "mlp_bias",
    "type_vocab_size",
    "layer_norm_eps",
    "position_embedding_type",
    "model",
    "width",
    "heads",
    "hidden",
    "layers",
    "memory_width",
    "activation",
    "gelu",
    "silu",
    "norm_first",
    "epsilon",
    "bias",
    "batch_first",
    "causal",
    "prefix",
    "decoder_layer",
];

fn seeds() -> Vec<Value> {
    let llama = json!({
        "model_type": "llama", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "tie_word_embeddings": false, "rope_theta": 10000.0,
    });
    let with = |more: Value| {
        let mut config = llama.clone();
        for (key, value) in more.as_object().cloned().unwrap_or_default() {
            config[key] = value;
        }
        config
    };
    let rope = |parameters: Value| with(json!({"rope_parameters": parameters}));
    let mut all = vec![
        llama.clone(),
        with(json!({"model_type": "mistral", "sliding_window": 8})),
        with(json!({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1})),
        with(json!({"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]})),
        with(json!({"partial_rotary_factor": 0.5})),
        rope(json!({"rope_theta": 500000.0, "rope_type": "default"})),
        rope(json!({"rope_theta": 500000.0, "rope_type": "linear", "factor": 4.0})),
        rope(json!({"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 16})),
        with(json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}})),
        with(json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}})),
        json!({"model_type": "gpt2", "vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 4,
            "n_inner": null, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}),
        json!({"model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 24, "max_position_embeddings": 32, "type_vocab_size": 2,
            "hidden_act": "gelu", "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"}),
    ];
    for model in ["multihead_attention", "encoder_layer", "decoder_layer", "encoder", "decoder", "transformer"] {
        all.push(json!({"model": model, "width": 8, "heads": 2, "hidden": 12, "layers": 2, "encoder_layers": 1,
            "decoder_layers": 1, "activation": "relu", "norm_first": true, "causal": true}));
    }
    all
}

fn make(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut config = u.choose(&seeds())?.clone();
    while !u.ratio(1, 3u8)? {
        let keys: Vec<String> = config.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default();
        match u.int_in_range(0..=3u8)? {
            0 | 1 if !keys.is_empty() => {
                let key = u.choose(&keys)?;
                let near = config[key].as_u64().unwrap_or(1);
                config[key] = json::size(u, near)?;
            }
            2 => {
                let (key, edge) = (*u.choose(&WORDS)?, json::edge(u)?);
                if let Some(fields) = config.as_object_mut() {
                    fields.insert(key.into(), edge);
                }
            }
            _ => json::mutate(u, &mut config, &WORDS)?,
        }
    }
    let mut bytes = json::text(&config).into_bytes();
    if u.ratio(1, 20u8)? {
        json::garble(u, &mut bytes)?;
    }
    Ok(bytes)
}

/// Sizes that are built here: what a file asks for beyond them is only read.
fn is_small(sizes: &[usize]) -> bool {
    sizes.iter().all(|&size| size <= 512)
}

fn check(input: &[u8]) -> std::result::Result<Outcome, String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(Outcome::Refused) };
    let mut graphs: Vec<tilewise::Result<Graph>> = Vec::new();
    let mut read = false;
    let ids = |g: &mut Graph| g.input("ids", DType::I32, [2, 3]);
    match Gpt::from_config(text) {
        Ok(gpt) => {
            read = true;
            let _ = gpt.parameter_name("model.layers.0.self_attn.q_proj.weight");
            if gpt.layers <= 8
                && is_small(&[gpt.vocabulary, gpt.positions, gpt.width, gpt.heads, gpt.head_width, gpt.hidden])
            {
                let mut g = Graph::new();
                let logits = ids(&mut g).and_then(|ids| gpt.build(&mut g, ids));
                graphs.push(logits.and_then(|logits| g.output("logits", logits)).map(|()| g));
            }
        }
        Err(error) if error.to_string().is_empty() => return Err("it is refused without a word".into()),
        Err(_) => {}
    }
    match Bert::from_config(text) {
        Ok(bert) => {
            read = true;
            let _ = bert.parameter_name("bert.embeddings.word_embeddings.weight");
            if bert.layers <= 8 && is_small(&[bert.vocabulary, bert.positions, bert.width, bert.heads, bert.hidden]) {
                let mut g = Graph::new();
                let out = ids(&mut g).and_then(|ids| bert.build(&mut g, "", ids, None, None));
                graphs.push(out.and_then(|out| g.output("hidden", out.hidden)).map(|()| g));
            }
        }
        Err(error) if error.to_string().is_empty() => return Err("it is refused without a word".into()),
        Err(_) => {}
    }
    match Model::from_json(text) {
        Ok(model) => {
            read = true;
            let layers = [model.layers, model.encoder_layers, model.decoder_layers];
            let memory = model.memory_width.unwrap_or(1);
            if layers.iter().all(|&n| n <= 8) && is_small(&[model.width, model.heads, model.hidden, memory]) {
                let dump: BTreeMap<String, Tensor> = ["query", "src", "tgt", "memory"]
                    .into_iter()
                    .map(|name| {
                        let width = if name == "memory" { memory.max(model.width.min(memory)) } else { model.width };
                        Ok((name.to_string(), Tensor::zeros(DType::F32, [2, 3, width])?))
                    })
                    .collect::<tilewise::Result<_>>()
                    .map_err(|error| error.to_string())?;
                graphs.push(model.graph(&dump).map(|(graph, _)| graph));
            }
        }
        Err(error) if error.to_string().is_empty() => return Err("it is refused without a word".into()),
        Err(_) => {}
    }
    let mut whole = false;
    for graph in graphs {
        match graph {
            Err(error) if error.to_string().is_empty() => return Err("it is refused without a word".into()),
            Err(_) => {}
            Ok(graph) => {
                graph.verify().map_err(|error| format!("what was built does not verify: {error}"))?;
                whole |= lower::lower(&graph, &Profile::portable(), &Options::default()).is_ok();
            }
        }
    }
    Ok(match (read, whole) {
        (false, _) => Outcome::Refused,
        (true, false) => Outcome::Read,
        (true, true) => Outcome::Whole,
    })
}
