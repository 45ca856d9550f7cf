//! Rotary position embedding: a rotation's gradient turns back.

use super::step::Step;
use crate::Result;

/// dx is dy turned by the opposite angles.
pub(super) fn rotary(step: &mut Step<'_>, interleaved: bool) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    if step.wanted[1] || step.wanted[2] {
        return Err(step.refused("its tables of cosines and sines are not trained"));
    }
    let (cos, sin, positions) = (step.inputs[1], step.inputs[2], step.inputs[3]);
    let back = step.g.neg(sin)?;
    let dx = step.g.rotary(dy, [cos, back], positions, interleaved)?;
    step.give(0, dx)
}
