//! Whole models with weights of a formula, against the f64 reference.

use tilewise::{
    DType, Graph, Tensor,
    nn::{self, Bert, EncoderLayer, Gpt, Seq2Seq, Transformer},
    reference::{self, Evaluation},
};

use crate::common::{
    gpu,
    models::{Given, i32s, ids, small_bert, weights},
};

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

/// Two sequences of different lengths; what comes after the second one's end is garbage that no real token sees.
fn gpt_on_the_device(what: &str, gpt: &Gpt) {
    let (tokens, lengths) = (20, [20, 11]);
    let mut g = Graph::new();
    let words = g.input("ids", DType::I32, [2, tokens]).expect("fits");
    let logits = gpt.build(&mut g, words).expect("fits");
    g.output("logits", logits).expect("fits");
    let mut given = weights(&g);
    given.insert("ids".into(), i32s(&[2, tokens], &ids("ids", 2 * tokens, gpt.vocabulary)));
    check(what, &g, &given, "logits", &lengths);
}

#[test]
fn a_gpt_of_6_layers_on_the_device() {
    gpt_on_the_device("GPT-2, 6 layers of 384", &Gpt::gpt2(500, 64, 384, 6, 6));
}

#[test]
fn a_llama_of_6_layers_on_the_device() {
    gpt_on_the_device("Llama, 6 layers of 384", &Gpt { key_heads: 2, ..Gpt::llama(500, 64, 384, 6, 6, 1024) });
}

/// The sizes of the base model of Vaswani et al. (2017), with narrower feed-forward blocks.
#[test]
fn a_transformer_of_6_and_6_layers_on_the_device() {
    let layer = EncoderLayer::new(512, 8, 1024);
    let model = Seq2Seq {
        transformer: Transformer::new(layer, 6, 6),
        source_vocabulary: 400,
        target_vocabulary: 500,
        source_positions: 32,
        target_positions: 32,
    };
    let mut g = Graph::new();
    let source = g.input("source", DType::I32, [2, 18]).expect("fits");
    let lengths = g.input("lengths", DType::I32, [2]).expect("fits");
    let target = g.input("target", DType::I32, [2, 12]).expect("fits");
    let logits = model.build(&mut g, source, lengths, target).expect("fits");
    g.output("logits", logits).expect("fits");
    let mut given = weights(&g);
    given.insert("source".into(), i32s(&[2, 18], &ids("source", 36, 400)));
    given.insert("lengths".into(), i32s(&[2], &[10, 18]));
    given.insert("target".into(), i32s(&[2, 12], &ids("target", 24, 500)));
    check("Transformer, 6 + 6 layers of 512", &g, &given, "logits", &[12, 7]);
}
