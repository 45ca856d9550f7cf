//! A training step as one graph: forward, backward, clipping and the optimizer. Over several micro-batches it is two.

use super::{
    Loss, Settings, names,
    scale::{self, Scale},
    update::{self, Means, Turn},
};
use crate::{DType, Error, Graph, Result, ValueId, grad::gradients, graph::Binary};

/// Adds to a graph whose loss is `loss` what makes a run of it a training step: gradients, clipping, and each parameter
/// that is not frozen as a [state](Graph::update) that the optimizer moves on. Outputs of the graph stay, and
/// `train/loss` and, with clipping, `train/norm` (the root of the sum of the squares of all gradients) are added, and
/// `train/weight` for a [`Loss`] that has one; `train/rates` is an input, which [`Trainer`](super::Trainer) gives, as it
/// gives `train/seed` to graphs that have a [`seed`](super::seed). With
/// a [loss scale](super::LossScale) there is `train/norm` too, and for a dynamic one the output `train/scaled_by` and
/// the states `train/scale`, `train/good_steps` and `train/taken`.
///
/// A parameter of f16 or bf16 gets a master in f32, which is another parameter, `master/NAME`: it follows the gradient, and the
/// parameter that the model reads is rounded from it after each step. Small steps are not lost so.
///
/// Where the loss or the norm is not finite, every state stays what it was but `train/stopped`, by which runs that
/// nobody waits for are left out behind it ([`Settings::rates`]).
///
/// ```
/// # use tilewise::{DType, Graph, train::{Adam, Settings, training_step}};
/// # let mut g = Graph::new();
/// let w = g.parameter("w", DType::F32, [1])?;
/// let loss = g.mul(w, w)?;
/// training_step(&mut g, loss, &Settings::new(Adam::new(1e-3)))?;
/// let states: Vec<&str> = g.states().map(|(name, ..)| name).collect();
/// assert_eq!(states, ["w", "train/stopped", "exp_avg/w", "exp_avg_sq/w"]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if the loss is no single float, its weight no single number or one that depends on what is trained, if a frozen
/// parameter is none, if the loss depends on no parameter that is trained, if numbers of the optimizer, the schedule or
/// the loss scale are out of their range, or if the step is to be one over several micro-batches ([`accumulated_step`]
/// is theirs); as [`gradients`]; [`Error::Graph`] if the graph has values of the names above.
pub fn training_step(g: &mut Graph, loss: impl Into<Loss>, settings: &Settings) -> Result<()> {
    let loss = loss.into();
    let trained = trained(g, loss, settings)?;
    if settings.micro_batches > 1 {
        let given = settings.micro_batches;
        return Err(Error::op(
            "train",
            format!("a step over {given} micro-batches is two graphs, expected 1: use `accumulated_step`"),
        ));
    }
    let mean = loss.mean(g)?;
    let scale = settings.scale.map(|by| scale::owned(g, by)).transpose()?;
    let grads = all_gradients(g, mean, &trained, scale)?;
    let weight = loss.scalars(g)?.1;
    let turn = Turn::of(g)?;
    let grads = trained.into_iter().zip(grads).map(|((name, value), grad)| (name, value, grad)).collect();
    update::step(g, settings, Means { loss: mean, weight, grads, scale }, &turn)
}

/// A training step over [several micro-batches](Settings::micro_batches), as two graphs. `g`, whose loss is `loss`,
/// becomes that of a micro-batch: a run adds its gradients to the states `grad_sum/NAME`, its loss and weight to
/// `train/loss_sum` and `train/weight_sum`, and gives both as `train/loss` and `train/weight`. A run of the graph that
/// is returned takes the step, with the outputs of a [`training_step`], and makes the sums zero. Both name the same
/// parameters and sums, and are to get the same buffers for them, as [`Trainer`](super::Trainer) gives.
///
/// A micro-batch whose loss or weight is not finite adds nothing.
///
/// ```
/// # use std::collections::BTreeMap;
/// # use tilewise::{DType, Graph, Tensor, reference::Evaluation, train::{Settings, Sgd, accumulated_step}};
/// # let mut g = Graph::new();
/// let x = g.input("x", DType::F32, [1])?;
/// let w = g.parameter("w", DType::F32, [1])?;
/// let loss = g.mul(w, x)?;
/// let settings = Settings { micro_batches: 2, ..Settings::new(Sgd::new(1.0)) };
/// let step = accumulated_step(&mut g, loss, &settings)?;
/// let mut given = BTreeMap::from([("w".to_string(), Tensor::new([1], vec![10.0f32])?)]);
/// for x in [1.0f32, 3.0] {
///     given.insert("x".into(), Tensor::new([1], vec![x])?);
///     given.insert("train/rates".into(), settings.rates(1)?);
///     given.extend(Evaluation::<f64>::new(&g, &given)?.states(&g)?);
/// }
/// given.remove("x");
/// let after = Evaluation::<f64>::new(&step, &given)?.states(&step)?;
/// assert_eq!(after["w"].to_f64(), [8.0]); // 10 − (1 + 3)/2
/// assert_eq!(after["grad_sum/w"].to_f64(), [0.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// As [`training_step`], for any number of micro-batches.
pub fn accumulated_step(g: &mut Graph, loss: impl Into<Loss>, settings: &Settings) -> Result<Graph> {
    let loss = loss.into();
    let trained = trained(g, loss, settings)?;
    let mut step = Graph::new();
    let (turn, after) = (Turn::of(g)?, Turn::of(&mut step)?);

    let (value, weight) = loss.scalars(g)?;
    let weighs = weight.is_some();
    let given = settings.scale.map(|by| scale::given(g, by)).transpose()?;
    let scale = settings.scale.map(|by| scale::owned(&mut step, by)).transpose()?;
    let grads = all_gradients(g, value, &trained, given)?;
    let weight = match weight {
        Some(weight) => weight,
        None => g.scalar(1.0, value)?,
    };
    g.output(names::LOSS, value)?;
    g.output(names::WEIGHT, weight)?;
    let sum = g.add(value, weight)?;
    let good = update::is_finite(g, sum)?;
    turn.goes_on_if(g, good)?;
    let counts = g.binary(Binary::And, good, turn.runs)?;
    let mut add = |name: &str, part: ValueId| {
        let before = g.input(name, DType::F32, g.shape(part).clone())?;
        let more = g.add(before, part)?;
        let next = g.select(counts, more, before)?;
        g.update(before, next)?;
        // The other graph takes it over, and leaves zero.
        let taken = step.input(name, DType::F32, g.shape(part).clone())?;
        let zero = step.scalar(0.0, taken)?;
        let left = step.select(after.runs, zero, taken)?;
        step.update(taken, left)?;
        Ok(taken)
    };
    let (loss, weight) = (add(names::LOSS_SUM, value)?, add(names::WEIGHT_SUM, weight)?);
    let sums: Vec<ValueId> =
        trained.iter().zip(grads).map(|((name, _), grad)| add(&names::grad_sum(name), grad)).collect::<Result<_>>()?;

    let mean = step.div(loss, weight)?;
    let mut grads = Vec::with_capacity(trained.len());
    for ((name, value), sum) in trained.into_iter().zip(sums) {
        let parameter = step.parameter(&name, g.dtype(value), g.shape(value).clone())?;
        grads.push((name, parameter, step.div(sum, weight)?));
    }
    let weight = weighs.then_some(weight);
    update::step(&mut step, settings, Means { loss: mean, weight, grads, scale }, &after)?;
    Ok(step)
}

/// The parameters that a step changes, if it can be taken.
fn trained(g: &Graph, loss: Loss, settings: &Settings) -> Result<Vec<(String, ValueId)>> {
    settings.check(g)?;
    let trained: Vec<(String, ValueId)> = g
        .parameters()
        .filter(|(name, value)| g.dtype(*value).is_float() && !settings.frozen.iter().any(|frozen| frozen == name))
        .map(|(name, value)| (name.to_string(), value))
        .collect();
    loss.check(g, &trained.iter().map(|(_, value)| *value).collect::<Vec<_>>())?;
    Ok(trained)
}

/// The gradients of a scalar with respect to parameters, in f32, and without the scale by which they were computed.
fn all_gradients(
    g: &mut Graph,
    loss: ValueId,
    trained: &[(String, ValueId)],
    scale: Option<Scale>,
) -> Result<Vec<ValueId>> {
    let values: Vec<ValueId> = trained.iter().map(|(_, value)| *value).collect();
    let scaled = scale.map_or(Ok(loss), |scale| g.mul(loss, scale.factor))?;
    let grads = gradients(g, scaled, &values)?;
    let grads = grads.into_iter().map(|grad| g.cast(grad, DType::F32)).collect::<Result<Vec<_>>>()?;
    match scale {
        Some(scale) => scale.taken_off(g, grads),
        None => Ok(grads),
    }
}
