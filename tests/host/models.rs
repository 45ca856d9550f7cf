//! Whole models: their wiring against layers that PyTorch has checked, and the files that they come in.

use tilewise::{
    DType, Graph, Tensor, ValueId,
    graph::{Align, Mask},
    nn::{self, Activation, Bert, Biases, EncoderLayer, Gpt, Positions, Rope, Weights},
    reference, safetensors,
};

use crate::common::models::{Given, i32s, ids, small_bert, weights};

/// BERT's layers are PyTorch's encoder layers under other names.
#[test]
fn bert_is_a_stack_of_encoder_layers() {
    let bert = small_bert();
    let (items, tokens) = (2, 7);
    let mut g = Graph::new();
    let words = g.input("ids", DType::I32, [items, tokens]).expect("fits");
    let types = g.input("types", DType::I32, [items, tokens]).expect("fits");
    let lengths = g.input("lengths", DType::I32, [items]).expect("fits");
    let out = bert.build(&mut g, "", words, Some(types), Some(lengths)).expect("fits");
    g.output("hidden", out.hidden).expect("fits");
    g.output("pooled", out.pooled.expect("there is one")).expect("fits");
    let mut given = weights(&g);
    let shared = [
        ("ids".to_string(), i32s(&[items, tokens], &ids("ids", items * tokens, 31))),
        ("types".to_string(), i32s(&[items, tokens], &[0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0])),
        ("lengths".to_string(), i32s(&[items], &[7, 4])),
    ];
    given.extend(shared.clone());
    let found = reference::evaluate(&g, &given).expect("runs");

    let mut g = Graph::new();
    let words = g.input("ids", DType::I32, [items, tokens]).expect("fits");
    let types = g.input("types", DType::I32, [items, tokens]).expect("fits");
    let lengths = g.input("lengths", DType::I32, [items]).expect("fits");
    let word = nn::Embedding { entries: 31, width: 16 }.build(&mut g, "word", words).expect("fits");
    let kind = nn::Embedding { entries: 2, width: 16 }.build(&mut g, "kind", types).expect("fits");
    let sum = g.add(word, kind).expect("fits");
    let sum = nn::learned_positions(&mut g, "place", 12, sum).expect("fits");
    let x = nn::LayerNorm::new(16).build(&mut g, "norm", sum).expect("fits");
    let layer = EncoderLayer { activation: Activation::Gelu, ..EncoderLayer::new(16, 4, 24) };
    let stack = nn::Encoder { layer, layers: 2, final_norm: false };
    let y = stack.build(&mut g, "", x, &Mask::key_lengths(lengths).into()).expect("fits");
    g.output("hidden", y).expect("fits");
    let part = |name: &str| given[name].as_f32().expect("f32").to_vec();
    let renamed = |(name, value): (&str, ValueId)| {
        let data = match name.split_once("self_attn.in_proj_") {
            Some((layer, kind)) => ["query", "key", "value"]
                .iter()
                .flat_map(|p| part(&format!("encoder.{}attention.self.{p}.{kind}", layer.replace("layers", "layer"))))
                .collect(),
            None => part(
                &name
                    .replace("word.", "embeddings.word_embeddings.")
                    .replace("kind.", "embeddings.token_type_embeddings.")
                    .replace("place.", "embeddings.position_embeddings.")
                    .replace("layers.", "encoder.layer.")
                    .replace("self_attn.out_proj", "attention.output.dense")
                    .replace("norm1", "attention.output.LayerNorm")
                    .replace("norm2", "output.LayerNorm")
                    .replace("linear1", "intermediate.dense")
                    .replace("linear2", "output.dense")
                    .replace("norm.", if name.starts_with("norm.") { "embeddings.LayerNorm." } else { "norm." }),
            ),
        };
        (name.to_string(), Tensor::new(g.shape(value), data).expect("fits"))
    };
    let mut other: Given = g.parameters().map(renamed).collect();
    other.extend(shared);
    let expected = reference::evaluate(&g, &other).expect("runs");
    let (a, b) = (found["hidden"].as_f32().expect("f32"), expected["hidden"].as_f32().expect("f32"));
    for (i, (a, b)) in a.iter().zip(b).enumerate().filter(|(i, _)| i / 16 < 7 + 4) {
        assert!((a - b).abs() <= 1e-6, "element {i}: {a} and {b}");
    }
    // The pooler by hand, from the first tokens.
    let (weight, bias) = (part("pooler.dense.weight"), part("pooler.dense.bias"));
    for (item, row) in found["pooled"].as_f32().expect("f32").chunks(16).enumerate() {
        let first = &a[item * tokens * 16..][..16];
        for (c, y) in row.iter().enumerate() {
            let dot: f32 = first.iter().zip(&weight[c * 16..]).map(|(x, w)| x * w).sum();
            assert!((y - (dot + bias[c]).tanh()).abs() <= 1e-5, "item {item}, feature {c}");
        }
    }
}

#[test]
fn published_names_become_parameters() {
    let bert = small_bert();
    let mut g = Graph::new();
    let words = g.input("ids", DType::I32, [1, 3]).expect("fits");
    let out = bert.build(&mut g, "", words, None, None).expect("fits");
    g.output("hidden", out.hidden).expect("fits");
    g.output("pooled", out.pooled.expect("there is one")).expect("fits");
    for (name, _) in g.parameters() {
        assert_eq!(bert.parameter_name(name).as_deref(), Some(name));
        let old =
            format!("bert.{name}").replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta");
        assert_eq!(bert.parameter_name(&old).as_deref(), Some(name), "{old}");
    }
    assert_eq!(bert.parameter_name("embeddings.position_ids"), None);
    assert_eq!(bert.parameter_name("cls.predictions.bias"), None);
    assert_eq!(Bert { pooler: false, ..bert }.parameter_name("pooler.dense.weight"), None);
}

#[test]
fn what_is_no_bert_is_refused() {
    let config = |model: &str, act: &str| {
        format!(
            r#"{{"model_type": "{model}", "hidden_act": "{act}", "vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 24, "max_position_embeddings": 12, "type_vocab_size": 2}}"#
        )
    };
    let expected = Bert { epsilon: 1e-12, pooler: false, ..small_bert() };
    assert_eq!(Bert::from_config(&config("bert", "gelu")).expect("fits"), expected);
    let message = |model, act| Bert::from_config(&config(model, act)).expect_err("refused").to_string();
    assert!(message("roberta", "gelu").contains("model_type is `roberta`, expected `bert`"));
    assert!(message("bert", "mish").contains("activation `mish` is not known"));
    let mut g = Graph::new();
    let long = g.input("ids", DType::I32, [1, 13]).expect("fits");
    let error = expected.build(&mut g, "", long, None, None).expect_err("too long").to_string();
    assert!(error.contains("13 tokens are given, the model has 12 positions"), "{error}");
}

/// GPT-2's layers are PyTorch's encoder layers, norm first, under a causal mask; its matrices lie the other way.
#[test]
fn gpt2_is_a_stack_of_encoder_layers() {
    let gpt = Gpt::gpt2(31, 12, 16, 2, 4);
    let (items, tokens) = (2, 7);
    let mut g = Graph::new();
    let words = g.input("ids", DType::I32, [items, tokens]).expect("fits");
    let logits = gpt.build(&mut g, words).expect("fits");
    g.output("logits", logits).expect("fits");
    let mut given = weights(&g);
    for (name, value) in g.parameters() {
        assert_eq!(gpt.parameter_name(&format!("transformer.{name}")).as_deref(), Some(name), "{value:?}");
    }
    assert_eq!(gpt.parameter_name("h.0.attn.bias"), None);
    assert_eq!(gpt.parameter_name("lm_head.weight"), None);
    let words = i32s(&[items, tokens], &ids("ids", items * tokens, 31));
    given.insert("ids".into(), words.clone());
    let found = reference::evaluate(&g, &given).expect("runs");

    let mut g = Graph::new();
    let input = g.input("ids", DType::I32, [items, tokens]).expect("fits");
    let table = nn::Embedding { entries: 31, width: 16 };
    let word = table.build(&mut g, "wte", input).expect("fits");
    let x = nn::learned_positions(&mut g, "wpe", 12, word).expect("fits");
    let layer = EncoderLayer { activation: Activation::GeluTanh, norm_first: true, ..EncoderLayer::new(16, 4, 64) };
    let stack = nn::Encoder { layer, layers: 2, final_norm: true };
    let y = stack.build(&mut g, "", x, &Mask::causal(Align::TopLeft).into()).expect("fits");
    let table = table.weight(&mut g, "wte").expect("fits");
    let logits = g.linear(y, table, None).expect("fits");
    g.output("logits", logits).expect("fits");
    let turned = |tensor: &Tensor| {
        let (shape, data) = (tensor.shape(), tensor.as_f32().expect("f32"));
        match shape[..] {
            [rows, columns] => (0..columns).flat_map(|c| (0..rows).map(move |r| data[r * columns + c])).collect(),
            _ => data.to_vec(),
        }
    };
    let renamed = |(name, value): (&str, ValueId)| {
        let stored = name
            .replace("layers.", "h.")
            .replace("self_attn.in_proj_", "attn.c_attn.")
            .replace("self_attn.out_proj", "attn.c_proj")
            .replace("linear1", "mlp.c_fc")
            .replace("linear2", "mlp.c_proj")
            .replace("norm1", "ln_1")
            .replace("norm2", "ln_2")
            .replace("norm.", "ln_f.");
        let same = stored.starts_with("wte") || stored.starts_with("wpe");
        let data = if same { given[&stored].as_f32().expect("f32").to_vec() } else { turned(&given[&stored]) };
        (name.to_string(), Tensor::new(g.shape(value), data).expect("fits"))
    };
    let mut other: Given = g.parameters().map(renamed).collect();
    other.insert("ids".into(), words);
    let expected = reference::evaluate(&g, &other).expect("runs");
    for (a, b) in found["logits"].as_f32().expect("f32").iter().zip(expected["logits"].as_f32().expect("f32")) {
        assert!((a - b).abs() <= 1e-6, "{a} and {b}");
    }
}

/// Llama written out with loops, from its papers: one sequence `ids`, logits of its last token.
fn llama_by_hand(gpt: &Gpt, base: f64, weights: &Given, ids: &[i32]) -> Vec<f64> {
    let part = |name: &str| weights[name].to_f64();
    let times = |name: &str, x: &[f64]| -> Vec<f64> {
        part(name).chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    };
    let norm = |name: &str, x: &[f64]| -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.iter().zip(part(name)).map(|(x, w)| x / (mean + f64::from(gpt.epsilon)).sqrt() * w).collect()
    };
    let (size, share) = (gpt.head_width, gpt.heads / gpt.key_heads);
    let turn = |x: &mut [f64], position: usize| {
        for head in x.chunks_mut(size) {
            for i in 0..size / 2 {
                let (sin, cos) = (position as f64 / base.powf(2.0 * i as f64 / size as f64)).sin_cos();
                let (a, b) = (head[i], head[i + size / 2]);
                (head[i], head[i + size / 2]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
    };
    let words = part("model.embed_tokens.weight");
    let mut x: Vec<Vec<f64>> = ids.iter().map(|&id| words[id as usize * gpt.width..][..gpt.width].to_vec()).collect();
    for layer in 0..gpt.layers {
        let name = |end: &str| format!("model.layers.{layer}.{end}.weight");
        let project = |kind: &str, x: &[f64]| {
            let mut y = times(&name(&format!("self_attn.{kind}_proj")), &norm(&name("input_layernorm"), x));
            if let Some(bias) = weights.get(&format!("model.layers.{layer}.self_attn.{kind}_proj.bias")) {
                y.iter_mut().zip(bias.to_f64()).for_each(|(y, b)| *y += b);
            }
            y
        };
        let turned = |kind: &str, t: usize| {
            let mut y = project(kind, &x[t]);
            turn(&mut y, t);
            y
        };
        let keys: Vec<_> = (0..x.len()).map(|t| turned("k", t)).collect();
        let values: Vec<_> = x.iter().map(|x| project("v", x)).collect();
        let attended: Vec<Vec<f64>> = (0..x.len())
            .map(|t| {
                let q = turned("q", t);
                let first = gpt.window.map_or(0, |window| (t + 1).saturating_sub(window));
                let head = |h: usize| {
                    let at = h / share * size;
                    let score = |j: usize| (0..size).map(|c| q[h * size + c] * keys[j][at + c]).sum::<f64>();
                    let e: Vec<f64> = (first..=t).map(|j| (score(j) / (size as f64).sqrt()).exp()).collect();
                    let total: f64 = e.iter().sum();
                    let sum = |c: usize| e.iter().zip(&values[first..]).map(|(e, v)| e * v[at + c]).sum::<f64>();
                    (0..size).map(|c| sum(c) / total).collect::<Vec<_>>()
                };
                (0..gpt.heads).flat_map(head).collect()
            })
            .collect();
        for (x, attended) in x.iter_mut().zip(attended) {
            let y = times(&name("self_attn.o_proj"), &attended);
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
            let normed = norm(&name("post_attention_layernorm"), x);
            let gate = times(&name("mlp.gate_proj"), &normed);
            let up = times(&name("mlp.up_proj"), &normed);
            let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let y = times(&name("mlp.down_proj"), &inner);
            x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        }
    }
    let last = norm("model.norm.weight", x.last().expect("a token"));
    times(if gpt.tied { "model.embed_tokens.weight" } else { "lm_head.weight" }, &last)
}

#[test]
fn llama_is_what_its_papers_say() {
    let llama = Gpt { key_heads: 2, ..Gpt::llama(31, 12, 16, 2, 4, 24) };
    let cases = [
        ("Llama", llama.clone(), 10_000.0),
        ("Mistral", Gpt { window: Some(3), head_width: 6, ..llama.clone() }, 10_000.0),
        (
            "Qwen2",
            Gpt { biases: Biases::Queries, tied: true, position: Positions::Rotary(Rope::new(1e6)), ..llama },
            1e6,
        ),
    ];
    for (name, gpt, base) in cases {
        let mut g = Graph::new();
        let words = g.input("ids", DType::I32, [1, 7]).expect("fits");
        let logits = gpt.build(&mut g, words).expect("fits");
        g.output("logits", logits).expect("fits");
        let mut given = weights(&g);
        let words = ids("ids", 7, 31);
        let expected = llama_by_hand(&gpt, base, &given, &words);
        given.insert("ids".into(), i32s(&[1, 7], &words));
        let found = reference::evaluate_f64(&g, &given).expect("runs")["logits"].to_f64();
        for (a, b) in found[6 * 31..].iter().zip(&expected) {
            // The tables of angles are stored in f32.
            assert!((a - b).abs() <= 1e-6, "{name}: {a} and {b}");
        }
    }
}

#[test]
fn published_configurations_are_read() {
    let llama = |model: &str, more: &str| {
        Gpt::from_config(&format!(
            r#"{{"model_type": "{model}", "vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "hidden_act": "silu",
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 12, "rope_scaling": null {more}}}"#
        ))
    };
    let plain = Gpt { key_heads: 2, ..Gpt::llama(31, 12, 16, 2, 4, 24) };
    assert_eq!(llama("llama", "").expect("fits"), plain);
    let mistral = Gpt { window: Some(8), ..plain.clone() };
    assert_eq!(llama("mistral", r#", "sliding_window": 8"#).expect("fits"), mistral);
    let position = Positions::Rotary(Rope::new(1e6));
    let qwen = Gpt { biases: Biases::Queries, tied: true, position, ..plain };
    let more =
        r#", "sliding_window": 8, "use_sliding_window": false, "tie_word_embeddings": true, "rope_theta": 1000000.0"#;
    assert_eq!(llama("qwen2", more).expect("fits"), qwen);
    let message = |model, more| llama(model, more).expect_err("refused").to_string();
    assert!(message("gemma", "").contains("model_type is `gemma`, expected gpt2, llama, mistral, ministral or qwen2"));
    assert!(message("llama", r#", "attention_bias": true"#).contains("attention_bias"));
    let gpt2 = r#"{"model_type": "gpt2", "vocab_size": 31, "n_positions": 12, "n_embd": 16, "n_layer": 2}"#;
    assert!(Gpt::from_config(gpt2).expect_err("refused").to_string().contains("the field `n_head` is missing"));
}

#[test]
fn configurations_are_held_against_the_weights() {
    let gpt = Gpt { key_heads: 2, ..Gpt::llama(31, 12, 16, 2, 4, 24) };
    let mut g = Graph::new();
    let ids = g.input("ids", DType::I32, [1, 3]).expect("fits");
    gpt.build(&mut g, ids).expect("builds");
    let zeros = |(name, value): (&str, _)| (name.to_string(), Tensor::zeros(DType::F32, g.shape(value)).expect("fits"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.safetensors");
    safetensors::save(&file, &g.parameters().map(zeros).collect()).expect("writes");
    let weights = Weights::open(&file).expect("opens");
    gpt.check_weights(&weights).expect("of this model");
    let other = Gpt { layers: 4000, vocabulary: 32, hidden: 25, ..gpt };
    assert_eq!(
        other.check_weights(&weights).expect_err("of another").to_string(),
        "config.json and the weights are of different models:\n  \
         `num_hidden_layers` is 4000, the weights have 2 layers (`model.layers.N.…`)\n  \
         `vocab_size` is 32, `model.embed_tokens.weight` is [31, 16]\n  \
         `intermediate_size` is 25, `model.layers.0.mlp.up_proj.weight` is [24, 16]"
    );
    let none = weights.rename(|name| (!name.starts_with("model.layers")).then(|| name.to_string())).expect("unique");
    let message = other.check_weights(&none).expect_err("no layers").to_string();
    assert!(message.contains("the weights have no tensor of a layer (`model.layers.0.…`)"), "{message}");
}
