//! From mean gradients to the next values of all states: the end of a training step.

use super::{
    Settings, names,
    optimizer::{Formula, RATES},
};
use crate::{
    DType, Graph, Result, Tensor, ValueId,
    graph::{Binary, Reduce},
};

/// What a step is taken on.
pub(super) struct Means {
    /// f32 without axes, as all numbers here.
    pub(super) loss: ValueId,
    /// What the loss is the mean over, if that is known.
    pub(super) weight: Option<ValueId>,
    /// The parameters that are trained, with their gradients in f32.
    pub(super) grads: Vec<(String, ValueId, ValueId)>,
}

/// The input that the host gives each run.
pub(super) fn rates(g: &mut Graph) -> Result<[ValueId; RATES]> {
    let rates = g.input(names::RATES, DType::F32, [RATES])?;
    let [a, b, c] = [0, 1, 2].map(|i| {
        let rate = g.slice(rates, 0, i, i + 1)?;
        g.reshape(rate, [])
    });
    Ok([a?, b?, c?])
}

/// Adds the outputs of a step, and the next value of each parameter and of what the optimizer keeps for it. Where the loss, or the norm
/// of the gradients, is not finite, they stay what they were.
pub(super) fn step(g: &mut Graph, settings: &Settings, means: Means, rates: [ValueId; RATES]) -> Result<()> {
    let Means { loss, weight, grads } = means;
    g.output(names::LOSS, loss)?;
    if let Some(weight) = weight {
        g.output(names::WEIGHT, weight)?;
    }
    let mut goes_on = is_finite(g, loss)?;
    let mut factor = None;
    if let Some(clip) = settings.clip {
        let norm = norm(g, grads.iter().map(|(.., grad)| *grad))?;
        g.output(names::NORM, norm)?;
        let finite = is_finite(g, norm)?;
        goes_on = g.binary(Binary::And, goes_on, finite)?;
        // PyTorch's: the small number keeps what is divided by from being 0.
        let small = g.scalar(1e-6, norm)?;
        let over = g.add(norm, small)?;
        let most = g.scalar(clip, norm)?;
        let wanted = g.div(most, over)?;
        let one = g.scalar(1.0, norm)?;
        factor = Some(g.min(wanted, one)?);
    }
    for (name, value, grad) in grads {
        let grad = match factor {
            Some(factor) => g.mul(grad, factor)?,
            None => grad,
        };
        let mut formula = Formula { g, rates, goes_on };
        let next = settings.optimizer.update(&mut formula, &name, value, grad)?;
        formula.becomes(value, next)?;
    }
    Ok(())
}

/// Whether a scalar is finite.
pub(super) fn is_finite(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let size = g.abs(x)?;
    let infinite = g.constant(Tensor::new([], vec![f32::INFINITY])?)?;
    g.binary(Binary::Less, size, infinite)
}

/// The root of the sum of all squares, summed tensor by tensor.
fn norm(g: &mut Graph, grads: impl Iterator<Item = ValueId>) -> Result<ValueId> {
    let mut sums = Vec::new();
    for grad in grads {
        let square = g.mul(grad, grad)?;
        let sum = g.reduce(Reduce::Sum, square, &[], false)?;
        sums.push(g.reshape(sum, [1])?);
    }
    let all = g.concat(&sums, 0)?;
    let sum = g.reduce(Reduce::Sum, all, &[0], false)?;
    g.sqrt(sum)
}
