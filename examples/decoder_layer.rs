//! A decoder layer: causal self-attention over the target, encoder–decoder attention over a source of another length and
//! another width, then a feed-forward block, each with a residual and a layer norm.
//!
//! ```sh
//! cargo run --release --example decoder_layer
//! ```

mod common;

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Result, Tensor, ValueId,
    graph::{Align, Mask},
};

const BATCH: usize = 2;
const HEADS: usize = 4;
const HIDDEN: usize = 256;
/// The source: up to 80 tokens of 96 features.
const T_A: usize = 80;
const E_A: usize = 96;
/// The target: 48 tokens of 64 features.
const T_B: usize = 48;
const E_B: usize = 64;

/// `x·Wᵀ + b`
fn linear(g: &mut Graph, name: &str, x: ValueId, [inputs, outputs]: [usize; 2]) -> Result<ValueId> {
    let weight = g.parameter(&format!("{name}.weight"), DType::F32, [outputs, inputs])?;
    let bias = g.parameter(&format!("{name}.bias"), DType::F32, [outputs])?;
    g.linear(x, weight, Some(bias))
}

/// `norm(x + y)`
fn add_norm(g: &mut Graph, name: &str, x: ValueId, y: ValueId) -> Result<ValueId> {
    let weight = g.parameter(&format!("{name}.weight"), DType::F32, [E_B])?;
    let bias = g.parameter(&format!("{name}.bias"), DType::F32, [E_B])?;
    let sum = g.add(x, y)?;
    g.layer_norm(sum, Some(weight), Some(bias), 1e-5)
}

/// Queries from `x [B, T_b, E_b]`, keys and values from `source`, `[B, T_a, E_a]` or `x` itself; the result is `[B, T_b, E_b]`.
fn attention(g: &mut Graph, name: &str, x: ValueId, source: ValueId, mask: Mask) -> Result<ValueId> {
    let mut heads = |part: &str, from: ValueId| {
        let width = g.shape(from)[2];
        let y = linear(g, &format!("{name}.{part}"), from, [width, E_B])?;
        g.split_heads(y, HEADS)
    };
    let (q, k, v) = (heads("q", x)?, heads("k", source)?, heads("v", source)?);
    let attended = g.attention(q, k, v, mask)?;
    let attended = g.merge_heads(attended)?;
    linear(g, &format!("{name}.out"), attended, [E_B, E_B])
}

fn decoder_layer(g: &mut Graph) -> Result<ValueId> {
    let x = g.input("target", DType::F32, [BATCH, T_B, E_B])?;
    let source = g.input("source", DType::F32, [BATCH, T_A, E_A])?;
    let lengths = g.input("source_lengths", DType::I32, [BATCH])?;

    // Each token attends to itself and earlier ones.
    let y = attention(g, "self", x, x, Mask::causal(Align::TopLeft))?;
    let x = add_norm(g, "norm1", x, y)?;
    // Every token attends to the whole source without its padding.
    let y = attention(g, "cross", x, source, Mask::key_lengths(lengths))?;
    let x = add_norm(g, "norm2", x, y)?;
    let y = linear(g, "up", x, [E_B, HIDDEN])?;
    let y = g.gelu(y)?;
    let y = linear(g, "down", y, [HIDDEN, E_B])?;
    add_norm(g, "norm3", x, y)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut graph = Graph::new();
    let y = decoder_layer(&mut graph)?;
    graph.output("y", y)?;

    let lengths = Tensor::new([BATCH], vec![T_A as i32, 57])?;
    common::show(&graph, BTreeMap::from([("source_lengths".to_string(), lengths)]))
}
