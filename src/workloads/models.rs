use super::{
    attention::lengths,
    workload::{Builder, Size, Workload},
};
use crate::{
    DType, Result, ValueId,
    graph::Mask,
    nn::{AttentionMasks, Embedding, Encoder, EncoderLayer, LayerNorm, Linear, learned_positions},
};

/// Sizes of a model.
#[derive(Clone, Copy)]
struct Model {
    batch: usize,
    tokens: usize,
    width: usize,
    heads: usize,
    layers: usize,
    entries: usize,
}

/// An encoder layer, a small BERT over padded sequences, and one step of decoding.
pub(super) fn workloads(size: Size) -> Result<Vec<Workload>> {
    // MiniLM's sizes.
    let mini = Model { batch: 8, tokens: 128, width: 384, heads: 12, layers: 6, entries: 30_522 };
    let tiny = Model { batch: 2, tokens: 16, width: 32, heads: 4, layers: 2, entries: 100 };
    let base = Model { batch: 32, tokens: 512, width: 768, layers: 12, ..mini };
    let (encoder, decoder) = match size {
        Size::Quick => (tiny, tiny),
        Size::Full => (mini, Model { batch: 1, tokens: 512, ..mini }),
        Size::Large => (base, Model { batch: 16, tokens: 2048, ..base }),
    };
    Ok(vec![
        layer(encoder)?,
        bert(encoder)?,
        decode(Model { batch: 1, ..decoder })?,
        decode(Model { batch: 4, ..decoder })?,
    ])
}

/// Post-norm with gelu, four times as wide inside, as BERT has it.
fn layer_of(model: Model) -> EncoderLayer {
    EncoderLayer {
        activation: crate::nn::Activation::Gelu,
        ..EncoderLayer::new(model.width, model.heads, 4 * model.width)
    }
}

fn layer(model: Model) -> Result<Workload> {
    let Model { batch, tokens, width, heads, .. } = model;
    Workload::new("layer", &format!("encoder b{batch} t{tokens} e{width} h{heads}"), |w| {
        let x = w.input("x", &[batch, tokens, width])?;
        layer_of(model).build(&mut w.graph, "layer", x, &AttentionMasks::default())
    })
}

/// Ids to hidden states: embeddings, positions, norm, layers; sequences are padded, and padding is masked.
fn bert(model: Model) -> Result<Workload> {
    let Model { batch, tokens, width, heads, layers, entries } = model;
    let name = format!("bert {layers} layers b{batch} t{tokens} e{width} h{heads} padded");
    Workload::new("model", &name, |w| {
        let ids = (0..batch * tokens).map(|i| ((i * 7919) % entries) as i32).collect();
        let ids = w.integers("ids", &[batch, tokens], ids)?;
        let lengths = w.integers("lengths", &[batch], lengths(batch, tokens))?;
        let g = &mut w.graph;
        let x = Embedding { entries, width }.build(g, "embedding", ids)?;
        let x = learned_positions(g, "positions", tokens, x)?;
        let x = LayerNorm::new(width).build(g, "norm", x)?;
        let masks = AttentionMasks { mask: Mask::key_lengths(lengths), ..Default::default() };
        Encoder { layer: layer_of(model), layers, final_norm: false }.build(g, "encoder", x, &masks)
    })
}

/// One token of each sequence through a pre-norm decoder with caches of keys and values, up to the scores of the next token.
fn decode(model: Model) -> Result<Workload> {
    let Model { batch, tokens, width, heads, layers, entries } = model;
    let name = format!("decode {layers} layers b{batch} k{tokens} e{width} h{heads}");
    Workload::new("model", &name, |w| {
        let ids = w.integers("ids", &[batch, 1], vec![1; batch])?;
        // The last place of the cache: as much as a step ever has to read.
        let position = w.integers("position", &[batch], vec![tokens as i32 - 1; batch])?;
        let g = &mut w.graph;
        let one = g.scalar(1.0, position)?;
        let length = g.add(position, one)?;
        let mut x = Embedding { entries, width }.build(g, "embedding", ids)?;
        for layer in 0..layers {
            x = decoder_layer(w, &format!("layers.{layer}"), model, x, [position, length])?;
        }
        let g = &mut w.graph;
        let x = LayerNorm::new(width).build(g, "norm", x)?;
        Linear { inputs: width, outputs: entries, bias: false }.build(g, "head", x)
    })
}

fn decoder_layer(
    w: &mut Builder,
    name: &str,
    Model { batch, tokens, width, heads, .. }: Model,
    x: ValueId,
    [position, length]: [ValueId; 2],
) -> Result<ValueId> {
    let g = &mut w.graph;
    let normed = LayerNorm::new(width).build(g, &format!("{name}.norm1"), x)?;
    let qkv = Linear::new(width, 3 * width).build(g, &format!("{name}.qkv"), normed)?;
    let mut part = |i: usize| {
        let part = g.slice(qkv, -1, i * width, (i + 1) * width)?;
        g.split_heads(part, heads)
    };
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let mut cached = |what: &str, update: ValueId| -> Result<ValueId> {
        let cache = g.input(&format!("{name}.{what}"), DType::F32, [batch, heads, tokens, width / heads])?;
        let (next, _) = g.append(cache, update, position, 2, false)?;
        g.update(cache, next)?;
        Ok(next)
    };
    let (keys, values) = (cached("keys", k)?, cached("values", v)?);
    let seen = g.attention(q, keys, values, Mask::key_lengths(length))?;
    let seen = g.merge_heads(seen)?;
    let seen = Linear::new(width, width).build(g, &format!("{name}.out"), seen)?;
    let x = g.add(x, seen)?;
    let normed = LayerNorm::new(width).build(g, &format!("{name}.norm2"), x)?;
    let inner = Linear::new(width, 4 * width).build(g, &format!("{name}.up"), normed)?;
    let inner = g.gelu(inner)?;
    let inner = Linear::new(4 * width, width).build(g, &format!("{name}.down"), inner)?;
    g.add(x, inner)
}
