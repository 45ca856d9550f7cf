//! Dropout: what was kept passes the gradient, as much larger.

use super::step::Step;
use crate::{Result, graph::Op};

/// The same operation on dy, with the same seed and stream: it draws the same again.
pub(super) fn dropout(step: &mut Step<'_>, p: f64, stream: u32) -> Result<()> {
    let Some(dy) = step.grads[0] else { return Ok(()) };
    let dx = step.g.push(Op::Dropout { p, stream }, &[dy, step.inputs[1]])?[0];
    step.give(0, dx)
}
