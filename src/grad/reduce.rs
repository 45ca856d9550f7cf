//! Reductions over axes.

use super::{
    pointwise::times,
    step::{Step, keep_axes},
};
use crate::{
    DType, Result,
    graph::{Binary, Reduce},
};

/// Sum: dy for each element; mean: dy/n; maximum and minimum: dy, shared evenly by those that are equal to the result.
pub(super) fn reduce(step: &mut Step<'_>, function: Reduce, axes: &[usize]) -> Result<()> {
    let Some(dy) = step.grad()? else { return Ok(()) };
    let shape = step.shape(0);
    let dy = keep_axes(step.g, dy, &shape, axes)?;
    let dx = match function {
        Reduce::Sum => dy,
        Reduce::Mean => {
            let count: usize = axes.iter().map(|&axis| shape[axis]).product();
            times(step.g, dy, 1.0 / count.max(1) as f64)?
        }
        Reduce::Max | Reduce::Min => {
            let (x, y) = (step.inputs[0], step.outputs[0]);
            let y = keep_axes(step.g, y, &shape, axes)?;
            let axes: Vec<isize> = axes.iter().map(|&axis| axis as isize).collect();
            let g = &mut *step.g;
            let equal = g.binary(Binary::Equal, x, y)?;
            let ones = g.cast(equal, DType::F32)?;
            let count = if axes.is_empty() { ones } else { g.reduce(Reduce::Sum, ones, &axes, true)? };
            let (share, zero) = (g.div(dy, count)?, g.scalar(0.0, dy)?);
            g.select(equal, share, zero)?
        }
    };
    let dx = step.g.broadcast(dx, shape)?;
    step.give(0, dx)
}
