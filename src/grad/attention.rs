//! Attention. With `Δ_i = Σ_c dout_ic·out_ic − dlse_i`, [`Op::AttentionGrad`] gives all that depends on scores; of a sink there is one
//! number a row:
//!
//! ```text
//! dsink[h] = −Σ_i exp(sink[h] − lse_i)·Δ_i
//! ```

use super::{attention_written_out, step::Step};
use crate::{
    DType, Result, Tensor, ValueId,
    graph::{Attention, AttentionOperand as A, Op, Reduce},
};

/// The widest head of q, k or v that the fused kernels hold.
const MOST_COLUMNS: usize = 256;

pub(super) fn attention(step: &mut Step<'_>, op: &Attention) -> Result<()> {
    if op.is_paged() || !op.score_mods.is_empty() {
        return Err(step.refused("it is over pages, or functions of the score, which have no derivative"));
    }
    let widest = [0, 2].map(|input| step.shape(input).last().copied().unwrap_or(0)).into_iter().max();
    if widest > Some(MOST_COLUMNS) {
        return attention_written_out::attention(step, op);
    }
    let (dout, dlse) = (step.grad()?, step.grad_of(1)?);
    let (out, lse) = (step.output(0)?, step.outputs[1]);
    let delta = match (dout, dlse) {
        (None, None) => return Ok(()),
        (Some(dout), None) => along(step, dout, out)?,
        (None, Some(dlse)) => step.g.neg(dlse)?,
        (Some(dout), Some(dlse)) => {
            let along = along(step, dout, out)?;
            step.g.sub(along, dlse)?
        }
    };
    if let Some(sinks) = op.input_of(A::Sinks).filter(|&sinks| step.wanted[sinks]) {
        sink(step, op, sinks, [lse, delta])?;
    }

    let results = [Some(0), Some(1), Some(2), op.input_of(A::Bias), op.input_of(A::Slopes)];
    let results: Vec<usize> = results.into_iter().flatten().collect();
    if !results.iter().any(|&operand| step.wanted[operand]) {
        return Ok(());
    }
    let g = &mut *step.g;
    let dout = match dout {
        Some(dout) => dout,
        None => {
            let zero = g.constant(Tensor::zeros(DType::F32, [])?)?;
            g.broadcast(zero, g.shape(out).clone())?
        }
    };
    let stacked = [&[1], &g.shape(lse)[..]].concat();
    let rows = [lse, delta].map(|numbers| g.reshape(numbers, stacked.clone()));
    let [lse, delta] = rows;
    let statistics = g.concat(&[lse?, delta?], 0)?;
    let inputs = [&step.inputs[..], &[dout, statistics]].concat();
    let grads = g.push(Op::AttentionGrad(op.clone()), &inputs)?;
    for (operand, grad) in results.into_iter().zip(grads) {
        if !step.wanted[operand] {
            continue;
        }
        if Some(operand) == op.input_of(A::Slopes) {
            let sum = over_rows(step, op, grad)?;
            step.give(operand, sum)?;
        } else {
            step.give(operand, grad)?;
        }
    }
    Ok(())
}

/// `Σ_c dout_c·out_c`
fn along(step: &mut Step<'_>, dout: ValueId, out: ValueId) -> Result<ValueId> {
    let products = step.g.mul(dout, out)?;
    step.g.reduce(Reduce::Sum, products, &[-1], false)
}

fn sink(step: &mut Step<'_>, op: &Attention, operand: usize, [lse, delta]: [ValueId; 2]) -> Result<()> {
    let sinks = step.input(operand)?;
    let g = &mut *step.g;
    let heads = g.shape(sinks)[0];
    let sinks = if op.is_packed() { sinks } else { g.reshape(sinks, [heads, 1])? };
    let apart = g.sub(sinks, lse)?;
    let weight = g.exp(apart)?;
    let share = g.mul(weight, delta)?;
    let share = g.neg(share)?;
    let sum = over_rows(step, op, share)?;
    step.give(operand, sum)
}

/// The sum over items and rows of what has the shape of lse: a number for each head.
fn over_rows(step: &mut Step<'_>, op: &Attention, numbers: ValueId) -> Result<ValueId> {
    let axes: &[isize] = if op.is_packed() { &[0] } else { &[0, 2] };
    step.g.reduce(Reduce::Sum, numbers, axes, false)
}
