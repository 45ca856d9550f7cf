//! Layer norm and RMS norm. With `x̂ = (x − mean)·rstd` (RMS norm: `x·rstd`), `dx̂ = dy·weight`, and means over the n normalised
//! elements:
//!
//! ```text
//! dx      = rstd·(dx̂ − mean(dx̂) − x̂·mean(dx̂·x̂)) + dmean/n − drstd·rstd²·x̂/n        (RMS norm lacks the means of x and of dx̂)
//! dweight = Σ dy·x̂        dbias = Σ dy        over the rows
//! ```

use super::{
    pointwise::times,
    step::{Step, keep_axes},
};
use crate::{Result, ValueId, graph::Reduce};

/// `x, [weight], [bias] → y, mean, rstd`.
pub(super) fn layer_norm(step: &mut Step<'_>, axes: usize, weight: bool, bias: bool) -> Result<()> {
    let norm = Norm {
        axes,
        weight: weight.then_some(1),
        bias: bias.then_some(1 + usize::from(weight)),
        mean: Some(1),
        rstd: 2,
    };
    norm.back(step)
}

/// `x, [weight] → y, rstd`.
pub(super) fn rms_norm(step: &mut Step<'_>, axes: usize, weight: bool) -> Result<()> {
    let norm = Norm { axes, weight: weight.then_some(1), bias: None, mean: None, rstd: 1 };
    norm.back(step)
}

/// Which operands and results a norm has.
struct Norm {
    axes: usize,
    weight: Option<usize>,
    bias: Option<usize>,
    mean: Option<usize>,
    rstd: usize,
}

impl Norm {
    fn back(&self, step: &mut Step<'_>) -> Result<()> {
        let shape = step.shape(0);
        let axes: Vec<usize> = (shape.rank() - self.axes..shape.rank()).collect();
        let count: usize = axes.iter().map(|&axis| shape[axis]).product();
        let share = 1.0 / count.max(1) as f64;
        let column = |step: &mut Step<'_>, value| keep_axes(step.g, value, &shape, &axes);

        let x = step.input(0)?;
        let rstd = step.outputs[self.rstd];
        let rstd = column(step, rstd)?;
        let centred = match self.mean {
            Some(mean) => {
                let mean = step.outputs[mean];
                let mean = column(step, mean)?;
                step.g.sub(x, mean)?
            }
            None => x,
        };
        let normal = step.g.mul(centred, rstd)?;

        let mut dx = None;
        if let Some(dy) = step.grad()? {
            if let Some(bias) = self.bias.filter(|&bias| step.wanted[bias]) {
                step.give(bias, dy)?;
            }
            if let Some(weight) = self.weight.filter(|&weight| step.wanted[weight]) {
                let grad = step.g.mul(dy, normal)?;
                step.give(weight, grad)?;
            }
            if step.wanted[0] {
                let scaled = match self.weight {
                    Some(weight) => {
                        let weight = step.input(weight)?;
                        step.g.mul(dy, weight)?
                    }
                    None => dy,
                };
                let means: Vec<isize> = axes.iter().map(|&axis| axis as isize).collect();
                let along = step.g.mul(scaled, normal)?;
                let along = step.g.reduce(Reduce::Mean, along, &means, true)?;
                let along = step.g.mul(normal, along)?;
                let mut inner = step.g.sub(scaled, along)?;
                if self.mean.is_some() {
                    let level = step.g.reduce(Reduce::Mean, scaled, &means, true)?;
                    inner = step.g.sub(inner, level)?;
                }
                dx = Some(step.g.mul(rstd, inner)?);
            }
        }
        if !step.wanted[0] {
            return Ok(());
        }
        if let Some(mean) = self.mean
            && let Some(grad) = step.grad_of(mean)?
        {
            let grad = column(step, grad)?;
            let grad = times(step.g, grad, share)?;
            dx = Some(plus(step, dx, grad)?);
        }
        if let Some(grad) = step.grad_of(self.rstd)? {
            let grad = column(step, grad)?;
            let square = step.g.mul(rstd, rstd)?;
            let slope = times(step.g, square, -share)?;
            let grad = step.g.mul(grad, slope)?;
            let grad = step.g.mul(normal, grad)?;
            dx = Some(plus(step, dx, grad)?);
        }
        let Some(dx) = dx else { return Ok(()) };
        let dx = step.g.broadcast(dx, shape.clone())?;
        step.give(0, dx)
    }
}

fn plus(step: &mut Step<'_>, sum: Option<ValueId>, part: ValueId) -> Result<ValueId> {
    match sum {
        Some(sum) => step.g.add(sum, part),
        None => Ok(part),
    }
}
