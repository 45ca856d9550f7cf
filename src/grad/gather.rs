//! Slices that were picked by index: the gradient of each goes back to its place, and what comes to one place is summed.

use super::step::Step;
use crate::Result;

/// The slices of dy, summed by index.
pub(super) fn gather(step: &mut Step<'_>, axis: usize) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    let size = step.shape(0)[axis];
    let dx = step.g.scatter_add(dy, step.inputs[1], axis as isize, size)?;
    step.give(0, dx)
}

/// The slices of dy, picked by index.
pub(super) fn scatter_add(step: &mut Step<'_>, axis: usize) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    let dx = step.g.gather(dy, step.inputs[1], axis as isize)?;
    step.give(0, dx)
}
