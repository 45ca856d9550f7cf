//! Normalisations and softmax.

use tilewise::{
    ValueId,
    graph::{Binary, Op, Reduce},
};

use super::{
    import::{Builder, Call, Result, Slot},
    pointwise::{one, shifted},
};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "LayerNormalization" => layer_norm,
        "RMSNormalization" => rms_norm,
        "InstanceNormalization" => |c| {
            let x = c.x(0)?;
            let groups = c.shape(x)[1];
            grouped(c, groups)
        },
        "GroupNormalization" => |c| {
            let groups = c.node.int("num_groups").unwrap_or(1) as usize;
            grouped(c, groups)
        },
        "MeanVarianceNormalization" => mean_variance,
        "LpNormalization" => lp_norm,
        "Softmax" => |c| along_axis(c, |axis| Op::Softmax { axis }),
        "LogSoftmax" => |c| along_axis(c, |axis| Op::LogSoftmax { axis }),
        "Hardmax" => hardmax,
        _ => return None,
    })
}

/// The number of axes that are normalised together: all from `axis` on.
fn trailing(c: &Call<'_>, rank: usize) -> Result<usize> {
    Ok(rank - c.axis(c.node.int("axis").unwrap_or(-1), rank)?)
}

fn layer_norm(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (x, weight, bias) = (c.x(0)?, c.optional(1)?, c.optional(2)?);
    let shape = c.shape(x);
    let axes = trailing(c, shape.rank())?;
    let epsilon = c.float("epsilon")? as f32;
    let op = Op::LayerNorm { axes, epsilon, weight: weight.is_some(), bias: bias.is_some() };
    let inputs: Vec<ValueId> = [Some(x), weight, bias].into_iter().flatten().collect();
    let [y, mean, rstd] = c.g().push(op, &inputs)?[..] else { return c.fault("expected three results") };
    // ONNX keeps the normalised axes in the statistics, with size 1.
    let kept = [&shape[..shape.rank() - axes], &vec![1; axes]].concat();
    let mean = if c.wants(1) { c.g().reshape(mean, kept.clone())? } else { mean };
    let rstd = if c.wants(2) { c.g().reshape(rstd, kept)? } else { rstd };
    Ok(vec![y.into(), mean.into(), rstd.into()])
}

fn rms_norm(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let (x, weight) = (c.x(0)?, c.optional(1)?);
    let rank = c.shape(x).rank();
    let (axes, epsilon) = (trailing(c, rank)?, c.float("epsilon")? as f32);
    let inputs: Vec<ValueId> = [Some(x), weight].into_iter().flatten().collect();
    one(c.push(Op::RmsNorm { axes, epsilon, weight: weight.is_some() }, &inputs)?)
}

/// Each of `groups` groups of channels is normalised with its positions; then weight and bias per channel.
fn grouped(c: &mut Call<'_>, groups: usize) -> Result<Vec<Slot>> {
    let (x, weight, bias, epsilon) = (c.x(0)?, c.x(1)?, c.x(2)?, c.float("epsilon")? as f32);
    let shape = c.shape(x);
    if groups == 0 || shape.rank() < 2 || !shape[1].is_multiple_of(groups) {
        return c.fault(format!("{groups} groups of the channels of {shape}"));
    }
    let inner = shape[1..].iter().product::<usize>() / groups;
    let lines = c.g().reshape(x, [shape[0], groups, inner])?;
    let y = c.g().layer_norm(lines, None, None, epsilon)?;
    let mut y = c.g().reshape(y, shape.clone())?;
    let channels = [&[shape[1]][..], &vec![1; shape.rank() - 2]].concat();
    for (operand, function) in [(weight, Binary::Mul), (bias, Binary::Add)] {
        let operand = c.g().reshape(operand, channels.clone())?;
        y = c.g().binary(function, y, operand)?;
    }
    one(y)
}

/// `(x − mean) / (√variance + 1e−9)` over some axes.
fn mean_variance(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let axes = c.node.ints("axes").unwrap_or_else(|| vec![0, 2, 3]);
    let axes: Vec<isize> = axes.into_iter().map(|axis| axis as isize).collect();
    let mean = c.g().reduce(Reduce::Mean, x, &axes, true)?;
    let centred = c.g().sub(x, mean)?;
    let square = c.g().mul(centred, centred)?;
    let variance = c.g().reduce(Reduce::Mean, square, &axes, true)?;
    let deviation = c.g().sqrt(variance)?;
    let deviation = shifted(c, deviation, 1e-9)?;
    one(c.g().div(centred, deviation)?)
}

/// `x / ‖x‖ₚ` along an axis; a line of zeros stays zeros.
fn lp_norm(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let axis = [c.node.int("axis").unwrap_or(-1) as isize];
    let norm = match c.node.int("p") {
        Some(1) => {
            let size = c.g().abs(x)?;
            c.g().reduce(Reduce::Sum, size, &axis, true)?
        }
        Some(2) | None => {
            let square = c.g().mul(x, x)?;
            let sum = c.g().reduce(Reduce::Sum, square, &axis, true)?;
            c.g().sqrt(sum)?
        }
        Some(p) => return c.fault(format!("p = {p}")),
    };
    let (zero, unit) = (c.g().scalar(0.0, x)?, c.g().scalar(1.0, x)?);
    let empty = c.g().binary(Binary::Equal, norm, zero)?;
    let norm = c.g().select(empty, unit, norm)?;
    one(c.g().div(x, norm)?)
}

/// An operation along an axis; before opset 13 along all axes from `axis` on, as one.
fn along_axis(c: &mut Call<'_>, op: fn(usize) -> Op) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let shape = c.shape(x);
    let axis = c.node.int("axis").unwrap_or(if c.opset() < 13 { 1 } else { -1 });
    let axis = c.axis(axis, shape.rank())?;
    if c.opset() >= 13 {
        return one(c.push(op(axis), &[x])?);
    }
    let (outer, inner) = shape.split_at(axis);
    let flat = c.g().reshape(x, [outer.iter().product(), inner.iter().product()])?;
    let y = c.push(op(1), &[flat])?;
    one(c.g().reshape(y, shape)?)
}

/// 1 at the first largest element along an axis, 0 elsewhere.
fn hardmax(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let (shape, dtype) = (c.shape(x), c.dtype(x));
    let axis = c.axis(c.node.int("axis").unwrap_or(-1), shape.rank())?;
    let best = c.g().argmax(x, axis as isize, true)?;
    let places = c.iota(shape[axis])?;
    let places = c.g().reshape(places, [&[shape[axis]][..], &vec![1; shape.rank() - axis - 1]].concat())?;
    let hit = c.g().binary(Binary::Equal, best, places)?;
    one(c.g().cast(hit, dtype)?)
}
