//! Cross entropy. With `p_c = exp(x_c − lse)`, and D that of dloss which counts:
//!
//! ```text
//! dx_c = (D·((1 − ε)·w_t + ε/C·Σw) + dlse)·p_c − D·((1 − ε)·w_t·[c = t] + ε/C·w_c)
//! ```
//!
//! What belongs to rows comes first, so that fusion puts what belongs to elements into one kernel, and what of the rest it
//! can read beside. That is all of it, unless weights are smoothed.

use super::{
    pointwise::times,
    step::{Step, keep_axes},
};
use crate::{
    Result, Tensor, ValueId,
    graph::{Binary, Reduce},
};

/// `logits, targets, [weight] → loss, lse, weight`.
pub(super) fn cross_entropy(step: &mut Step<'_>, ignore: Option<i32>, smoothing: f32, weight: bool) -> Result<()> {
    if weight && step.wanted[2] {
        return Err(step.refused("weights of classes are not trained"));
    }
    let (dloss, dlse) = (step.grad_of(0)?, step.grad_of(1)?);
    // The third result depends on no logit.
    if !step.wanted[0] || (dloss.is_none() && dlse.is_none()) {
        return Ok(());
    }
    let shape = step.shape(0);
    let (last, classes) = (shape.rank() - 1, shape[shape.rank() - 1]);
    let column = |step: &mut Step<'_>, value: ValueId| keep_axes(step.g, value, &shape, &[last]);
    let (lse, targets) = (step.outputs[1], step.inputs[1]);
    let (lse, targets) = (column(step, lse)?, column(step, targets)?);
    let dlse = dlse.map(|dlse| column(step, dlse)).transpose()?;
    let spread = f64::from(smoothing) / classes.max(1) as f64;
    let sharp = 1.0 - f64::from(smoothing);

    // A number for each row: the factor of p, and that of what is taken off it.
    let (mut of_p, mut off) = (dlse, None);
    if let Some(dloss) = dloss {
        let (dloss, counts) = (column(step, dloss)?, step.outputs[2]);
        let counts = column(step, counts)?;
        let (of_loss, factor) = if weight && smoothing > 0.0 {
            let all = step.input(2)?;
            let all = step.g.reduce(Reduce::Sum, all, &[], false)?;
            let all = times(step.g, all, spread)?;
            let own = times(step.g, counts, sharp)?;
            let factor = step.g.add(own, all)?;
            // The weight of a row that counts may be 0.
            let seen = counted(step, targets, classes, ignore)?;
            let zero = step.g.scalar(0.0, dloss)?;
            let dloss = step.g.select(seen, dloss, zero)?;
            (step.g.mul(dloss, factor)?, dloss)
        } else {
            let dloss = step.g.mul(dloss, counts)?;
            (dloss, dloss)
        };
        off = Some(factor);
        of_p = Some(match dlse {
            Some(dlse) => step.g.add(of_loss, dlse)?,
            None => of_loss,
        });
    }
    let Some(of_p) = of_p else { return Ok(()) };

    let x = step.input(0)?;
    let g = &mut *step.g;
    let zero = g.scalar(0.0, x)?;
    let nothing = g.scalar(f64::NEG_INFINITY, x)?;
    let below = g.sub(x, lse)?;
    let share = g.exp(below)?;
    // In a row of −inf alone there is no probability; and what a row that is ignored holds is nobody's.
    let empty = g.binary(Binary::Equal, lse, nothing)?;
    let share = g.select(empty, zero, share)?;
    let part = g.mul(of_p, share)?;
    let counts = g.binary(Binary::NotEqual, of_p, zero)?;
    let mut dx = g.select(counts, part, zero)?;
    if let Some(off) = off {
        let class = g.constant(Tensor::new([classes], (0..classes as i32).collect::<Vec<i32>>())?)?;
        let hit = g.binary(Binary::Equal, targets, class)?;
        let (on, rest) = (g.scalar(sharp + spread, x)?, g.scalar(spread, x)?);
        let mut label = g.select(hit, on, rest)?;
        if weight && smoothing > 0.0 {
            let weight = step.input(2)?;
            label = step.g.mul(label, weight)?;
        }
        let label = step.g.mul(off, label)?;
        dx = step.g.sub(dx, label)?;
    }
    let dx = step.g.broadcast(dx, shape.clone())?;
    step.give(0, dx)
}

/// Whether each target is a class that is not ignored.
fn counted(step: &mut Step<'_>, targets: ValueId, classes: usize, ignore: Option<i32>) -> Result<ValueId> {
    let g = &mut *step.g;
    let (zero, end) = (g.scalar(0.0, targets)?, g.scalar(classes as f64, targets)?);
    let (from, to) = (g.binary(Binary::GreaterEqual, targets, zero)?, g.binary(Binary::Less, targets, end)?);
    let mut counted = g.binary(Binary::And, from, to)?;
    if let Some(ignore) = ignore {
        let ignore = g.scalar(f64::from(ignore), targets)?;
        let other = g.binary(Binary::NotEqual, targets, ignore)?;
        counted = g.binary(Binary::And, counted, other)?;
    }
    Ok(counted)
}
