//! What moves elements: its gradient moves them back.

use super::step::{Step, unbroadcast};
use crate::{Graph, Result, Shape, ValueId, graph::Op};

pub(super) fn reshape(step: &mut Step<'_>) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    let dx = step.g.reshape(dy, step.shape(0))?;
    step.give(0, dx)
}

/// The inverse permutation.
pub(super) fn permute(step: &mut Step<'_>, order: &[usize]) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
    let dx = step.g.permute(dy, &inverse)?;
    step.give(0, dx)
}

/// dy between zeros, where the slice was.
pub(super) fn slice(step: &mut Step<'_>, starts: &[usize], sizes: &[usize], steps: &[isize]) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    let shape = step.shape(0);
    let mut dx = dy;
    for axis in 0..shape.rank() {
        let lies = Lies { start: starts[axis], size: sizes[axis], step: steps[axis] };
        dx = lies.spread(step.g, dx, axis, shape[axis])?;
    }
    step.give(0, dx)
}

/// A slice of one axis.
struct Lies {
    start: usize,
    size: usize,
    step: isize,
}

impl Lies {
    /// The slice back at its places among `whole` elements, zeros elsewhere.
    fn spread(&self, g: &mut Graph, slice: ValueId, axis: usize, whole: usize) -> Result<ValueId> {
        if self.size == 0 {
            let mut frame = vec![(0, 0); g.shape(slice).rank()];
            frame[axis].1 = whole;
            return g.pad(slice, &frame, 0.0);
        }
        if self.size == whole && self.step == 1 {
            return Ok(slice);
        }
        let stride = self.step.unsigned_abs();
        let first = if self.step < 0 { self.start - (self.size - 1) * stride } else { self.start };
        let forward = if self.step < 0 { reversed(g, slice, axis)? } else { slice };
        let spaced = if stride > 1 && self.size > 1 { spaced(g, forward, axis, stride)? } else { forward };
        let shape = g.shape(spaced).clone();
        let mut frame = vec![(0, 0); shape.rank()];
        frame[axis] = (first, whole - first - shape[axis]);
        g.pad(spaced, &frame, 0.0)
    }
}

fn reversed(g: &mut Graph, value: ValueId, axis: usize) -> Result<ValueId> {
    let sizes = g.shape(value).to_vec();
    let (mut starts, mut steps) = (vec![0; sizes.len()], vec![1; sizes.len()]);
    (starts[axis], steps[axis]) = (sizes[axis] - 1, -1);
    Ok(g.push(Op::Slice { starts, sizes, steps }, &[value])?[0])
}

/// Zeros between the elements of an axis, so that they lie `stride` apart.
fn spaced(g: &mut Graph, value: ValueId, axis: usize, stride: usize) -> Result<ValueId> {
    let shape = g.shape(value).to_vec();
    let mut split = shape.clone();
    split.insert(axis + 1, 1);
    let split = g.reshape(value, split)?;
    let mut frame = vec![(0, 0); shape.len() + 1];
    frame[axis + 1].1 = stride - 1;
    let filled = g.pad(split, &frame, 0.0)?;
    let mut joined = shape.clone();
    joined[axis] *= stride;
    let joined = g.reshape(filled, joined)?;
    g.slice(joined, axis as isize, 0, (shape[axis] - 1) * stride + 1)
}

/// Each operand's part of dy.
pub(super) fn concat(step: &mut Step<'_>, axis: usize) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    let mut start = 0;
    for operand in 0..step.inputs.len() {
        let end = start + step.shape(operand)[axis];
        if step.wanted[operand] {
            let grad = step.g.slice(dy, axis as isize, start, end)?;
            step.give(operand, grad)?;
        }
        start = end;
    }
    Ok(())
}

/// The sum over what was repeated.
pub(super) fn broadcast(step: &mut Step<'_>) -> Result<()> {
    let Some(dy) = step.grad()? else { return Ok(()) };
    let shape = step.shape(0);
    let dx = unbroadcast(step.g, dy, &shape)?;
    step.give(0, dx)
}

/// dy without the frame.
pub(super) fn pad(step: &mut Step<'_>, before: &[usize]) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    let shape: Shape = step.shape(0);
    let mut dx = dy;
    for (axis, &first) in before.iter().enumerate() {
        if step.g.shape(dx)[axis] != shape[axis] {
            dx = step.g.slice(dx, axis as isize, first, first + shape[axis])?;
        }
    }
    step.give(0, dx)
}
