//! Layers on the CPU reference: what they build is what they say. Their values against PyTorch's: `tests/corpus/torch`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use proptest::prelude::*;
use tilewise::{
    DType, Graph, Tensor, ValueId,
    graph::{Align, Mask, ScoreStage},
    nn::{self, AttentionMasks, EncoderLayer, MultiheadAttention, Pooling, Weights},
    reference, safetensors,
};

type Given = BTreeMap<String, Tensor>;

/// Values in (−1, 1) for all f32 inputs and parameters that are not given.
fn fill(g: &Graph, mut given: Given) -> Given {
    let names: Vec<(String, ValueId)> = g.inputs().chain(g.parameters()).map(|(n, v)| (n.to_string(), v)).collect();
    for (name, value) in names {
        let n = g.shape(value).elements().expect("small");
        let seed = name.bytes().fold(7usize, |h, b| (h * 31 + b as usize) % 1009);
        let data: Vec<f32> = (0..n).map(|i| ((i * 53 + seed) % 97) as f32 / 48.5 - 1.0).collect();
        given.entry(name).or_insert_with(|| Tensor::new(g.shape(value), data).expect("fits"));
    }
    given
}

fn evaluate(g: &Graph, given: Given) -> BTreeMap<String, Tensor> {
    g.verify().expect("valid");
    reference::evaluate(g, &fill(g, given)).expect("runs")
}

fn i32s(values: &[i32]) -> Tensor {
    Tensor::new([values.len()], values.to_vec()).expect("fits")
}

#[test]
fn a_packed_sequence_comes_out_by_sequence_and_goes_back() {
    let mut g = Graph::new();
    let data = g.input("data", DType::F32, [6, 1]).expect("fits");
    // A: 0 3 5, C: 1 4, B: 2, sorted longest first; the batch was A, B, C.
    let (tokens, offsets) = nn::from_packed_sequence(&mut g, data, &[3, 2, 1], Some(&[0, 2, 1])).expect("fits");
    let back = nn::to_packed_sequence(&mut g, tokens, &[3, 2, 1], Some(&[0, 2, 1])).expect("fits");
    g.output("tokens", tokens).expect("fits");
    g.output("offsets", offsets).expect("fits");
    g.output("back", back).expect("fits");
    let data = Tensor::new([6, 1], (0..6).map(|i| i as f32).collect::<Vec<_>>()).expect("fits");
    let out = evaluate(&g, [("data".to_string(), data.clone())].into());
    assert_eq!(out["tokens"].as_f32(), Some(&[0.0, 3.0, 5.0, 2.0, 1.0, 4.0][..]));
    assert_eq!(out["offsets"].as_i32(), Some(&[0, 3, 4, 6][..]));
    assert_eq!(out["back"], data);
}

#[test]
fn a_packed_sequence_that_is_none_is_refused() {
    let mut g = Graph::new();
    let data = g.input("data", DType::F32, [6, 1]).expect("fits");
    let mut message = |sizes: &[usize], indices: Option<&[usize]>| {
        nn::from_packed_sequence(&mut g, data, sizes, indices).expect_err("refused").to_string()
    };
    assert!(message(&[3, 2], None).contains("add up to 5 rows"));
    assert!(message(&[1, 2, 3], None).contains("increase"));
    assert!(message(&[3, 2, 1], Some(&[0, 0, 1])).contains("no permutation"));
    assert!(message(&[3, 2, 1], Some(&[0, 1])).contains("no permutation"));
    assert!(message(&[usize::MAX, 7], None).contains("add up to"));
}

#[test]
fn caches_and_memories_without_room_or_of_another_graph_are_refused() {
    let mut g = Graph::new();
    let counts = g.input("counts", DType::I32, [2]).expect("fits");
    let mut cache = |tokens, window| nn::Cache::new(&mut g, counts, tokens, 100, window, true).err();
    assert_eq!(cache(1, Some(100)).map(|e| e.to_string()), None);
    for (tokens, window) in [(2, Some(100)), (2, Some(usize::MAX)), (1, None)] {
        let message = cache(tokens, window).expect("refused").to_string();
        assert!(message.contains("a circular cache of 100 places can't take"), "{message}");
    }
    let memory = nn::Memory::new(&g, counts, 50).expect("fits");
    let [k, _] = memory.recall(&mut Graph::new(), "other", [4, 8]).expect("parameters alone");
    let mut other = Graph::new();
    other.input("first", DType::F32, [2, 4, 1, 8]).expect("fits");
    let q = other.input("q", DType::F32, [2, 4, 1, 8]).expect("fits");
    let message = other.attention(q, k, k, memory.mask()).expect_err("refused").to_string();
    assert!(message.starts_with("attention: "), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn pack_and_unpack_are_inverse_on_real_tokens(lengths in prop::collection::vec(0usize..6, 1..5)) {
        let (items, tokens, width) = (lengths.len(), 6, 3);
        let total: usize = lengths.iter().sum();
        prop_assume!(total > 0);
        let mut g = Graph::new();
        let x = g.input("x", DType::F32, [items, tokens, width]).expect("fits");
        let len = g.input("lengths", DType::I32, [items]).expect("fits");
        let packed = nn::pack(&mut g, x, len, total).expect("fits");
        let offsets = nn::offsets(&mut g, len).expect("fits");
        let back = nn::unpack(&mut g, packed, offsets, tokens).expect("fits");
        g.output("packed", packed).expect("fits");
        g.output("back", back).expect("fits");
        let given: Vec<i32> = lengths.iter().map(|&l| l as i32).collect();
        let inputs = fill(&g, [("lengths".to_string(), i32s(&given))].into());
        let out = reference::evaluate(&g, &inputs).expect("runs");
        let x = inputs["x"].as_f32().expect("f32");
        let row = |b: usize, t: usize| &x[(b * tokens + t) * width..][..width];
        let expected: Vec<f32> =
            lengths.iter().enumerate().flat_map(|(b, &l)| (0..l).flat_map(move |t| row(b, t).to_vec())).collect();
        prop_assert_eq!(out["packed"].as_f32().expect("f32"), &expected[..]);
        let back = out["back"].as_f32().expect("f32");
        for (b, &length) in lengths.iter().enumerate() {
            for t in 0..tokens {
                let found = &back[(b * tokens + t) * width..][..width];
                let expected = if t < length { row(b, t).to_vec() } else { vec![0.0; width] };
                prop_assert_eq!(found, &expected[..]);
            }
        }
    }
}

/// By the definition of a place, position by position, also where numbers overflow.
#[test]
fn a_cache_counts_the_tokens_that_have_no_place() {
    const PLACES: i64 = 5;
    const TOKENS: usize = 3;
    let starts: Vec<i32> = [i32::MIN, i32::MAX, 100, -100].into_iter().chain(-4..8).collect();
    let items = starts.len();
    for circular in [false, true] {
        for length in [None, Some(-1), Some(0), Some(1), Some(2), Some(3), Some(4), Some(i32::MAX)] {
            let mut g = Graph::new();
            let at = g.input("starts", DType::I32, [items]).expect("valid");
            let given = length.map(|_| g.input("lengths", DType::I32, [items]).expect("valid"));
            let window = circular.then_some(2);
            let cache = nn::Cache::new(&mut g, at, TOKENS, PLACES as usize, window, circular).expect("valid");
            let dropped = cache.dropped(&mut g, given).expect("valid");
            g.output("dropped", dropped).expect("valid");
            let mut inputs = BTreeMap::from([("starts".to_string(), i32s(&starts))]);
            inputs.extend(length.map(|length| ("lengths".to_string(), i32s(&vec![length; items]))));
            let found = evaluate(&g, inputs)["dropped"].clone();
            let real = length.map_or(TOKENS, |length| length.clamp(0, TOKENS as i32) as usize);
            let lost = |start: i32| {
                let positions = (0..real as i64).map(|t| i64::from(start) + t);
                positions.filter(|&p| p < 0 || (!circular && p >= PLACES)).count() as i32
            };
            let expected: Vec<i32> = starts.iter().map(|&start| lost(start)).collect();
            assert_eq!(found.as_i32(), Some(&expected[..]), "circular {circular}, length {length:?}");
            for (item, &start) in starts.iter().enumerate() {
                let (mut starts, mut lengths) = (vec![0; items], vec![0; items]);
                (starts[item], lengths[item]) = (start, real);
                assert_eq!(cache.check(&starts, &lengths).is_err(), expected[item] > 0, "{start}, {real} tokens");
            }
        }
    }
    let mut g = Graph::new();
    let at = g.input("starts", DType::I32, [2]).expect("valid");
    let cache = nn::Cache::new(&mut g, at, 2, 5, None, false).expect("valid");
    let wrong = g.input("lengths", DType::I32, [3]).expect("valid");
    let message = cache.dropped(&mut g, Some(wrong)).expect_err("refused").to_string();
    assert_eq!(message, "cache: `lengths` is lengths: i32 [3], expected i32 [2]");
    let message = |starts: &[i32], lengths: &[usize]| cache.check(starts, lengths).expect_err("refused").to_string();
    assert_eq!(message(&[0], &[1, 1]), "cache: 1 positions and 2 lengths were given for 2 items");
    assert_eq!(message(&[0, 0], &[1, 3]), "cache: item 1: 3 tokens were given, the graph takes 2");
    assert_eq!(message(&[-1, 0], &[1, 1]), "cache: item 0: the position is -1, expected 0 or more");
    assert!(message(&[4, 5], &[1, 2]).starts_with("cache: item 1: 2 tokens of 2 from position 5 on have no place, "));
}

#[test]
fn padded_packed_and_alone_agree_on_real_tokens() {
    let lengths = [4usize, 1, 3];
    let layer = EncoderLayer { norm_first: true, ..EncoderLayer::new(8, 2, 16) };
    let causal = Mask::causal(Align::TopLeft);
    let mut padded = Graph::new();
    let x = padded.input("x", DType::F32, [3, 4, 8]).expect("fits");
    let len = padded.input("lengths", DType::I32, [3]).expect("fits");
    let mask = Mask::key_lengths(len) & causal.clone();
    let y = layer.build(&mut padded, "layer", x, &mask.into()).expect("fits");
    padded.output("y", y).expect("fits");
    let given = fill(&padded, [("lengths".to_string(), i32s(&[4, 1, 3]))].into());
    let whole = reference::evaluate(&padded, &given).expect("runs");
    let whole = whole["y"].as_f32().expect("f32");
    let x = given["x"].as_f32().expect("f32");
    let weights: Given =
        given.iter().filter(|(name, _)| name.starts_with("layer")).map(|(n, t)| (n.clone(), t.clone())).collect();

    let mut packed = Graph::new();
    let p = packed.input("x", DType::F32, [8, 8]).expect("fits");
    let offsets = packed.input("offsets", DType::I32, [4]).expect("fits");
    let mask = Mask::packed(offsets, offsets) & causal.clone();
    let y = layer.build(&mut packed, "layer", p, &mask.into()).expect("fits");
    packed.output("y", y).expect("fits");
    let rows: Vec<f32> = lengths.iter().enumerate().flat_map(|(b, &l)| x[b * 32..][..l * 8].to_vec()).collect();
    let mut inputs = weights.clone();
    inputs.insert("x".into(), Tensor::new([8, 8], rows.clone()).expect("fits"));
    inputs.insert("offsets".into(), i32s(&[0, 4, 5, 8]));
    let together = reference::evaluate(&packed, &inputs).expect("runs");
    let together = together["y"].as_f32().expect("f32");

    let mut at = 0;
    for (b, &length) in lengths.iter().enumerate() {
        let mut alone = Graph::new();
        let x = alone.input("x", DType::F32, [1, length, 8]).expect("fits");
        let y = layer.build(&mut alone, "layer", x, &causal.clone().into()).expect("fits");
        alone.output("y", y).expect("fits");
        let mut inputs = weights.clone();
        inputs.insert("x".into(), Tensor::new([1, length, 8], rows[at..at + length * 8].to_vec()).expect("fits"));
        let out = reference::evaluate(&alone, &inputs).expect("runs");
        let out = out["y"].as_f32().expect("f32");
        assert_eq!(out, &whole[b * 32..][..length * 8], "padded, item {b}");
        assert_eq!(out, &together[at..at + length * 8], "packed, item {b}");
        at += length * 8;
    }
}

#[test]
fn pooling_takes_real_tokens_only() {
    for (pooling, expected) in [
        (Pooling::Mean, [2.0, -3.0, 5.0, 5.0, 0.0, 0.0]),
        (Pooling::Max, [3.0, -2.0, 5.0, 5.0, 0.0, 0.0]),
        (Pooling::First, [1.0, -2.0, 5.0, 5.0, 9.0, 9.0]),
    ] {
        let mut g = Graph::new();
        let x = g.input("x", DType::F32, [3, 2, 2]).expect("fits");
        let lengths = g.input("lengths", DType::I32, [3]).expect("fits");
        let real = nn::key_mask(&mut g, lengths, 2).expect("fits");
        let y = nn::pool(&mut g, x, real, pooling).expect("fits");
        g.output("y", y).expect("fits");
        let x = vec![1.0f32, -2.0, 3.0, -4.0, 5.0, 5.0, 1e9, -1e9, 9.0, 9.0, 9.0, 9.0];
        let x = Tensor::new([3, 2, 2], x).expect("fits");
        let out = evaluate(&g, [("x".to_string(), x), ("lengths".to_string(), i32s(&[2, 1, 0]))].into());
        assert_eq!(out["y"].as_f32(), Some(&expected[..]), "{pooling:?}");
    }
}

/// Every module that a PyTorch hook would see has left its path, in the order in which the modules run.
#[test]
fn layers_trace_what_their_modules_give() {
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [2, 3, 8]).expect("fits");
    let memory = g.input("memory", DType::F32, [2, 5, 6]).expect("fits");
    let layer = nn::DecoderLayer { memory_width: Some(6), ..nn::DecoderLayer::new(8, 2, 16) };
    let none = AttentionMasks::default();
    let stack = nn::Decoder { layer, layers: 1, final_norm: true };
    let y = stack.build(&mut g, "", x, memory, &none, &none).expect("fits");
    let paths: Vec<&str> = g.traces().map(|(path, _)| path).collect();
    let own: Vec<&str> = paths.iter().filter_map(|path| path.strip_prefix("layers.0.")).collect();
    let attention = |name: &'static str| {
        let parts = ["q", "k", "v", "q_heads", "k_heads", "v_heads", "context", "merged", "out_proj"];
        parts.map(|part| format!("{name}.{part}")).into_iter().chain([name.to_string()])
    };
    let rest = ["linear1", "activation", "dropout", "linear2", "dropout3", "norm3"].map(String::from);
    let expected: Vec<String> = attention("self_attn")
        .chain(["dropout1".into(), "norm1".into()])
        .chain(attention("multihead_attn"))
        .chain(["dropout2".into(), "norm2".into()])
        .chain(rest)
        .collect();
    assert_eq!(own, expected);
    assert_eq!((paths.last(), g.traced("norm")), (Some(&"norm"), Some(y)));
    assert_eq!(g.traced("layers.0.norm3"), g.traced("layers.0"));
}

/// The two polarities of boolean masks, and a float mask, say the same thing.
#[test]
fn masks_of_either_polarity_agree() {
    let run = |kind: &str| {
        let mut g = Graph::new();
        let x = g.input("x", DType::F32, [2, 3, 8]).expect("fits");
        let mut given = Given::new();
        let hidden = [false, true, true, false, false, true, false, false, false];
        let masks = match kind {
            "attn_mask" => {
                let mask = g.input("mask", DType::Bool, [3, 3]).expect("fits");
                given.insert("mask".into(), Tensor::new([3, 3], hidden.to_vec()).expect("fits"));
                AttentionMasks { attn_mask: Some(mask), ..AttentionMasks::default() }
            }
            "float" => {
                let mask = g.input("mask", DType::F32, [3, 3]).expect("fits");
                let values: Vec<f32> = hidden.iter().map(|&h| if h { f32::NEG_INFINITY } else { 0.0 }).collect();
                given.insert("mask".into(), Tensor::new([3, 3], values).expect("fits"));
                AttentionMasks { attn_mask: Some(mask), ..AttentionMasks::default() }
            }
            "per head" => {
                let mask = g.input("mask", DType::Bool, [4, 3, 3]).expect("fits");
                given.insert("mask".into(), Tensor::new([4, 3, 3], hidden.repeat(4)).expect("fits"));
                AttentionMasks { attn_mask: Some(mask), ..AttentionMasks::default() }
            }
            _ => Mask::causal(Align::TopLeft).into(),
        };
        let y = MultiheadAttention::new(8, 2).build(&mut g, "", [x, x, x], &masks).expect("fits");
        g.output("y", y).expect("fits");
        evaluate(&g, given)["y"].clone()
    };
    let causal = run("causal");
    for kind in ["attn_mask", "float", "per head"] {
        assert_eq!(run(kind), causal, "{kind}");
    }
}

#[test]
fn sequence_first_is_batch_first_turned() {
    let run = |batch_first: bool| {
        let mut g = Graph::new();
        let x = g.input("x", DType::F32, if batch_first { [2, 3, 8] } else { [3, 2, 8] }).expect("fits");
        let attention = MultiheadAttention { batch_first, ..MultiheadAttention::new(8, 2) };
        let mut y = attention.build(&mut g, "", [x, x, x], &AttentionMasks::default()).expect("fits");
        if !batch_first {
            y = g.permute(y, &[1, 0, 2]).expect("fits");
        }
        g.output("y", y).expect("fits");
        let batch: Vec<f32> = (0..48).map(|i| (i as f32 * 0.7).sin()).collect();
        let turned: Vec<f32> = (0..48).map(|i| batch[(i / 8 % 2) * 24 + i / 16 * 8 + i % 8]).collect();
        let x = if batch_first { Tensor::new([2, 3, 8], batch) } else { Tensor::new([3, 2, 8], turned) };
        evaluate(&g, [("x".to_string(), x.expect("fits"))].into())["y"].clone()
    };
    assert_eq!(run(true), run(false));
}

/// Attention written out, stage by stage, is the fused operation.
#[test]
fn written_out_attention_is_attention() {
    type Build = fn(&mut Graph) -> Mask;
    let masks: Vec<(&str, Build)> = vec![
        ("none", |_| Mask::none()),
        ("causal bottom right", |_| Mask::causal(Align::BottomRight)),
        ("window with a negative offset", |_| Mask::window(1, 2, Align::Offset(-2))),
        ("lengths, aligned to them", |g| {
            let lengths = g.input("lengths", DType::I32, [2]).expect("fits");
            Mask::key_lengths(lengths) & Mask::causal(Align::BottomRight)
        }),
        ("offsets per item", |g| {
            let offsets = g.input("offsets", DType::I32, [2]).expect("fits");
            Mask::causal(Align::PerItem) & Mask::offsets(offsets)
        }),
        ("short boolean and bias", |g| {
            let mask = g.input("mask", DType::Bool, [3, 4]).expect("fits");
            let bias = g.input("bias", DType::F32, [4, 1, 5]).expect("fits");
            Mask::boolean(mask) & Mask::bias(bias)
        }),
    ];
    for (name, mask) in masks {
        let mut g = Graph::new();
        let q = g.input("q", DType::F32, [2, 4, 3, 6]).expect("fits");
        let k = g.input("k", DType::F32, [2, 2, 5, 6]).expect("fits");
        let v = g.input("v", DType::F32, [2, 2, 5, 3]).expect("fits");
        let slopes = g.input("slopes", DType::F32, [4]).expect("fits");
        let mask = mask(&mut g);
        let args = tilewise::graph::AttentionArgs { softcap: Some(2.0), slopes: Some(slopes), ..mask.into() };
        let fused = g.attention(q, k, v, &args).expect(name);
        let weights = g.attention_scores(q, k, &args, ScoreStage::Weights).expect(name);
        // Each key head serves two query heads.
        let weights = g.reshape(weights, [2, 2, 2, 3, 5]).expect(name);
        let v = g.reshape(v, [2, 2, 1, 5, 3]).expect(name);
        let product = g.matmul(weights, v).expect(name);
        let written = g.reshape(product, [2, 4, 3, 3]).expect(name);
        g.output("fused", fused).expect(name);
        g.output("written", written).expect(name);
        let mask: Vec<bool> = (0..12).map(|i| i % 3 != 0).collect();
        let given = [
            ("lengths".to_string(), i32s(&[4, 2])),
            ("offsets".to_string(), i32s(&[1, -2])),
            ("mask".to_string(), Tensor::new([3, 4], mask).expect("fits")),
        ];
        let given = given.into_iter().filter(|(name, _)| g.find(name).is_some()).collect();
        let out = evaluate(&g, given);
        for (a, b) in out["fused"].as_f32().expect("f32").iter().zip(out["written"].as_f32().expect("f32")) {
            assert!((a - b).abs() <= 1e-6, "{name}: {a} and {b}");
        }
    }
}

/// An offset counts as at most 2³⁰: the position of a query does not wrap around to the other end.
#[test]
fn the_farthest_offsets_see_all_and_nothing() {
    for (offset, weight) in [(i32::MAX, 0.2), (i32::MIN, 0.0)] {
        let mut g = Graph::new();
        let q = g.input("q", DType::F32, [1, 1, 3, 6]).expect("fits");
        let k = g.constant(Tensor::zeros(DType::F32, [1, 1, 5, 6]).expect("small")).expect("new");
        let weights = g.attention_weights(q, k, Mask::causal(Align::Offset(offset))).expect("fits");
        g.output("weights", weights).expect("new");
        let out = evaluate(&g, BTreeMap::new());
        assert_eq!(out["weights"].as_f32(), Some(&[weight; 15][..]), "{offset}");
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("writable");
    folder
}

#[test]
fn weights_that_do_not_fit_are_all_listed() {
    let file = folder("weights").join("model.safetensors");
    let tensors: Given = [
        ("layer.weight".to_string(), Tensor::zeros(DType::F32, [3, 3]).expect("fits")),
        ("stranger".to_string(), Tensor::zeros(DType::F32, [1]).expect("fits")),
    ]
    .into();
    safetensors::save(&file, &tensors).expect("writable");
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [1, 3]).expect("fits");
    let y = nn::Linear::new(3, 2).build(&mut g, "layer", x).expect("fits");
    g.output("y", y).expect("fits");
    let message = Weights::open(&file).expect("opens").check(&g).expect_err("does not fit").to_string();
    for part in [
        "1 missing:\n  layer.bias: f32 [2]",
        "1 unexpected:\n  stranger: [1]",
        "1 of another shape:\n  layer.weight: the file has [3, 3], the graph needs [2, 3]",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn shards_halves_and_other_names_load() {
    let folder = folder("shards");
    let half = |values: &[f32]| {
        Tensor::new([values.len()], values.iter().map(|&x| half::f16::from_f32(x)).collect::<Vec<_>>()).expect("fits")
    };
    let one: Given = [("bert.norm.weight".to_string(), half(&[1.5, -2.0]))].into();
    let two: Given = [("bert.norm.bias".to_string(), half(&[0.25, 0.0])), ("extra".to_string(), half(&[0.0]))].into();
    safetensors::save(folder.join("a.safetensors"), &one).expect("writable");
    safetensors::save(folder.join("b.safetensors"), &two).expect("writable");
    let index = r#"{"weight_map": {"bert.norm.weight": "a.safetensors", "bert.norm.bias": "b.safetensors"}}"#;
    fs::write(folder.join("model.safetensors.index.json"), index).expect("writable");
    let mut g = Graph::new();
    let x = g.input("x", DType::F32, [1, 2]).expect("fits");
    let y = nn::LayerNorm::new(2).build(&mut g, "norm", x).expect("fits");
    g.output("y", y).expect("fits");
    let weights = Weights::open(&folder).expect("opens");
    let weights = weights.rename(|name| name.strip_prefix("bert.").map(String::from)).expect("unique");
    let tensors = weights.tensors(&g).expect("fits");
    assert_eq!(tensors["norm.weight"].as_f32(), Some(&[1.5, -2.0][..]));
    assert_eq!(tensors["norm.bias"].as_f32(), Some(&[0.25, 0.0][..]));
}

#[test]
fn broken_weight_files_are_named() {
    let folder = folder("broken");
    let message = |path: &str| Weights::open(folder.join(path)).expect_err("refused").to_string();
    assert!(message("").contains("neither model.safetensors.index.json nor model.safetensors"));
    assert!(message("none.safetensors").contains("can't be opened"));
    fs::write(folder.join("short.safetensors"), [1, 2]).expect("writable");
    assert!(message("short.safetensors").contains("2 bytes are no safetensors file"));
    fs::write(folder.join("model.pt"), b"PK\x03\x04 and more").expect("writable");
    assert!(message("model.pt").contains("this is a zip archive, as torch.save writes"));
    fs::write(folder.join("out.index.json"), r#"{"weight_map": {"w": "../short.safetensors"}}"#).expect("writable");
    assert!(message("out.index.json").contains("names `../short.safetensors`, which leads out of the folder"));
    fs::write(folder.join("root.index.json"), r#"{"weight_map": {"w": "/etc/passwd"}}"#).expect("writable");
    assert!(message("root.index.json").contains("names `/etc/passwd`, which leads out of the folder"));
    fs::write(folder.join("wild.safetensors"), u64::MAX.to_le_bytes()).expect("writable");
    assert!(message("wild.safetensors").contains("no safetensors file"));
    let good = safetensors::to_bytes(&[("x".to_string(), Tensor::scalar(1.0))].into()).expect("writes");
    fs::write(folder.join("cut.safetensors"), &good[..good.len() - 2]).expect("writable");
    assert!(message("cut.safetensors").contains("is incomplete"));
    fs::write(folder.join("x.index.json"), r#"{"weight_map": {"w": "lost.safetensors"}}"#).expect("writable");
    assert!(message("x.index.json").contains("lost.safetensors"));
}

/// The published slopes: of 8 heads in the paper's text (Press et al., 2022, section 3), of 12 and 112 (BLOOM's) by its code, which
/// takes every other one of twice the power of two below.
#[test]
fn alibi_slopes_are_the_published_ones() {
    let slopes = |heads: usize| {
        let mut g = Graph::new();
        let value = nn::alibi_slopes(&mut g, heads).expect("fits");
        let values = reference::Evaluation::<f64>::new(&g, &Given::new()).expect("runs");
        values.value(value).to_f64()
    };
    let half = |n: i32| 0.5f64.powi(n);
    assert_eq!(slopes(8), [1, 2, 3, 4, 5, 6, 7, 8].map(half));
    assert_eq!(slopes(1), [half(8)]);
    assert_eq!(slopes(2), [half(4), half(8)]);
    let sixteen: Vec<f64> = (1..=16).map(|h| 0.5f64.powf(f64::from(h) / 2.0)).collect();
    let near = |found: &[f64], expected: &[f64]| {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= 1e-7 * b, "{a} and {b}");
        }
    };
    near(&slopes(16), &sixteen);
    // As the paper's code prints them for 12 heads.
    let twelve = [
        0.5,
        0.25,
        0.125,
        0.0625,
        0.03125,
        0.015625,
        0.0078125,
        0.00390625,
        std::f64::consts::FRAC_1_SQRT_2,
        0.35355339059327384,
        0.17677669529663692,
        0.08838834764831849,
    ];
    near(&slopes(12), &twelve);
    let bloom = slopes(112);
    near(&bloom[..64], &(1..=64).map(|h| 0.5f64.powf(f64::from(h) / 8.0)).collect::<Vec<_>>());
    near(&bloom[64..], &(0..48).map(|h| 0.5f64.powf(f64::from(2 * h + 1) / 16.0)).collect::<Vec<_>>());
    let error = nn::alibi_slopes(&mut Graph::new(), 0).expect_err("refused").to_string();
    assert_eq!(error, "alibi_slopes: there are 0 heads, expected at least 1");
}
