//! Whole models with weights of a formula: their wiring against layers that PyTorch has checked, the device against the f64
//! reference.

mod common;

use std::collections::BTreeMap;

use common::gpu;
use tilewise::{
    DType, Graph, Tensor, ValueId,
    graph::Mask,
    nn::{self, Bert, EncoderLayer},
    reference::{self, Evaluation},
};

type Given = BTreeMap<String, Tensor>;

/// SplitMix64 (Steele, Lea and Flood, 2014) as a function of name and place: values in (−1, 1).
fn draw(name: &str, n: usize) -> impl Iterator<Item = f32> {
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (1..=n as u64).map(move |i| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

/// Weights of the size that trained ones have: matrices by the root of their width, norms around 1, small biases.
fn weights(g: &Graph) -> Given {
    let tensor = |(name, value): (&str, ValueId)| {
        let shape = g.shape(value);
        let n = shape.elements().expect("small");
        let (middle, scale) = match shape[..] {
            [_, _] if name.contains("embed") || name.contains("wte") || name.contains("wpe") => (0.0, 1.0),
            [_, inputs] => (0.0, 1.7 / (inputs as f32).sqrt()),
            _ if name.ends_with("bias") => (0.0, 0.1),
            _ => (1.0, 0.2),
        };
        let data: Vec<f32> = draw(name, n).map(|x| middle + scale * x).collect();
        (name.to_string(), Tensor::new(shape, data).expect("fits"))
    };
    g.parameters().map(tensor).collect()
}

fn i32s(shape: &[usize], values: &[i32]) -> Tensor {
    Tensor::new(shape, values.to_vec()).expect("fits")
}

fn ids(name: &str, n: usize, vocabulary: usize) -> Vec<i32> {
    draw(name, n).map(|x| ((x + 1.0) / 2.0 * vocabulary as f32) as i32 % vocabulary as i32).collect()
}

/// Runs a graph on the device and in f64; the largest error at the rows `[item, token]` that `real` says, over the peak there, must
/// be at most 1e-4.
fn check(what: &str, g: &Graph, given: &Given, output: &str, lengths: &[usize]) {
    let weights: Given = g.parameters().map(|(name, _)| (name.to_string(), given[name].clone())).collect();
    let inputs: Vec<(&str, &Tensor)> = g.inputs().map(|(name, _)| (name, &given[name])).collect();
    let mut program = gpu().compile(g, &weights).expect("compiles");
    let found = program.run(&inputs).expect("runs")[output].clone();
    let expected = Evaluation::<f64>::new(g, given).expect("runs").into_outputs(g)[output].to_f64();
    let (shape, found) = (found.shape().clone(), found.to_f64());
    let (tokens, width) = (shape[1], shape[2]);
    let real = |place: &usize| place / width % tokens < lengths[place / width / tokens];
    let places: Vec<usize> = (0..found.len()).filter(real).collect();
    let peak = places.iter().map(|&i| expected[i].abs()).fold(0.0, f64::max);
    let error = places.iter().map(|&i| (found[i] - expected[i]).abs()).fold(0.0, f64::max);
    assert!(places.iter().all(|&i| found[i].is_finite()) && peak > 0.0, "{what}: not finite, or all zero");
    eprintln!("{what}: error {error:.3e} of {:.3e} allowed (peak {peak:.3})", 1e-4 * peak);
    assert!(error <= 1e-4 * peak, "{what}: error {error:.3e} of {:.3e} allowed", 1e-4 * peak);
}

fn small_bert() -> Bert {
    Bert { epsilon: 1e-5, pooler: true, ..Bert::new(31, 12, 16, 2, 4, 24) }
}

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
    let layer = EncoderLayer { activation: nn::Activation::Gelu, ..EncoderLayer::new(16, 4, 24) };
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
fn a_packed_bert_gives_what_a_padded_one_gives() {
    let bert = small_bert();
    let (lengths, tokens) = ([5usize, 1, 7], 7);
    let mut g = Graph::new();
    let padded = g.input("ids", DType::I32, [3, tokens]).expect("fits");
    let packed = g.input("rows", DType::I32, [13]).expect("fits");
    let length = g.input("lengths", DType::I32, [3]).expect("fits");
    let offsets = nn::offsets(&mut g, length).expect("fits");
    let out = bert.build(&mut g, "bert", padded, None, Some(length)).expect("fits");
    let short = bert.build_packed(&mut g, "bert", packed, None, offsets).expect("fits");
    g.output("padded", out.hidden).expect("fits");
    g.output("packed", short.hidden).expect("fits");
    g.output("pooled", out.pooled.expect("there is one")).expect("fits");
    g.output("packed pooled", short.pooled.expect("there is one")).expect("fits");
    let mut given = weights(&g);
    let words = ids("ids", 3 * tokens, 31);
    let rows: Vec<i32> = lengths.iter().enumerate().flat_map(|(b, &l)| words[b * tokens..][..l].to_vec()).collect();
    given.insert("ids".into(), i32s(&[3, tokens], &words));
    given.insert("rows".into(), i32s(&[13], &rows));
    given.insert("lengths".into(), i32s(&[3], &lengths.map(|l| l as i32)));
    let out = reference::evaluate(&g, &given).expect("runs");
    let values = |name: &str| out[name].as_f32().expect("f32").to_vec();
    let (padded, packed) = (values("padded"), values("packed"));
    let row = |b: usize, t: usize| padded[(b * tokens + t) * 16..][..16].to_vec();
    let real: Vec<f32> = lengths
        .iter()
        .enumerate()
        .flat_map(|(b, &l)| (0..l).flat_map(move |t| [(b, t)]))
        .flat_map(|(b, t)| row(b, t))
        .collect();
    assert_eq!(packed, real);
    assert_eq!(values("pooled"), values("packed pooled"));
    let weights: Given = g.parameters().map(|(name, _)| (name.to_string(), given[name].clone())).collect();
    let inputs: Vec<(&str, &Tensor)> = g.inputs().map(|(name, _)| (name, &given[name])).collect();
    let device = gpu().compile(&g, &weights).expect("compiles").run(&inputs).expect("runs");
    for name in ["packed", "packed pooled"] {
        for (a, b) in device[name].as_f32().expect("f32").iter().zip(values(name)) {
            assert!((a - b).abs() <= 1e-5, "{name}: {a} and {b}");
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

/// The size of all-MiniLM-L6-v2, but for the vocabulary.
#[test]
fn a_bert_of_6_layers_on_the_device() {
    let bert = Bert::new(500, 64, 384, 6, 12, 1536);
    let mut g = Graph::new();
    let words = g.input("ids", DType::I32, [2, 24]).expect("fits");
    let lengths = g.input("lengths", DType::I32, [2]).expect("fits");
    let out = bert.build(&mut g, "", words, None, Some(lengths)).expect("fits");
    g.output("hidden", out.hidden).expect("fits");
    let mut given = weights(&g);
    given.insert("ids".into(), i32s(&[2, 24], &ids("ids", 48, 500)));
    given.insert("lengths".into(), i32s(&[2], &[24, 13]));
    check("BERT, 6 layers of 384", &g, &given, "hidden", &[24, 13]);
}
