//! Single operations.

use tilewise::{
    DType, ValueId,
    graph::{Align, AttentionArgs, Mask, Op, Unary},
    nn,
    train::{self, CrossEntropy, Reduction},
};

use super::case::{Compute, Net, Run};

pub(crate) fn find(group: &str, operator: &str) -> Option<Compute> {
    Some(Compute::Graph(match (group, operator) {
        ("sdpa", "scaled_dot_product_attention") => attention,
        ("norm", "layer_norm") => |net| norm(net, true),
        ("norm", "rms_norm") => |net| norm(net, false),
        ("product", "linear") => linear,
        ("product", "matmul") => matmul,
        ("softmax", "softmax") => |net| along(net, |axis| Op::Softmax { axis }),
        ("softmax", "log_softmax") => |net| along(net, |axis| Op::LogSoftmax { axis }),
        ("pointwise", "elu") => elu,
        ("pointwise", "relu") => |net| unary(net, Unary::Relu),
        ("pointwise", "gelu") => |net| unary(net, Unary::Gelu),
        ("pointwise", "gelu_tanh") => |net| unary(net, Unary::GeluTanh),
        ("pointwise", "silu") => |net| unary(net, Unary::Silu),
        ("pointwise", "tanh") => |net| unary(net, Unary::Tanh),
        ("pointwise", "sigmoid") => |net| unary(net, Unary::Sigmoid),
        ("pointwise", "erf") => |net| unary(net, Unary::Erf),
        ("pointwise", "softplus") => |net| unary(net, Unary::Softplus),
        ("gather", "embedding") => embedding,
        ("loss", "cross_entropy") => |net| {
            let (logits, target) = (net.input("logits")?, net.input("target")?);
            let loss = cross_entropy(net, logits, target)?;
            net.output("loss", loss)
        },
        _ => return None,
    }))
}

/// `F.scaled_dot_product_attention`: any number of leading axes; a boolean mask is true where a key may be seen.
fn attention(net: &mut Net<'_>) -> Run<()> {
    let (q, k, v, mask) = (net.input("q")?, net.input("k")?, net.input("v")?, net.optional("attn_mask")?);
    let shape = net.g.shape(q).to_vec();
    let leading = &shape[..shape.len() - 3];
    let mut batched = |x: ValueId| -> Run<ValueId> {
        let sizes = &net.g.shape(x).to_vec()[leading.len()..];
        let batch: usize = leading.iter().product();
        Ok(net.g.reshape(x, [&[batch], sizes].concat())?)
    };
    let (q, k, v) = (batched(q)?, batched(k)?, batched(v)?);
    let mut seen = if net.case.flag("is_causal") { Mask::causal(Align::TopLeft) } else { Mask::none() };
    if let Some(mask) = mask {
        if leading.len() > 1 && net.g.shape(mask).rank() > 3 {
            return Err("a mask with several batch axes".into());
        }
        seen = seen & if net.g.dtype(mask) == DType::Bool { Mask::boolean(mask) } else { Mask::bias(mask) };
    }
    let scale = net.case.optional_float("scale").map(|scale| scale as f32);
    let y = net.g.attention(q, k, v, AttentionArgs { mask: seen, scale, ..AttentionArgs::default() })?;
    let own = net.g.shape(y)[1..].to_vec();
    let y = net.g.reshape(y, [leading, &own].concat())?;
    net.output("y", y)
}

fn norm(net: &mut Net<'_>, centred: bool) -> Run<()> {
    let (x, weight, bias) = (net.input("x")?, net.weight("weight")?, net.weight("bias")?);
    let (axes, epsilon) = (net.case.sizes("normalized_shape")?.len(), net.case.float("eps")? as f32);
    let inputs: Vec<ValueId> = [Some(x), weight, bias].into_iter().flatten().collect();
    let (weight, bias) = (weight.is_some(), bias.is_some());
    let op = match centred {
        true => Op::LayerNorm { axes, epsilon, weight, bias },
        false => Op::RmsNorm { axes, epsilon, weight },
    };
    let y = net.g.push(op, &inputs)?[0];
    net.output("y", y)
}

fn linear(net: &mut Net<'_>) -> Run<()> {
    let (x, weight, bias) = (net.input("x")?, net.weight("weight")?, net.weight("bias")?);
    let y = net.g.linear(x, weight.ok_or("there is no weight")?, bias)?;
    net.output("y", y)
}

fn matmul(net: &mut Net<'_>) -> Run<()> {
    let (a, b) = (net.input("a")?, net.input("b")?);
    let op = Op::Matmul { transpose_a: net.case.flag("transpose_a"), transpose_b: net.case.flag("transpose_b") };
    let y = net.g.push(op, &[a, b])?[0];
    net.output("y", y)
}

fn along(net: &mut Net<'_>, op: fn(usize) -> Op) -> Run<()> {
    let (x, axis) = (net.input("x")?, net.case.integer("dim")?);
    let axis = net.g.shape(x).axis("softmax", axis as isize)?;
    let y = net.g.push(op(axis), &[x])?[0];
    net.output("y", y)
}

fn unary(net: &mut Net<'_>, function: Unary) -> Run<()> {
    let x = net.input("x")?;
    let y = net.g.unary(function, x)?;
    net.output("y", y)
}

/// `x` above 0, `eˣ − 1` below.
fn elu(net: &mut Net<'_>) -> Run<()> {
    let x = net.input("x")?;
    let g = &mut net.g;
    let (zero, unit) = (g.scalar(0.0, x)?, g.scalar(1.0, x)?);
    let (above, below) = (g.max(x, zero)?, g.min(x, zero)?);
    let power = g.exp(below)?;
    let below = g.sub(power, unit)?;
    let y = g.add(above, below)?;
    net.output("y", y)
}

fn embedding(net: &mut Net<'_>) -> Run<()> {
    let ids = net.input("ids")?;
    let (entries, width) = (net.case.weight_size("weight", 0)?, net.case.weight_size("weight", 1)?);
    let y = nn::Embedding { entries, width }.build(&mut net.g, "", ids)?;
    net.output("y", y)
}

/// `F.cross_entropy` of `[N, classes]`: the mean, sum or list of `−log softmax(logits)[target]`, with label smoothing, and
/// without the places whose target is `ignore_index`.
pub(crate) fn cross_entropy(net: &mut Net<'_>, logits: ValueId, target: ValueId) -> Run<ValueId> {
    let reduction = match net.case.text("reduction").unwrap_or("mean") {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        "mean" => Reduction::Mean,
        other => return Err(format!("the reduction `{other}`").into()),
    };
    let options = CrossEntropy {
        ignore: net.case.integer("ignore_index").unwrap_or(-100) as i32,
        smoothing: net.case.optional_float("label_smoothing").unwrap_or(0.0) as f32,
        weight: net.optional("weight")?,
        reduction,
    };
    Ok(train::cross_entropy(&mut net.g, logits, target, options)?)
}
