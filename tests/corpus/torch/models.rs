//! Whole models, from ids to logits.

use tilewise::{
    Tensor, ValueId,
    graph::{Align, Mask, Unary},
    nn::{self, AttentionMasks, Embedding, Linear, Pooling},
};

use super::{
    case::{Case, Compute, Net, Run},
    layers::{encoder, transformer},
    operators::cross_entropy,
};
use crate::{Machine, Outputs};

pub(crate) fn find(group: &str, operator: &str) -> Option<Compute> {
    Some(match (group, operator) {
        ("model", "classifier") => Compute::Graph(|net| classifier(net).map(drop)),
        ("model", "causal_lm") => Compute::Graph(causal_lm),
        ("model", "seq2seq") => Compute::Steps(greedy),
        _ => return None,
    })
}

/// The table of this name, with the sizes of its weight.
fn table(case: &Case, name: &str) -> Run<Embedding> {
    let weight = format!("{name}.weight");
    Ok(Embedding { entries: case.weight_size(&weight, 0)?, width: case.weight_size(&weight, 1)? })
}

/// Tokens looked up, scaled if the model says so, plus a learned position.
fn embed(net: &mut Net<'_>, tokens: &str, ids: ValueId) -> Run<ValueId> {
    let case = net.case;
    let g = &mut net.g;
    let mut x = table(case, tokens)?.build(g, tokens, ids)?;
    if let Ok(scale) = case.text("embedding_scale") {
        if scale != "sqrt(d_model)" {
            return Err(format!("the embedding scale `{scale}`").into());
        }
        let scale = g.scalar((case.size("d_model")? as f64).sqrt(), x)?;
        x = g.mul(x, scale)?;
    }
    Ok(nn::learned_positions(g, "pos", table(case, "pos")?.entries, x)?)
}

fn head(net: &mut Net<'_>, x: ValueId) -> Run<ValueId> {
    let outputs = net.case.weight_size("head.weight", 0)?;
    Ok(Linear::new(net.case.size("d_model")?, outputs).build(&mut net.g, "head", x)?)
}

/// An encoder over padded sequences, the mean of the real tokens, a linear layer.
pub(crate) fn classifier(net: &mut Net<'_>) -> Run<ValueId> {
    let (ids, pad, target) = (net.input("ids")?, net.input("pad")?, net.input("target")?);
    let x = embed(net, "tok", ids)?;
    let masks = AttentionMasks { key_padding_mask: Some(pad), ..AttentionMasks::default() };
    let x = encoder(net.case)?.build(&mut net.g, "encoder", x, &masks)?;
    let real = net.g.unary(Unary::Not, pad)?;
    let hidden = nn::mask_rows(&mut net.g, x, real)?;
    let pooled = nn::pool(&mut net.g, x, real, Pooling::Mean)?;
    let logits = head(net, pooled)?;
    let loss = cross_entropy(net, logits, target)?;
    for (name, value) in [("hidden", hidden), ("pooled", pooled), ("logits", logits), ("loss", loss)] {
        net.output(name, value)?;
    }
    Ok(loss)
}

/// A causal encoder whose output layer is its embedding; the loss is that of each next token.
fn causal_lm(net: &mut Net<'_>) -> Run<()> {
    let ids = net.input("ids")?;
    let x = embed(net, "tok", ids)?;
    let masks = AttentionMasks::from(Mask::causal(Align::TopLeft));
    let x = encoder(net.case)?.build(&mut net.g, "blocks", x, &masks)?;
    let tokens = table(net.case, "tok")?;
    let weight = tokens.weight(&mut net.g, "tok")?;
    let logits = net.g.matmul_transposed(x, weight)?;
    net.output("logits", logits)?;
    let [b, t, classes] = net.g.shape(logits)[..] else { return Err("logits are not [B, T, classes]".into()) };
    let (before, after) = (net.g.slice(logits, 1, 0, t - 1)?, net.g.slice(ids, 1, 1, t)?);
    let before = net.g.reshape(before, [b * (t - 1), classes])?;
    let after = net.g.reshape(after, [b * (t - 1)])?;
    let loss = cross_entropy(net, before, after)?;
    net.output("loss", loss)
}

/// Greedy decoding: each step's best token is the next step's last input.
fn greedy(case: &Case, machine: &Machine) -> Run<Outputs> {
    let start = case.given("start")?.as_i32().ok_or("`start` is not i32")?;
    let steps = case.expected["ids"].shape()[1] - 1;
    let mut ids: Vec<Vec<i32>> = start.iter().map(|&id| vec![id]).collect();
    let mut rows: Vec<Vec<f32>> = vec![Vec::new(); ids.len()];
    let mut classes = 0;
    for _ in 0..steps {
        let out = step(case, machine, &ids)?;
        let (logits, best) = (out["logits"].as_f32().ok_or("no logits")?, out["best"].as_i32().ok_or("no ids")?);
        classes = logits.len() / ids.len();
        for (b, &best) in best.iter().enumerate() {
            ids[b].push(best);
            rows[b].extend(&logits[b * classes..][..classes]);
        }
    }
    let logits = Tensor::new([ids.len(), steps, classes], rows.concat())?;
    let ids = Tensor::new([ids.len(), steps + 1], ids.concat())?;
    Ok([("ids".to_string(), ids), ("logits".to_string(), logits)].into())
}

/// Logits `[B, classes]` of the token behind `ids`, and the best token.
fn step(case: &Case, machine: &Machine, ids: &[Vec<i32>]) -> Run<Outputs> {
    let mut net = Net::new(case)?;
    let t = ids[0].len();
    let target = net.g.constant(Tensor::new([ids.len(), t], ids.concat())?)?;
    let (src, pad) = (net.input("src")?, net.input("src_pad")?);
    let (source, target) = (embed(&mut net, "src_tok", src)?, embed(&mut net, "tgt_tok", target)?);
    let (encoder, decoder) = transformer(case)?;
    let padding = AttentionMasks { key_padding_mask: Some(pad), ..AttentionMasks::default() };
    let causal = AttentionMasks::from(Mask::causal(Align::TopLeft));
    let memory = encoder.build(&mut net.g, "core.encoder", source, &padding)?;
    let y = decoder.build(&mut net.g, "core.decoder", target, memory, &causal, &padding)?;
    let last = net.g.slice(y, 1, t - 1, t)?;
    let last = net.g.reshape(last, [ids.len(), case.size("d_model")?])?;
    let logits = head(&mut net, last)?;
    let best = net.g.argmax(logits, 1, false)?;
    net.output("logits", logits)?;
    net.output("best", best)?;
    net.run(machine)
}
