//! Reductions, and sums that run along an axis.

use tilewise::{
    DType, Tensor, ValueId,
    graph::{Op, Reduce, Unary},
};

use super::{
    import::{Builder, Call, Result, Slot},
    pointwise::one,
};

pub(crate) fn find(operator: &str) -> Option<Builder> {
    Some(match operator {
        "ReduceSum" => |c| plain(c, Reduce::Sum),
        "ReduceMean" => |c| plain(c, Reduce::Mean),
        "ReduceMax" => |c| largest(c, Reduce::Max),
        "ReduceMin" => |c| largest(c, Reduce::Min),
        "ReduceSumSquare" => |c| over_axes(c, sum_of_squares),
        "ReduceL1" => |c| {
            over_axes(c, |c, x, axes, keep| {
                let size = c.g().abs(x)?;
                Ok(c.g().reduce(Reduce::Sum, size, axes, keep)?)
            })
        },
        "ReduceL2" => |c| {
            over_axes(c, |c, x, axes, keep| {
                let sum = sum_of_squares(c, x, axes, keep)?;
                Ok(c.g().sqrt(sum)?)
            })
        },
        "ReduceLogSumExp" => |c| over_axes(c, log_sum_exp),
        "ArgMax" => |c| {
            let x = c.x(0)?;
            argmax(c, x)
        },
        "ArgMin" => |c| {
            let x = c.x(0)?;
            let x = c.g().neg(x)?;
            argmax(c, x)
        },
        "CumSum" => cumulative_sum,
        _ => return None,
    })
}

/// Reads axes and `keepdims`; `reduce` is not called where there is nothing to reduce.
fn over_axes(
    c: &mut Call<'_>,
    reduce: impl FnOnce(&mut Call<'_>, ValueId, &[isize], bool) -> Result<ValueId>,
) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let keep = c.node.int("keepdims") != Some(0);
    let axes: Vec<isize> =
        c.read_or_attribute(1, "axes")?.unwrap_or_default().into_iter().map(|axis| axis as isize).collect();
    if axes.is_empty() && c.node.flag("noop_with_empty_axes") {
        return one(x);
    }
    one(reduce(c, x, &axes, keep)?)
}

fn plain(c: &mut Call<'_>, function: Reduce) -> Result<Vec<Slot>> {
    over_axes(c, |c, x, axes, keep| Ok(c.g().reduce(function, x, axes, keep)?))
}

/// Of booleans the largest is whether any is true, the smallest whether none is false.
fn largest(c: &mut Call<'_>, function: Reduce) -> Result<Vec<Slot>> {
    over_axes(c, |c, x, axes, keep| {
        if c.dtype(x) != DType::Bool {
            return Ok(c.g().reduce(function, x, axes, keep)?);
        }
        let all = function == Reduce::Min;
        let marked = if all { c.g().unary(Unary::Not, x)? } else { x };
        let marked = c.g().cast(marked, DType::I32)?;
        let count = c.g().reduce(Reduce::Sum, marked, axes, keep)?;
        let any = c.g().cast(count, DType::Bool)?;
        Ok(if all { c.g().unary(Unary::Not, any)? } else { any })
    })
}

fn sum_of_squares(c: &mut Call<'_>, x: ValueId, axes: &[isize], keep: bool) -> Result<ValueId> {
    let square = c.g().mul(x, x)?;
    Ok(c.g().reduce(Reduce::Sum, square, axes, keep)?)
}

/// `log Σ exp(x − max) + max`
fn log_sum_exp(c: &mut Call<'_>, x: ValueId, axes: &[isize], keep: bool) -> Result<ValueId> {
    let largest = c.g().reduce(Reduce::Max, x, axes, true)?;
    let below = c.g().sub(x, largest)?;
    let weights = c.g().exp(below)?;
    let sum = c.g().reduce(Reduce::Sum, weights, axes, keep)?;
    let log = c.g().log(sum)?;
    let shape = c.shape(log);
    let largest = c.g().reshape(largest, shape)?;
    Ok(c.g().add(log, largest)?)
}

fn argmax(c: &mut Call<'_>, x: ValueId) -> Result<Vec<Slot>> {
    let rank = c.shape(x).rank();
    let axis = c.axis(c.node.int("axis").unwrap_or(0), rank)?;
    let keep = c.node.int("keepdims") != Some(0);
    one(c.push(Op::Argmax { axis, keep, last: c.node.flag("select_last_index") }, &[x])?)
}

/// Each sum as a sum over a row of a triangle: what a handful of elements needs, not a scan.
fn cumulative_sum(c: &mut Call<'_>) -> Result<Vec<Slot>> {
    let x = c.x(0)?;
    let (shape, axis) = (c.shape(x), c.read(1)?.unwrap_or_default());
    let axis = c.axis(axis.first().copied().unwrap_or(0), shape.rank())?;
    let (n, reverse, exclusive) = (shape[axis], c.node.flag("reverse"), c.node.flag("exclusive"));
    let counts = |to: usize, from: usize| if reverse { from >= to } else { from <= to } && !(exclusive && from == to);
    let triangle: Vec<bool> = (0..n * n).map(|at| counts(at / n, at % n)).collect();
    // Result along `axis`, summands along the axis behind it.
    let triangle = c.g().constant(Tensor::new([&[n, n][..], &vec![1; shape.rank() - axis - 1]].concat(), triangle)?)?;
    let summands = c.g().reshape(x, [&shape[..axis], &[1], &shape[axis..]].concat())?;
    let zero = c.g().scalar(0.0, x)?;
    let summands = c.g().select(triangle, summands, zero)?;
    one(c.g().reduce(Reduce::Sum, summands, &[axis as isize + 1], false)?)
}
