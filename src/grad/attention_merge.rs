//! Attention over parts of the keys, joined. With `w_p = exp(lse_p − lse)`, 0 for a part that saw nothing:
//!
//! ```text
//! dout_p = w_p·dout        dlse_p = w_p·(Σ_c dout_c·(out_pc − out_c) + dlse)
//! ```

use super::step::Step;
use crate::{
    Result,
    graph::{Binary, Reduce},
};

pub(super) fn attention_merge(step: &mut Step<'_>) -> Result<()> {
    let (dout, dlse) = (step.grad()?, step.grad_of(1)?);
    let (outs, lses) = (step.input(0)?, step.input(1)?);
    let (out, lse) = (step.output(0)?, step.output(1)?);
    let shape = step.shape(1);
    let g = &mut *step.g;
    let lowest = g.scalar(f32::MIN.into(), lses)?;
    let seen = g.binary(Binary::Greater, lses, lowest)?;
    let distance = g.sub(lses, lse)?;
    let weight = g.exp(distance)?;
    let zero = g.scalar(0.0, weight)?;
    let weight = g.select(seen, weight, zero)?;
    let column = g.reshape(weight, [&shape[..], &[1]].concat())?;
    if step.wanted[0]
        && let Some(dout) = dout
    {
        let grad = step.g.mul(column, dout)?;
        step.give(0, grad)?;
    }
    if step.wanted[1] {
        let g = &mut *step.g;
        let mut sum = dlse;
        if let Some(dout) = dout {
            let apart = g.sub(outs, out)?;
            let along = g.mul(dout, apart)?;
            let along = g.reduce(Reduce::Sum, along, &[-1], false)?;
            sum = Some(match sum {
                Some(sum) => g.add(along, sum)?,
                None => along,
            });
        }
        if let Some(sum) = sum {
            let grad = g.mul(weight, sum)?;
            step.give(1, grad)?;
        }
    }
    Ok(())
}
