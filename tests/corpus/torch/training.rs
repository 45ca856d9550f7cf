//! Steps of PyTorch's optimizers: the loss before each, and every weight after the last.

use std::collections::BTreeMap;

use tilewise::{
    Tensor, ValueId,
    reference::Evaluation,
    train::{Adam, Optimizer, Settings, Sgd, Trainer, training_step},
};

use super::{
    case::{Case, Compute, Net, Run},
    models::classifier,
};
use crate::{Outputs, common::gpu};

/// The keys of `config` that are about the model, which [`classifier`] reads.
const MODEL: &[&str] = &[
    "d_model",
    "nhead",
    "dim_feedforward",
    "layers",
    "norm_first",
    "activation",
    "final_norm",
    "layer_norm_eps",
    "pooling",
    "steps",
];

pub(crate) fn find(group: &str, operator: &str) -> Option<Compute> {
    matches!((group, operator), ("train", "SGD" | "Adam" | "AdamW")).then_some(Compute::Training(classifier))
}

/// The optimizer that a case names, with every option of it.
fn optimizer(case: &Case) -> Run<Optimizer> {
    let known: &[&str] = match case.op.as_str() {
        "SGD" => &["lr", "momentum", "dampening", "weight_decay", "nesterov"],
        _ => &["lr", "betas", "eps", "weight_decay", "amsgrad"],
    };
    if let Some(key) = case.unknown_key(&[MODEL, known].concat()) {
        return Err(format!("config `{key}` is not supported").into());
    }
    if case.flag("amsgrad") {
        return Err("config `amsgrad` is not supported".into());
    }
    let (rate, weight_decay) = (case.float("lr")?, case.float("weight_decay")?);
    Ok(match case.op.as_str() {
        "SGD" => Sgd {
            rate,
            momentum: case.float("momentum")?,
            dampening: case.float("dampening")?,
            nesterov: case.flag("nesterov"),
            weight_decay,
        }
        .into(),
        operator => {
            let [one, two] = case.floats("betas")?[..] else { return Err("config `betas` is no pair".into()) };
            let decoupled = operator == "AdamW";
            Adam { rate, betas: [one, two], epsilon: case.float("eps")?, weight_decay, decoupled }.into()
        }
    })
}

/// The losses and weights, by the reference and on the device.
pub(crate) fn each_machine(case: &Case, build: fn(&mut Net<'_>) -> Run<ValueId>) -> Run<[(&'static str, Outputs); 2]> {
    let mut net = Net::new(case)?;
    let loss = build(&mut net)?;
    let settings = Settings::new(optimizer(case)?);
    let (inputs, steps) = (net.inputs(), case.size("steps")?);

    // The numbers of each step, which the trainer gives its own program.
    let mut whole = net.g.clone();
    training_step(&mut whole, loss, &settings)?;
    let mut given: BTreeMap<String, Tensor> = inputs.clone();
    given.extend(case.weights.clone());
    let mut losses = Vec::new();
    for step in 1..=steps as u64 {
        given.insert("train/rates".into(), settings.rates(step)?);
        let values = Evaluation::<f64>::new(&whole, &given)?;
        losses.push(values.value(loss).to_f64()[0] as f32);
        given.extend(values.states(&whole)?);
    }
    let reference = outputs(losses, case.weights.keys().map(|name| (name.clone(), given[name].clone())))?;

    let mut trainer = Trainer::new(gpu(), &net.g, loss, settings, &case.weights)?;
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let losses: tilewise::Result<Vec<f32>> = (0..steps).map(|_| Ok(trainer.step(&inputs)?.loss)).collect();
    let device = outputs(losses?, trainer.parameters()?)?;
    Ok([("reference", reference), ("device", device)])
}

fn outputs(losses: Vec<f32>, weights: impl IntoIterator<Item = (String, Tensor)>) -> Run<Outputs> {
    let losses = Tensor::new([losses.len()], losses)?;
    let weights = weights.into_iter().map(|(name, weight)| (format!("after.{name}"), weight));
    Ok(weights.chain([("losses".to_string(), losses)]).collect())
}
