//! Graphs to begin with: the cases of `tilewise verify`, layers and models, and random ones.

use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use serde_json::Value;
use tilewise::{
    DType, Graph,
    graph::{Align, AttentionArgs, Mask, MaskMod, Op, ScoreMod},
    nn::{self, Bert, Gpt},
    quantize::Quantization,
    verify::cases::{self, Level},
};

use crate::common::random::random_graph;

/// Bytes of JSON up to which a graph is a seed: mutations should hit its structure, not its constants.
const LONGEST: usize = 6000;

/// A graph to begin with: one that was made once, or a random one.
pub(super) fn graph(u: &mut Unstructured<'_>) -> Result<Value> {
    if u.ratio(1, 4)? {
        let numbers: Vec<u32> = (0..u.int_in_range(4..=40)?).map(|_| u.arbitrary()).collect::<Result<_>>()?;
        return Ok(document(&random_graph(&numbers).graph).unwrap_or_default());
    }
    Ok(u.choose(all())?.clone())
}

/// All of them, made once.
fn all() -> &'static [Value] {
    static SEEDS: OnceLock<Vec<Value>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let cases = cases::all(Level::Quick, 1).expect("the cases are valid");
        let graphs = cases.into_iter().map(|case| case.graph).chain(composed().expect("they are valid"));
        graphs.filter_map(|graph| document(&graph)).filter(|seed| seed.to_string().len() < LONGEST).collect()
    })
}

/// Graphs of several operations.
fn composed() -> tilewise::Result<Vec<Graph>> {
    let mut graphs = Vec::new();
    let mut add = |build: &dyn Fn(&mut Graph) -> tilewise::Result<()>| -> tilewise::Result<()> {
        let mut g = Graph::new();
        build(&mut g)?;
        graphs.push(g);
        Ok(())
    };
    add(&|g| {
        let source = g.input("source", DType::F32, [2, 5, 12])?;
        let memory = nn::EncoderLayer::new(12, 3, 20).build(g, "encoder", source, &nn::AttentionMasks::default())?;
        g.output("memory", memory)
    })?;
    add(&|g| {
        let (target, memory) = (g.input("target", DType::F32, [2, 3, 8])?, g.input("memory", DType::F32, [2, 4, 8])?);
        let causal = Mask::causal(Align::TopLeft).into();
        let layer = nn::DecoderLayer::new(8, 2, 16);
        let y = layer.build(g, "decoder", target, memory, &causal, &nn::AttentionMasks::default())?;
        g.output("y", y)
    })?;
    add(&|g| {
        let (ids, lengths) = (g.input("ids", DType::I32, [2, 4])?, g.input("lengths", DType::I32, [2])?);
        let out = Bert::new(11, 6, 8, 1, 2, 12).build(g, "", ids, None, Some(lengths))?;
        g.output("hidden", out.hidden)
    })?;
    // A step of decoding, with a state.
    add(&|g| {
        let position = g.input("position", DType::I32, [2])?;
        let x = g.input("x", DType::F32, [2, 1, 8])?;
        let heads = g.split_heads(x, 2)?;
        let cache = g.input("cache", DType::F32, [2, 2, 6, 4])?;
        let (grown, dropped) = g.append(cache, heads, position, 2, false)?;
        g.update(cache, grown)?;
        let y = g.attention(heads, grown, grown, Mask::causal(Align::BottomRight))?;
        let y = g.merge_heads(y)?;
        g.output("y", y)?;
        g.output("dropped", dropped)
    })?;
    add(&|g| {
        let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [1, 2, 5, 8]));
        let (score, mask) = (ScoreMod::wgsl("score - 0.1 * f32(abs(i - j))")?, MaskMod::wgsl("i / 2 == j / 2")?);
        let args = AttentionArgs::from(Mask::function(mask)).score_mod(score);
        let out = g.attention(q?, k?, v?, args)?;
        g.output("out", out)
    })?;
    // Attention written out, over grouped heads.
    add(&|g| {
        let (q, k) = (g.input("q", DType::F32, [2, 4, 3, 8])?, g.input("k", DType::F32, [2, 2, 5, 8])?);
        let k = g.reshape(k, [2, 2, 1, 5, 8])?;
        let k = g.broadcast(k, [2, 2, 2, 5, 8])?;
        let k = g.reshape(k, [2, 4, 5, 8])?;
        let scores = g.matmul_transposed(q, k)?;
        let (mask, hidden) = (g.input("mask", DType::Bool, [3, 5])?, g.scalar(f64::NEG_INFINITY, scores)?);
        let scores = g.select(mask, scores, hidden)?;
        let weights = g.softmax(scores, -1)?;
        let y = g.matmul(weights, k)?;
        g.output("y", y)
    })?;
    add(&|g| {
        let x = g.input("x", DType::F32, [3, 40])?;
        let w = g.quantized_parameter("w", [6, 40], Quantization::int4(16))?;
        let y = g.linear_quantized(x, w, None)?;
        g.output("y", y)
    })?;
    // Conversions, views and a norm with what it gives besides.
    add(&|g| {
        let x = g.input("x", DType::BF16, [4, 6])?;
        let wide = g.cast(x, DType::F32)?;
        let turned = g.permute(wide, &[1, 0])?;
        let back = Op::Slice { starts: vec![5, 0], sizes: vec![3, 4], steps: vec![-2, 1] };
        let part = g.push(back, &[turned])?[0];
        let padded = g.pad(part, &[(0, 1), (2, 0)], 1.0)?;
        let normed = g.push(Op::LayerNorm { axes: 1, epsilon: 0.1, weight: false, bias: false }, &[padded])?;
        g.output("normed", normed[0])?;
        g.output("mean", normed[1])?;
        g.output("x", x)
    })?;
    add(&|g| {
        let ids = g.input("ids", DType::I32, [1, 3])?;
        let logits = Gpt::llama(13, 8, 8, 1, 2, 12).build(g, ids)?;
        g.output("logits", logits)
    })?;
    Ok(graphs)
}

/// A graph as JSON in which every value has a name: nodes can come and go.
fn document(graph: &Graph) -> Option<Value> {
    let mut document: Value = serde_json::from_str(&graph.to_json().ok()?).ok()?;
    let rename = |label: &mut Value| {
        if let Some(number) = label.as_str().and_then(|label| label.strip_prefix('%')) {
            *label = format!("v.{number}").into();
        }
    };
    for node in document["nodes"].as_array_mut()? {
        for key in ["inputs", "outputs"] {
            node.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().for_each(rename);
        }
    }
    for (list, keys) in [("outputs", &["value"][..]), ("updates", &["state", "next"]), ("traces", &["value"])] {
        for entry in document.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            for key in keys {
                if let Some(label) = entry.get_mut(*key) {
                    rename(label);
                }
            }
        }
    }
    Some(document)
}
