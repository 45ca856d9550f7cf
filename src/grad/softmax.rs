//! Softmax and its logarithm, along an axis.

use super::step::Step;
use crate::{Result, graph::Reduce};

/// `dx = y·(dy − Σ y·dy)`. A line of −inf alone has y = 0, and gradient 0.
pub(super) fn softmax(step: &mut Step<'_>, axis: usize) -> Result<()> {
    let Some(dy) = step.grad()? else { return Ok(()) };
    let y = step.output(0)?;
    let product = step.g.mul(y, dy)?;
    let sum = step.g.reduce(Reduce::Sum, product, &[axis as isize], true)?;
    let inner = step.g.sub(dy, sum)?;
    let dx = step.g.mul(y, inner)?;
    step.give(0, dx)
}

/// `dx = dy − e^y · Σ dy`.
pub(super) fn log_softmax(step: &mut Step<'_>, axis: usize) -> Result<()> {
    let Some(dy) = step.grad()? else { return Ok(()) };
    let y = step.output(0)?;
    let weights = step.g.exp(y)?;
    let sum = step.g.reduce(Reduce::Sum, dy, &[axis as isize], true)?;
    let share = step.g.mul(weights, sum)?;
    let dx = step.g.sub(dy, share)?;
    step.give(0, dx)
}
