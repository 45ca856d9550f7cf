//! From mean gradients to the next values of all states: the end of a training step.

use super::{
    Settings, names,
    optimizer::{Formula, RATES},
    scale::Scale,
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
    /// What was taken off them.
    pub(super) scale: Option<Scale>,
}

/// What tells a run from others.
pub(super) struct Turn {
    rates: [ValueId; RATES],
    number: ValueId,
    stopped: ValueId,
    /// Whether no run of this turn was refused before.
    pub(super) runs: ValueId,
}

impl Turn {
    /// Of the input that the host gives each run.
    pub(super) fn of(g: &mut Graph) -> Result<Self> {
        let numbers = g.input(names::RATES, DType::F32, [RATES + 1])?;
        let [a, b, c, number] = [0, 1, 2, RATES].map(|i| {
            let number = g.slice(numbers, 0, i, i + 1)?;
            g.reshape(number, [])
        });
        let (rates, number) = ([a?, b?, c?], number?);
        let stopped = g.input(names::STOPPED, DType::F32, [])?;
        let runs = g.binary(Binary::NotEqual, stopped, number)?;
        Ok(Turn { rates, number, stopped, runs })
    }

    /// Leaves out what comes after this run in its turn, unless this is good.
    pub(super) fn goes_on_if(&self, g: &mut Graph, good: ValueId) -> Result<()> {
        let next = g.select(good, self.stopped, self.number)?;
        g.update(self.stopped, next)
    }
}

/// Adds the outputs of a step, and the next value of each parameter and of what the optimizer keeps for it. Where the
/// loss, or the norm of the gradients, is not finite, they stay what they were.
pub(super) fn step(g: &mut Graph, settings: &Settings, means: Means, turn: &Turn) -> Result<()> {
    let mut rates = turn.rates;
    let Means { loss, weight, grads, scale } = means;
    g.output(names::LOSS, loss)?;
    if let Some(weight) = weight {
        g.output(names::WEIGHT, weight)?;
    }
    let good_loss = is_finite(g, loss)?;
    let (mut good, mut counts, mut factor) = (good_loss, good_loss, None);
    if settings.clip.is_some() || scale.is_some() {
        let norm = norm(g, grads.iter().map(|(.., grad)| *grad))?;
        g.output(names::NORM, norm)?;
        let good_grads = is_finite(g, norm)?;
        good = g.binary(Binary::And, good_loss, good_grads)?;
        counts = good;
        if let Some(Scale { factor, dynamic: Some(dynamic) }) = scale {
            g.output(names::SCALED_BY, factor)?;
            let may_skip = dynamic.may_skip(g, factor)?;
            let skips = g.binary(Binary::Or, good_grads, may_skip)?;
            counts = g.binary(Binary::And, good_loss, skips)?;
            let (counts, taken) = (g.binary(Binary::And, counts, turn.runs)?, g.binary(Binary::And, good, turn.runs)?);
            dynamic.update(g, factor, counts, taken)?;
            rates = settings.optimizer.rates_after(g, rates, dynamic.taken)?;
        }
        if let Some(clip) = settings.clip {
            // PyTorch's: the small number keeps what is divided by from being 0.
            let small = g.scalar(1e-6, norm)?;
            let over = g.add(norm, small)?;
            let most = g.scalar(clip, norm)?;
            let wanted = g.div(most, over)?;
            let one = g.scalar(1.0, norm)?;
            factor = Some(g.min(wanted, one)?);
        }
    }
    turn.goes_on_if(g, counts)?;
    let goes_on = g.binary(Binary::And, good, turn.runs)?;
    for (name, value, grad) in grads {
        let grad = match factor {
            Some(factor) => g.mul(grad, factor)?,
            None => grad,
        };
        let (dtype, shape) = (g.dtype(value), g.shape(value).clone());
        let wide = match dtype {
            DType::F32 => value,
            DType::F16 | DType::BF16 | DType::I32 | DType::U32 | DType::Bool => {
                g.parameter(&names::master(&name), DType::F32, shape)?
            }
        };
        let mut formula = Formula { g, rates, goes_on };
        let next = settings.optimizer.update(&mut formula, &name, wide, grad)?;
        let next = formula.becomes(wide, next)?;
        if wide != value {
            let rounded = formula.g.cast(next, dtype)?;
            // Where the step is left out it stays as it was, whoever rounded it at first.
            formula.becomes(value, rounded)?;
        }
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
