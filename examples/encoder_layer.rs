//! An encoder layer with the attention written out by hand, as in a textbook: multi-head self-attention over padded
//! sequences, then a feed-forward block, each with a residual and a layer norm.
//!
//! ```sh
//! cargo run --release --example encoder_layer
//! ```
//!
//! The printed program shows the fusions: one attention kernel in place of `softmax(q·kᵀ/√D + mask)·v`, linear
//! layers with bias, residual and gelu in their epilogue, and views in place of copies around the heads.

mod common;

use std::collections::BTreeMap;

use tilewise::{DType, Data, Graph, Result, Tensor, ValueId};

const BATCH: usize = 2;
const TOKENS: usize = 48;
const WIDTH: usize = 64;
const HEADS: usize = 4;
const HIDDEN: usize = 256;

/// `x·Wᵀ + b`
fn linear(g: &mut Graph, name: &str, x: ValueId, [inputs, outputs]: [usize; 2]) -> Result<ValueId> {
    let weight = g.parameter(&format!("{name}.weight"), DType::F32, [outputs, inputs])?;
    let bias = g.parameter(&format!("{name}.bias"), DType::F32, [outputs])?;
    g.linear(x, weight, Some(bias))
}

fn norm(g: &mut Graph, name: &str, x: ValueId) -> Result<ValueId> {
    let weight = g.parameter(&format!("{name}.weight"), DType::F32, [WIDTH])?;
    let bias = g.parameter(&format!("{name}.bias"), DType::F32, [WIDTH])?;
    g.layer_norm(x, Some(weight), Some(bias), 1e-5)
}

fn encoder_layer(g: &mut Graph) -> Result<ValueId> {
    let x = g.input("x", DType::F32, [BATCH, TOKENS, WIDTH])?;
    // True where there is a token, false where the sequence is padded.
    let real = g.input("real", DType::Bool, [BATCH, 1, 1, TOKENS])?;

    // [B, T, E] → [B, H, T, D]
    let mut heads = |name: &str| {
        let y = linear(g, name, x, [WIDTH, WIDTH])?;
        g.split_heads(y, HEADS)
    };
    let (q, k, v) = (heads("q")?, heads("k")?, heads("v")?);
    let scores = g.matmul_transposed(q, k)?;
    let root = g.scalar(((WIDTH / HEADS) as f64).sqrt(), scores)?;
    let scores = g.div(scores, root)?;
    let hidden = g.scalar(f64::NEG_INFINITY, scores)?;
    let scores = g.select(real, scores, hidden)?;
    let weights = g.softmax(scores, -1)?;
    g.name(weights, "weights")?;
    let attended = g.matmul(weights, v)?;
    g.name(attended, "attended")?;
    let attended = g.merge_heads(attended)?;
    let attended = linear(g, "out", attended, [WIDTH, WIDTH])?;
    let sum = g.add(x, attended)?;
    let x = norm(g, "norm1", sum)?;

    let inner = linear(g, "up", x, [WIDTH, HIDDEN])?;
    let inner = g.gelu(inner)?;
    let outer = linear(g, "down", inner, [HIDDEN, WIDTH])?;
    let sum = g.add(x, outer)?;
    norm(g, "norm2", sum)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut graph = Graph::new();
    let y = encoder_layer(&mut graph)?;
    graph.output("y", y)?;

    // The first sequence is full, the second has 30 tokens.
    let real = [TOKENS, 30].iter().flat_map(|&length| (0..TOKENS).map(move |t| t < length)).collect();
    let real = Tensor::new([BATCH, 1, 1, TOKENS], Data::Bool(real))?;
    common::show(&graph, BTreeMap::from([("real".to_string(), real)]))
}
