//! Published configs: what they give against what `transformers` makes of them, and what is refused of them, by name.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::{Value, json};
use tilewise::{
    DType, Graph, Shape, Tensor,
    graph::Mask,
    nn::{Bert, Gpt, Positions, Rope, Windowed},
    reference, safetensors,
};

use crate::common::models::{Given, draw, i32s, ids, weights};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/transformers")
}

/// One of the lists of `tests/data/transformers/cases.json`.
fn cases(list: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("cases.json")).expect("is there");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let cases = all[list].as_array().expect("a list").clone();
    assert!(!cases.is_empty());
    cases
}

fn results() -> BTreeMap<String, Tensor> {
    safetensors::load(folder().join("results.safetensors")).expect("is there")
}

fn shape(value: &Value) -> Shape {
    let sizes = value.as_array().expect("a shape").iter();
    sizes.map(|size| size.as_u64().expect("a size") as usize).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// What a model gives for the tokens that are drawn for a name: `[T, V]`, or `[T, E]` of a BERT.
fn evaluated(
    name: &str,
    tokens: usize,
    build: impl FnOnce(&mut Graph, tilewise::ValueId) -> tilewise::ValueId,
) -> Vec<f64> {
    let mut g = Graph::new();
    let words = g.input("ids", DType::I32, [1, tokens]).expect("fits");
    let y = build(&mut g, words);
    g.output("y", y).expect("fits");
    let mut given: Given = weights(&g);
    given.insert("ids".into(), i32s(&[1, tokens], &ids(name, tokens, 31)));
    reference::evaluate_f64(&g, &given).expect("runs")["y"].to_f64()
}

/// The furthest that two lists are apart, in parts of what their numbers weigh.
fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f64::max)
}

/// transformers computes norms, softmax and rotary tables in f32.
const NEAR: f64 = 2e-5;

#[test]
fn models_give_what_transformers_gives() {
    let results = results();
    for case in cases("models") {
        let (name, config) = (case["name"].as_str().expect("a name"), case["config"].to_string());
        let expected = &results[&format!("model.{name}")];
        let (tokens, expected) = (expected.shape()[0], expected.to_f64());
        if case["config"]["model_type"] == "bert" {
            let bert = Bert::from_config(&config).unwrap_or_else(|e| panic!("{name}: {e}"));
            let found = evaluated(name, tokens, |g, ids| bert.build(g, "", ids, None, None).expect(name).hidden);
            let error = apart(&found, &expected);
            assert!(error <= NEAR, "{name}: {error:e}");
            continue;
        }
        let gpt = Gpt::from_config(&config).unwrap_or_else(|e| panic!("{name}: {e}"));
        let logits = |gpt: &Gpt| evaluated(name, tokens, |g, ids| gpt.build(g, ids).expect(name));
        let error = apart(&logits(&gpt), &expected);
        assert!(error <= NEAR, "{name}: {error:e}");
        // What the file says of positions and windows shows in the numbers.
        if let Positions::Rotary(_) = gpt.position {
            let position = Positions::Rotary(Rope::new(10_000.0));
            let plain = Gpt { position, local: None, window: None, windowed: Windowed::All, ..gpt.clone() };
            let silent = Gpt { positions: plain.positions, ..gpt.clone() } == plain;
            let unchanged = silent || name == "dynamic, not longer" || name == "mistral, unsaid";
            assert!(unchanged || apart(&logits(&plain), &expected) > 100.0 * NEAR, "{name}");
        }
    }
}

#[test]
fn rotary_tables_are_those_of_transformers() {
    for case in cases("tables") {
        let name = case["name"].as_str().expect("a name");
        let gpt = Gpt::from_config(&case["config"].to_string()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let Positions::Rotary(rope) = gpt.position else { panic!("{name}: {:?}", gpt.position) };
        let tokens = case["tokens"].as_u64().expect("a number") as usize;
        let found = rope.frequencies(gpt.head_width, tokens).expect(name);
        let expected = numbers(&case["frequencies"]);
        assert_eq!(found.len(), expected.len(), "{name}");
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            // A power, a quotient and a sum in f32.
            assert!((a - b).abs() <= 4e-6 * b, "{name}, pair {i}: {a} and {b}");
        }
        let factor = case["attention"].as_f64().expect("a number");
        assert!((rope.attention() - factor).abs() <= 1e-6 * factor, "{name}: {} and {factor}", rope.attention());
        let mut g = Graph::new();
        let [cos, sin] = rope.tables(&mut g, gpt.head_width, 40, tokens).expect(name);
        let values = reference::Evaluation::<f64>::new(&g, &BTreeMap::new()).expect("runs");
        for (value, list) in [(cos, "cos"), (sin, "sin")] {
            let table = values.value(value).to_f64();
            let rows = case["positions"].as_array().expect("a list").iter().zip(case[list].as_array().expect("a list"));
            for (position, row) in rows {
                let at = position.as_u64().expect("a number") as usize;
                for (i, (a, b)) in table[at * found.len()..].iter().zip(numbers(row)).enumerate() {
                    // The angle is off by its own rounding, and the frequency's.
                    let bound = factor * (5e-6 * found[i] * at as f64 + 2e-7);
                    assert!((a - b).abs() <= bound, "{name}, {list} of position {at}, pair {i}: {a} and {b}");
                }
            }
        }
    }
}

#[test]
fn patterns_of_windows_are_those_of_transformers() {
    for case in cases("patterns") {
        let (layers, pattern) = (&case["layers"], &case["pattern"]);
        let config = llama(
            "ministral",
            json!({"num_hidden_layers": layers, "sliding_window_pattern": pattern, "sliding_window": 6}),
        );
        let gpt = Gpt::from_config(&config).expect("fits");
        let expected: Vec<bool> =
            case["types"].as_array().expect("a list").iter().map(|x| x == "sliding_attention").collect();
        assert!(gpt.window.is_none_or(|window| window == 6));
        let found: Vec<bool> = (0..gpt.layers).map(|layer| gpt.window.is_some() && gpt.windowed.has(layer)).collect();
        assert_eq!(found, expected, "{case}");
        // The same as a list.
        let config =
            llama("ministral", json!({"num_hidden_layers": layers, "layer_types": case["types"], "sliding_window": 6}));
        let listed = Gpt::from_config(&config).expect("fits");
        let list = (0..gpt.layers).map(|layer| listed.window.is_some() && listed.windowed.has(layer));
        assert_eq!(list.collect::<Vec<_>>(), expected, "{case}");
    }
}

/// Attention over any leading axes, broadcast or not, as PyTorch has it.
#[test]
fn attention_takes_the_leading_axes_that_pytorch_takes() {
    let results = results();
    for (i, case) in cases("sdpa").into_iter().enumerate() {
        let mut g = Graph::new();
        let mut given = Given::new();
        let mut input = |g: &mut Graph, name: &str, shape: Shape, of: &dyn Fn(Vec<f32>) -> tilewise::Data| {
            let n = shape.elements().expect("small");
            let data = of(draw(&format!("sdpa.{i}.{name}"), n).collect());
            let tensor = Tensor::new(shape, data).expect("fits");
            let value = g.input(name, tensor.dtype(), tensor.shape().clone()).expect("fits");
            given.insert(name.into(), tensor);
            value
        };
        let floats = |data: Vec<f32>| tilewise::Data::from(data);
        let [q, k, v] = ["q", "k", "v"].map(|name| input(&mut g, name, shape(&case[name]), &floats));
        let mut mask = match case["kind"].as_str() {
            None => Mask::none(),
            Some("float") => Mask::bias(input(&mut g, "mask", shape(&case["mask"]), &floats)),
            Some(_) => {
                let keys = *shape(&case["mask"]).last().expect("an axis");
                let seen = |data: Vec<f32>| -> Vec<bool> {
                    data.iter().enumerate().map(|(j, &x)| f64::from(x) > -0.3 || j % keys == 0).collect()
                };
                Mask::boolean(input(&mut g, "mask", shape(&case["mask"]), &|data| seen(data).into()))
            }
        };
        if case["causal"] == true {
            mask = mask & Mask::causal(tilewise::graph::Align::TopLeft);
        }
        let out = g.attention(q, k, v, mask).unwrap_or_else(|e| panic!("{case}: {e}"));
        g.output("out", out).expect("fits");
        let expected = &results[&format!("sdpa.{i}")];
        assert_eq!(g.shape(out), expected.shape(), "{case}");
        let found = reference::evaluate_f64(&g, &given).expect("runs")["out"].to_f64();
        let error = apart(&found, &expected.to_f64());
        assert!(error <= 1e-6, "{case}: {error:e}");
    }
}

/// A small config of this kind with further keys.
#[allow(clippy::needless_pass_by_value, reason = "given in place")]
fn llama(kind: &str, more: Value) -> String {
    let mut config = json!({"model_type": kind, "vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "hidden_act": "silu",
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 12});
    config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    config.to_string()
}

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "given in place")]
fn refused(kind: &str, more: Value, parts: &[&str]) {
    let error = Gpt::from_config(&llama(kind, more.clone())).expect_err(&more.to_string()).to_string();
    for part in parts {
        assert!(error.contains(part), "{error}, which lacks {part}");
    }
}

/// Every key that would change numbers and isn't built is named, with its value and what is expected.
#[test]
fn what_is_not_built_is_refused_by_name() {
    for (key, value, expected) in [
        ("attention_bias", json!(true), "expected false"),
        ("mlp_bias", json!(true), "expected false"),
        ("attn_logit_softcapping", json!(50.0), "expected null"),
        ("final_logit_softcapping", json!(30.0), "expected null"),
        ("query_pre_attn_scalar", json!(256), "expected null"),
        ("logit_scale", json!(0.0625), "expected 1"),
        ("embedding_multiplier", json!(12.0), "expected 1"),
        ("residual_multiplier", json!(0.22), "expected 1"),
        ("attention_multiplier", json!(0.015), "expected null"),
        ("num_experts", json!(8), "expected 0"),
        ("num_local_experts", json!(8), "expected 0"),
        ("position_embedding_type", json!("alibi"), r#"expected "rope""#),
        ("quantization_config", json!({"bits": 4}), "expected null"),
        ("add_cross_attention", json!(true), "expected false"),
        ("is_encoder_decoder", json!(true), "expected false"),
        ("qk_norm", json!(true), "expected false"),
        ("kv_lora_rank", json!(512), "not known here"),
        ("rope_local_base_freq", json!(10000.0), "not known here"),
        ("original_max_position_embeddings", json!(4096), "not known here"),
    ] {
        let said = format!("`{key}` is {value}");
        refused("llama", json!({key: value}), &[&said, expected]);
    }
    // The value that is meant anyway, and what changes nothing.
    let fine = json!({"attention_bias": false, "logit_scale": 1.0, "num_experts": 0, "final_logit_softcapping": null, "torch_dtype": "bfloat16",
        "attention_dropout": 0.1, "pretraining_tp": 2, "bos_token_id": 1, "use_cache": true, "initializer_range": 0.02,
        "architectures": ["LlamaForCausalLM"], "transformers_version": "5.0.0", "new_and_off": false});
    assert_eq!(
        Gpt::from_config(&llama("llama", fine)).expect("fits"),
        Gpt { key_heads: 2, ..Gpt::llama(31, 12, 16, 2, 4, 24) }
    );
    refused("llama", json!({"hidden_act": "gelu"}), &["hidden_act", "expected silu"]);
    refused("llama", json!({"hidden_act": "xielu"}), &["`hidden_act`", "`xielu`"]);
    refused(
        "llama",
        json!({"num_hidden_layers": "two"}),
        &[r#"`num_hidden_layers` is "two", expected an integer from 0 up"#],
    );
    refused("llama", json!({"hidden_size": null}), &["the field `hidden_size` is missing"]);

    let gpt2 = |key: &str, value: Value| {
        let config = json!({"model_type": "gpt2", "vocab_size": 31, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 4, key: value});
        Gpt::from_config(&config.to_string())
    };
    for (key, value) in [
        ("scale_attn_by_inverse_layer_idx", json!(true)),
        ("scale_attn_weights", json!(false)),
        ("add_cross_attention", json!(true)),
        ("rotary_dim", json!(64)),
    ] {
        let error = gpt2(key, value.clone()).expect_err(key).to_string();
        assert!(error.contains(&format!("`{key}` is {value}")), "{error}");
    }
    for (key, value) in
        [("reorder_and_upcast_attn", json!(true)), ("summary_type", json!("cls_index")), ("n_ctx", json!(12))]
    {
        assert_eq!(gpt2(key, value).expect(key), Gpt::gpt2(31, 12, 16, 2, 4));
    }

    let bert = |key: &str, value: Value| {
        let mut config = json!({"model_type": "bert", "vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 24, "max_position_embeddings": 12, "type_vocab_size": 2});
        config[key] = value;
        Bert::from_config(&config.to_string())
    };
    for (key, value) in [
        ("position_embedding_type", json!("relative_key")),
        ("is_decoder", json!(true)),
        ("add_cross_attention", json!(true)),
        ("embedding_size", json!(128)),
        ("quantization_config", json!({"bits": 8})),
        ("pruned_heads", json!({"0": [1]})),
        ("local_attention", json!(128)),
    ] {
        let error = bert(key, value.clone()).expect_err(key).to_string();
        assert!(error.contains(&format!("`{key}` is {value}")), "{error}");
    }
    for (key, value) in [
        ("position_embedding_type", json!("absolute")),
        ("hidden_dropout_prob", json!(0.1)),
        ("pooler_type", json!("first")),
    ] {
        assert_eq!(bert(key, value).expect(key), Bert::new(31, 12, 16, 2, 4, 24));
    }
}

#[test]
fn rotary_positions_that_are_not_built_are_refused_by_name() {
    let rope = |more: Value| json!({ "rope_parameters": more });
    refused(
        "llama",
        rope(json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]})),
        &["`longrope`", "llama3, yarn"],
    );
    refused(
        "llama",
        rope(json!({"rope_type": "default", "mrope_section": [16, 24, 24]})),
        &["`mrope_section` is [16,24,24]", "`default`"],
    );
    refused("llama", rope(json!({"factor": 8.0})), &["`factor` is 8.0", "`default`"]);
    refused("llama", rope(json!({"rope_type": "linear"})), &["rotary positions", "the field `factor` is missing"]);
    refused(
        "llama",
        rope(json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0})),
        &["the field `high_freq_factor` is missing"],
    );
    refused("llama", rope(json!({"rope_type": "linear", "factor": "8"})), &[r#"`factor` is "8", expected a number"#]);
    refused("llama", rope(json!({"chunked_attention": {"rope_theta": 1e4}})), &["`chunked_attention` layers"]);
    refused(
        "qwen2",
        json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}, "use_sliding_window": true, "sliding_window": 4, "max_window_layers": 1}),
        &["no rotary positions for `sliding_attention` layers"],
    );
    refused(
        "llama",
        json!({"rope_parameters": {"rope_theta": 1e6}, "rope_scaling": {"type": "linear", "factor": 2.0}}),
        &["`rope_parameters` and `rope_scaling` say different things"],
    );
    // By layer: full layers turn by one base, those with a window by another.
    let config = llama(
        "qwen2",
        json!({"use_sliding_window": true, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0}, "sliding_attention": {"rope_theta": 1e4}}}),
    );
    let gpt = Gpt::from_config(&config).expect("fits");
    let scaling = tilewise::nn::RopeScaling::Linear { factor: 8.0 };
    assert_eq!(gpt.position, Positions::Rotary(Rope { scaling, ..Rope::new(1e6) }));
    assert_eq!(
        (gpt.local, gpt.window, gpt.windowed),
        (Some(Rope::new(1e4)), Some(4), Windowed::Listed(vec![true, false]))
    );
    // Numbers that nothing can be computed with are found when the model is built.
    for (more, said) in [
        (json!({"rope_theta": 0.0}), "the base is 0"),
        (json!({"rope_type": "linear", "factor": 0.0}), "the factor is 0"),
        (json!({"rope_type": "dynamic", "factor": 0.5}), "the factor of a growing base is 0.5, expected at least 1"),
        (json!({"partial_rotary_factor": 0.3}), "1 features of 4"),
        (
            json!({"rope_type": "yarn", "factor": 2.0, "beta_fast": 1.0, "beta_slow": 2.0}),
            "the number of fast turns is 1",
        ),
    ] {
        let gpt = Gpt::from_config(&llama("llama", rope(more))).expect("is read");
        let mut g = Graph::new();
        let ids = g.input("ids", DType::I32, [1, 3]).expect("fits");
        let error = gpt.build(&mut g, ids).expect_err(said).to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn windows_that_are_not_clear_are_refused_by_name() {
    refused("llama", json!({"sliding_window": 4}), &["`sliding_window` is 4", "list `layer_types`"]);
    refused("mistral", json!({"sliding_window": 4, "use_sliding_window": false}), &["`use_sliding_window` is false"]);
    refused(
        "qwen2",
        json!({"layer_types": ["sliding_attention", "full_attention"]}),
        &["no `sliding_window` that is used"],
    );
    refused("qwen2", json!({"layer_types": ["full_attention"]}), &["1 entries for 2 layers"]);
    refused(
        "qwen2",
        json!({"layer_types": ["full_attention", "linear_attention"]}),
        &[r#"layer 1 is "linear_attention""#],
    );
    refused("ministral", json!({"sliding_window_pattern": 0}), &["`sliding_window_pattern` is 0"]);
    // What a file leaves out is what transformers takes for it.
    let gpt = Gpt::from_config(&llama("mistral", json!({}))).expect("fits");
    assert_eq!((gpt.window, gpt.windowed), (Some(4096), Windowed::All));
    let gpt =
        Gpt::from_config(&llama("qwen2", json!({"use_sliding_window": true, "num_hidden_layers": 30}))).expect("fits");
    assert_eq!((gpt.window, gpt.windowed), (Some(4096), Windowed::From(28)));
}
