//! A training step as one graph: forward, backward, clipping and the optimizer.

use super::{
    Optimizer, Schedule,
    optimizer::{Formula, RATES},
};
use crate::{
    DType, Error, Graph, Result, Tensor, ValueId,
    grad::{gradients, unreached},
    graph::{Binary, Reduce},
};

/// The names of what a training step has beside its model.
pub(super) const RATES_NAME: &str = "train/rates";
pub(super) const LOSS: &str = "train/loss";
pub(super) const NORM: &str = "train/norm";

/// How a model is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How parameters follow their gradients.
    pub optimizer: Optimizer,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// Gradients are scaled so that the root of the sum of all their squares is at most this, as `clip_grad_norm_` does.
    pub clip: Option<f64>,
    /// Parameters that stay as they are, by name.
    pub frozen: Vec<String>,
}

impl Settings {
    /// What a run of step `step`, counted from 1, gets as `train/rates`: f32 `[3]`, numbers of the optimizer.
    ///
    /// ```
    /// # use tilewise::train::{Settings, Sgd};
    /// assert_eq!(Settings::new(Sgd::new(0.5)).rates(1)?.to_f64()[0], -0.5);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// None: it returns a `Result` because [`Tensor::new`] does.
    pub fn rates(&self, step: u64) -> Result<Tensor> {
        let rates = self.optimizer.rates(step, self.schedule.factor(step));
        Tensor::new([RATES], rates.map(|rate| rate as f32).to_vec())
    }

    /// All parameters, at a constant rate, without clipping.
    pub fn new(optimizer: impl Into<Optimizer>) -> Self {
        Settings { optimizer: optimizer.into(), schedule: Schedule::Constant, clip: None, frozen: Vec::new() }
    }
}

/// Adds to a graph whose loss is `loss` what makes a run of it a training step: gradients, clipping, and each parameter that is not
/// frozen as a [state](Graph::update) that the optimizer moves on. Outputs of the graph stay, and `train/loss` and, with clipping,
/// `train/norm` (the root of the sum of the squares of all gradients) are added; `train/rates` is an input, which
/// [`Trainer`](super::Trainer) gives.
///
/// Where the loss or the norm is not finite, every state stays what it was.
///
/// ```
/// # use tilewise::{DType, Graph, train::{Adam, Settings, training_step}};
/// # let mut g = Graph::new();
/// let w = g.parameter("w", DType::F32, [1])?;
/// let loss = g.mul(w, w)?;
/// training_step(&mut g, loss, &Settings::new(Adam::new(1e-3)))?;
/// let states: Vec<&str> = g.states().map(|(name, ..)| name).collect();
/// assert_eq!(states, ["w", "exp_avg/w", "exp_avg_sq/w"]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if the loss is no single float, if a frozen parameter is none, if the loss depends on no parameter that is trained, if one
/// of them is not f32, or if numbers of the optimizer or the schedule are out of their range; as [`gradients`]; [`Error::Graph`] if the graph has
/// values of the names above.
pub fn training_step(g: &mut Graph, loss: ValueId, settings: &Settings) -> Result<()> {
    let fault = |message: String| Err(Error::op("train", message));
    settings.optimizer.check()?;
    settings.schedule.check()?;
    if let Some(clip) = settings.clip.filter(|clip| clip.is_nan() || *clip <= 0.0) {
        return fault(format!("gradients can't be clipped at {clip}, expected a number over 0"));
    }
    if let Some(name) = settings.frozen.iter().find(|name| g.parameters().all(|(known, _)| known != name.as_str())) {
        return fault(format!("`{name}` is to be frozen, and is no parameter"));
    }
    let trained: Vec<(String, ValueId)> = g
        .parameters()
        .filter(|(name, value)| g.dtype(*value).is_float() && !settings.frozen.iter().any(|frozen| frozen == name))
        .map(|(name, value)| (name.to_string(), value))
        .collect();
    if let Some((_, narrow)) = trained.iter().find(|(_, value)| g.dtype(*value) != DType::F32) {
        let narrow = g.describe(*narrow);
        return fault(format!("{narrow} can't be trained: keep the parameter in f32, and cast it where it is used"));
    }
    let values: Vec<ValueId> = trained.iter().map(|(_, value)| *value).collect();
    if unreached(g, loss, &values).len() == values.len() {
        return fault(format!("the loss {} depends on no parameter that is trained", g.describe(loss)));
    }
    let grads = gradients(g, loss, &values)?;
    let scalar = g.reshape(loss, [])?;
    g.output(LOSS, scalar)?;
    let rates = g.input(RATES_NAME, DType::F32, [RATES])?;
    let rates = [0, 1, 2].map(|i| {
        let rate = g.slice(rates, 0, i, i + 1)?;
        g.reshape(rate, [])
    });
    let [a, b, c] = rates;
    let rates = [a?, b?, c?];
    let scalar = g.cast(scalar, DType::F32)?;
    let mut goes_on = is_finite(g, scalar)?;
    let mut factor = None;
    if let Some(clip) = settings.clip {
        let norm = norm(g, &grads)?;
        g.output(NORM, norm)?;
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
    for ((name, value), grad) in trained.iter().zip(grads) {
        let grad = match factor {
            Some(factor) => g.mul(grad, factor)?,
            None => grad,
        };
        let mut formula = Formula { g, rates, goes_on };
        let next = settings.optimizer.update(&mut formula, name, *value, grad)?;
        formula.becomes(*value, next)?;
    }
    Ok(())
}

/// Whether a scalar is finite.
fn is_finite(g: &mut Graph, x: ValueId) -> Result<ValueId> {
    let size = g.abs(x)?;
    let infinite = g.constant(Tensor::new([], vec![f32::INFINITY])?)?;
    g.binary(Binary::Less, size, infinite)
}

/// The root of the sum of all squares, summed tensor by tensor.
fn norm(g: &mut Graph, grads: &[ValueId]) -> Result<ValueId> {
    let mut sums = Vec::with_capacity(grads.len());
    for &grad in grads {
        let square = g.mul(grad, grad)?;
        let sum = g.reduce(Reduce::Sum, square, &[], false)?;
        sums.push(g.reshape(sum, [1])?);
    }
    let all = g.concat(&sums, 0)?;
    let sum = g.reduce(Reduce::Sum, all, &[0], false)?;
    g.sqrt(sum)
}
