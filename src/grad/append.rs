//! Writing into a cache: the rows that were written belong to the update, all others to the cache.

use super::step::{Step, wide};
use crate::{Graph, Result, Tensor, ValueId, graph::Binary};

/// The cache gets dy with 0 where rows were written, the update the rows of dy at its places, and 0 where one was dropped.
pub(super) fn append(step: &mut Step<'_>, axis: usize, circular: bool) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    let (update, positions) = (step.inputs[1], step.inputs[2]);
    if step.wanted[0] {
        let zero = step.g.constant(Tensor::zeros(step.g.dtype(update), [])?)?;
        let zeros = step.g.broadcast(zero, step.shape(1))?;
        let (grad, _) = step.g.append(dy, zeros, positions, axis as isize, circular)?;
        step.give(0, grad)?;
    }
    if step.wanted[1] {
        let dy = wide(step.g, dy)?;
        let grad = rows_at(step.g, dy, positions, axis, step.shape(1)[axis], circular)?;
        step.give(1, grad)?;
    }
    Ok(())
}

/// Rows `positions[b] + t` of each item `b` along an axis, t below `count`; 0 for those that are not there.
fn rows_at(
    g: &mut Graph,
    x: ValueId,
    positions: ValueId,
    axis: usize,
    count: usize,
    circular: bool,
) -> Result<ValueId> {
    let shape = g.shape(x).to_vec();
    let (items, places) = (shape[0], shape[axis]);
    // The axis comes second, and joins the items: place n of item b is row b·N + n.
    let order: Vec<usize> = [0, axis].into_iter().chain((1..shape.len()).filter(|&other| other != axis)).collect();
    let rest: Vec<usize> = order[2..].iter().map(|&other| shape[other]).collect();
    let rows = g.permute(x, &order)?;
    let rows = g.reshape(rows, [&[items * places], &rest[..]].concat())?;

    let integer = |g: &mut Graph, value: usize| g.constant(Tensor::new([], vec![value as i32])?);
    let counted = |g: &mut Graph, count: usize| {
        Tensor::new([count], (0..count as i32).collect::<Vec<_>>()).and_then(|t| g.constant(t))
    };
    let (zero, size, last) = (integer(g, 0)?, integer(g, places)?, integer(g, places.saturating_sub(1))?);
    let first = g.reshape(positions, [items, 1])?;
    let turn = counted(g, count)?;
    let place = g.add(first, turn)?;
    let place = if circular { modulo(g, place, size)? } else { place };
    let (from, to) = (g.binary(Binary::GreaterEqual, place, zero)?, g.binary(Binary::Less, place, size)?);
    let there = g.binary(Binary::And, from, to)?;
    let held = g.max(place, zero)?;
    let held = g.min(held, last)?;
    let item = counted(g, items)?;
    let item = g.reshape(item, [items, 1])?;
    let begin = g.mul(item, size)?;
    let row = g.add(begin, held)?;

    let picked = g.gather(rows, row, 0)?;
    let mut mask = vec![items, count];
    mask.resize(shape.len(), 1);
    let there = g.reshape(there, mask)?;
    let none = g.scalar(0.0, picked)?;
    let picked = g.select(there, picked, none)?;
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
    g.permute(picked, &back)
}

/// The remainder that is not negative.
fn modulo(g: &mut Graph, x: ValueId, size: ValueId) -> Result<ValueId> {
    let quotient = g.div(x, size)?;
    let whole = g.mul(quotient, size)?;
    let rest = g.sub(x, whole)?;
    let zero = g.constant(Tensor::new([], vec![0i32])?)?;
    let below = g.binary(Binary::Less, rest, zero)?;
    let above = g.add(rest, size)?;
    g.select(below, above, rest)
}
