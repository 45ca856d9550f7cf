//! Functions of elements.

use tilewise::{
    DType, Shape, Tensor, ValueId,
    graph::{Binary, Unary},
};

use super::import::{Builder, Call, Known, Result, Slot};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "Abs" => |c| unary(c, Unary::Abs),
        "Ceil" => |c| unary(c, Unary::Ceil),
        "Cos" => |c| unary(c, Unary::Cos),
        "Erf" => |c| unary(c, Unary::Erf),
        "Exp" => |c| unary(c, Unary::Exp),
        "Floor" => |c| unary(c, Unary::Floor),
        "Log" => |c| unary(c, Unary::Log),
        "Neg" => |c| unary(c, Unary::Neg),
        "Not" => |c| unary(c, Unary::Not),
        "Reciprocal" => |c| unary(c, Unary::Reciprocal),
        "Relu" => |c| unary(c, Unary::Relu),
        "Round" => |c| unary(c, Unary::Round),
        "Sigmoid" => |c| unary(c, Unary::Sigmoid),
        "Sign" => |c| unary(c, Unary::Sign),
        "Sin" => |c| unary(c, Unary::Sin),
        "Softplus" => |c| unary(c, Unary::Softplus),
        "Sqrt" => |c| unary(c, Unary::Sqrt),
        "Tanh" => |c| unary(c, Unary::Tanh),
        "Gelu" => |c| match c.node.text("approximate") {
            Some("tanh") => unary(c, Unary::GeluTanh),
            _ => unary(c, Unary::Gelu),
        },
        "Add" => |c| binary(c, Binary::Add),
        "Sub" => |c| binary(c, Binary::Sub),
        "Mul" => |c| binary(c, Binary::Mul),
        "Div" => |c| binary(c, Binary::Div),
        "Pow" => pow,
        "Equal" => |c| binary(c, Binary::Equal),
        "Greater" => |c| binary(c, Binary::Greater),
        "GreaterOrEqual" => |c| binary(c, Binary::GreaterEqual),
        "Less" => |c| binary(c, Binary::Less),
        "LessOrEqual" => |c| binary(c, Binary::LessEqual),
        "And" => |c| binary(c, Binary::And),
        "Or" => |c| binary(c, Binary::Or),
        "Xor" => |c| binary(c, Binary::Xor),
        "Max" => |c| variadic(c, Binary::Max),
        "Min" => |c| variadic(c, Binary::Min),
        "Sum" => |c| variadic(c, Binary::Add),
        "Mean" => mean,
        "Where" => |c| {
            let (condition, a, b) = (c.x(0)?, c.x(1)?, c.x(2)?);
            one(c.g().select(condition, a, b)?)
        },
        "Identity" => |c| one(c.x(0)?),
        "Cast" => cast,
        "Clip" => clip,
        "Dropout" => dropout,
        "LeakyRelu" => |c| {
            let (x, alpha) = (c.x(0)?, c.float("alpha")?);
            let (above, below) = halves(c, x)?;
            let below = scaled(c, below, alpha)?;
            one(c.g().add(above, below)?)
        },
        "Elu" => |c| {
            let alpha = c.float("alpha")?;
            exponential(c, 1.0, alpha, 1.0)
        },
        "Selu" => |c| {
            let (alpha, gamma) = (c.float("alpha")?, c.float("gamma")?);
            exponential(c, gamma, alpha * gamma, 1.0)
        },
        "Celu" => |c| {
            let alpha = c.float("alpha")?;
            exponential(c, 1.0, alpha, 1.0 / alpha)
        },
        "HardSigmoid" => |c| {
            let (x, alpha, beta) = (c.x(0)?, c.float("alpha")?, c.float("beta")?);
            one(hard_sigmoid(c, x, alpha, beta)?)
        },
        "HardSwish" => |c| {
            let x = c.x(0)?;
            let gate = hard_sigmoid(c, x, 1.0 / 6.0, 0.5)?;
            one(c.g().mul(x, gate)?)
        },
        "Mish" => |c| {
            let x = c.x(0)?;
            let gate = c.g().unary(Unary::Softplus, x)?;
            let gate = c.g().tanh(gate)?;
            one(c.g().mul(x, gate)?)
        },
        "Swish" => |c| {
            let (x, alpha) = (c.x(0)?, c.float("alpha")?);
            one(swish(c, x, alpha)?)
        },
        "SwiGLU" => |c| {
            let (a, b, alpha) = (c.x(0)?, c.x(1)?, c.float("alpha")?);
            let gate = swish(c, a, alpha)?;
            one(c.g().mul(gate, b)?)
        },
        "Softsign" => |c| {
            let x = c.x(0)?;
            let size = c.g().abs(x)?;
            let size = shifted(c, size, 1.0)?;
            one(c.g().div(x, size)?)
        },
        "Range" => range,
        _ => return None,
    })
}

/// The results of a node that has one.
pub(crate) fn one(value: ValueId) -> Result<Vec<Slot>> {
    Ok(vec![value.into()])
}

/// `factor · x`
pub(crate) fn scaled(c: &mut Call<'_>, x: ValueId, factor: f64) -> Result<ValueId> {
    let factor = c.g().scalar(factor, x)?;
    Ok(c.g().mul(x, factor)?)
}

/// `x + term`
pub(crate) fn shifted(c: &mut Call<'_>, x: ValueId, term: f64) -> Result<ValueId> {
    let term = c.g().scalar(term, x)?;
    Ok(c.g().add(x, term)?)
}

fn unary(c: &mut Call<'_>, function: Unary) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    one(c.g().unary(function, x)?)
}

/// Both operands; before opset 7 the second one is aligned with the first by an attribute.
fn pair(c: &mut Call<'_>) -> Result<(ValueId, ValueId)> {
    let (a, mut b) = (c.x(0)?, c.x(1)?);
    if c.node.flag("broadcast")
        && let Some(axis) = c.node.int("axis")
    {
        let (from, rank) = (c.shape(b), c.shape(a).rank());
        let behind = rank.saturating_sub(c.axis(axis, rank)? + from.rank());
        b = c.g().reshape(b, [&from[..], &vec![1; behind]].concat())?;
    }
    Ok((a, b))
}

fn binary(c: &mut Call<'_>, function: Binary) -> Result<Vec<Slot>> {
    let (a, b) = pair(c)?;
    one(c.g().binary(function, a, b)?)
}

fn pow(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    // Only an exponent may be an i64 that counts; a base of i64 is data.
    let a = c.x(0)?;
    let exponent_counts = matches!(c.slot(1)?, Slot::Given(source) if source.is_integer());
    let b = if exponent_counts { c.index(1)? } else { c.x(1)? };
    let (base, exponent) = (c.dtype(a), c.dtype(b));
    if !base.is_float() && exponent.is_float() {
        return c.left_out("an integer to a float power");
    }
    let b = c.g().cast(b, base)?;
    one(c.g().pow(a, b)?)
}

fn fold(c: &mut Call<'_>, function: Binary) -> Result<ValueId> {
    let operands = c.all()?;
    let Some((&first, rest)) = operands.split_first() else { return c.fault("there are no operands") };
    rest.iter().try_fold(first, |a, &b| Ok(c.g().binary(function, a, b)?))
}

fn variadic(c: &mut Call<'_>, function: Binary) -> Result<Vec<Slot>> {
    one(fold(c, function)?)
}

fn mean(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let sum = fold(c, Binary::Add)?;
    one(scaled(c, sum, 1.0 / c.node.inputs.len() as f64)?)
}

fn cast(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    // TensorProto.DataType
    let dtype = match c.node.int("to") {
        Some(1) => DType::F32,
        Some(6) => DType::I32,
        Some(9) => DType::Bool,
        Some(10) => DType::F16,
        Some(12) => DType::U32,
        Some(16) => DType::BF16,
        other => return c.left_out(format!("a cast to the data type {other:?}")),
    };
    one(c.g().cast(x, dtype)?)
}

fn clip(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let mut x = c.x(0)?;
    for (i, name, function) in [(1, "min", Binary::Max), (2, "max", Binary::Min)] {
        let bound = match (c.optional(i)?, c.node.float(name)) {
            (Some(bound), _) => bound,
            (None, Some(bound)) => c.g().scalar(bound, x)?,
            (None, None) => continue,
        };
        x = c.g().binary(function, x, bound)?;
    }
    one(x)
}

/// Dropout of inference: nothing is dropped.
fn dropout(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    if c.has(2) {
        return c.left_out("the operand training_mode");
    }
    let kept = c.g().constant(Tensor::new([], vec![true])?)?;
    let shape = c.shape(x);
    let mask = c.g().broadcast(kept, shape)?;
    Ok(vec![x.into(), mask.into()])
}

/// `max(x, 0)` and `min(x, 0)`.
fn halves(c: &mut Call<'_>, x: ValueId) -> Result<(ValueId, ValueId)> {
    let zero = c.g().scalar(0.0, x)?;
    Ok((c.g().max(x, zero)?, c.g().min(x, zero)?))
}

/// `above · max(x, 0) + below · (exp(rate · min(x, 0)) − 1)`, which elu, selu and celu are.
fn exponential(c: &mut Call<'_>, above: f64, below: f64, rate: f64) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let (dtype, wide) = (c.dtype(x), c.g().cast(x, DType::F32)?);
    let (positive, negative) = halves(c, wide)?;
    let negative = scaled(c, negative, rate)?;
    let negative = c.g().exp(negative)?;
    let negative = shifted(c, negative, -1.0)?;
    let (positive, negative) = (scaled(c, positive, above)?, scaled(c, negative, below)?);
    let sum = c.g().add(positive, negative)?;
    one(c.g().cast(sum, dtype)?)
}

fn hard_sigmoid(c: &mut Call<'_>, x: ValueId, alpha: f64, beta: f64) -> Result<ValueId> {
    let line = scaled(c, x, alpha)?;
    let line = shifted(c, line, beta)?;
    let (zero, full) = (c.g().scalar(0.0, x)?, c.g().scalar(1.0, x)?);
    let line = c.g().max(line, zero)?;
    Ok(c.g().min(line, full)?)
}

/// `x · sigmoid(alpha · x)`
fn swish(c: &mut Call<'_>, x: ValueId, alpha: f64) -> Result<ValueId> {
    let gate = scaled(c, x, alpha)?;
    let gate = c.g().sigmoid(gate)?;
    Ok(c.g().mul(x, gate)?)
}

/// `start, start + delta, …` up to `limit`: how many is read from the operands, so that the result has a shape.
fn range(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let first = |c: &Call<'_>, i: usize| c.read_numbers(i).map(|x| x.first().copied().unwrap_or(0.0));
    let (start, limit, delta) = (first(c, 0)?, first(c, 1)?, first(c, 2)?);
    let count = ((limit - start) / delta).ceil().max(0.0);
    if !count.is_finite() {
        return c.fault(format!("from {start} to {limit} by {delta}"));
    }
    let count = count as usize;
    if matches!([c.slot(0)?, c.slot(1)?, c.slot(2)?], [Slot::Known(_), Slot::Known(_), Slot::Known(_)]) {
        let values = (0..count as i64).map(|i| start as i64 + i * delta as i64).collect();
        return Ok(vec![Slot::Known(Known { shape: [count].into(), values })]);
    }
    let (start, delta, places) = (c.x(0)?, c.x(2)?, c.iota(count)?);
    let dtype = c.dtype(start);
    let wide = if dtype.is_float() { DType::F32 } else { dtype };
    let g = c.g();
    let (start, delta, places) = (g.cast(start, wide)?, g.cast(delta, wide)?, g.cast(places, wide)?);
    let offsets = g.mul(places, delta)?;
    let values = g.add(start, offsets)?;
    one(g.cast(values, dtype)?)
}

/// A shape from integers.
pub(crate) fn sizes(c: &Call<'_>, values: &[i64]) -> Result<Shape> {
    match values.iter().map(|&x| usize::try_from(x)).collect::<std::result::Result<Vec<usize>, _>>() {
        Ok(sizes) => Ok(sizes.into()),
        Err(_) => c.fault(format!("{values:?} is no shape")),
    }
}
