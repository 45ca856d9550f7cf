//! What PyTorch computed, against graphs of tilewise on the CPU reference and on the device.
//!
//! Single operations are graph operations; layers and models are those of [`tilewise::nn`], which take PyTorch's weights
//! under their own names. PyTorch's results are in float64, rounded once, so the bounds are those of a plain f32 run: 1e-5 of
//! the largest result for one operation, 1e-4 for a layer or model.

mod case;
mod layers;
mod models;
mod operators;
mod packed;
mod training;

use std::path::Path;

use case::{Case, Cases, Compute, Net};
use tilewise::reference::compare::Bound;

use crate::{Filter, Outcome, Outputs, Report, check, each_machine};

/// How to compute a case of a group.
fn find(group: &str, operator: &str) -> Option<Compute> {
    [operators::find, layers::find, packed::find, models::find, training::find]
        .into_iter()
        .find_map(|find| find(group, operator))
}

/// Groups of one operation, which is held to the tighter bound.
const OPERATIONS: &[&str] = &["sdpa", "norm", "product", "softmax", "pointwise", "gather", "loss"];

fn outcome(case: &Case) -> Outcome {
    let Some(compute) = find(&case.group, &case.op) else {
        return Outcome::Unknown(format!("{} {}", case.group, case.op));
    };
    let bound = if OPERATIONS.contains(&case.group.as_str()) { 1e-5 } else { 1e-4 };
    let compared = match compute {
        Compute::Graph(build) => each_machine(|machine| {
            let outputs = Net::new(case).and_then(|mut net| {
                build(&mut net)?;
                net.add_gradients()?;
                net.run(machine)
            });
            compare(case, &outputs.map_err(|e| e.to_string())?, bound)
        }),
        Compute::Steps(steps) => {
            each_machine(|machine| compare(case, &steps(case, machine).map_err(|e| e.to_string())?, bound))
        }
        Compute::Training(build) => match training::each_machine(case, build) {
            Ok(runs) => runs.into_iter().try_for_each(|(machine, outputs)| {
                compare(case, &outputs, bound).map_err(|why| format!("{machine}: {why}"))
            }),
            Err(why) => Err(why.to_string()),
        },
    };
    match compared {
        Ok(()) => Outcome::Passed,
        Err(why) => Outcome::Failed(why),
    }
}

fn compare(case: &Case, outputs: &Outputs, bound: f64) -> Result<(), String> {
    let grads = case.grads.iter().map(|(name, grad)| (format!("grad.{name}"), grad));
    let results = case.expected.iter().map(|(name, result)| (name.clone(), result));
    results.chain(grads).try_for_each(|(name, expected)| {
        let name = name.as_str();
        let actual = outputs.get(name).ok_or_else(|| format!("there is no output `{name}`"))?;
        let peak = expected.to_f64().into_iter().map(f64::abs).filter(|x| x.is_finite()).fold(0.0, f64::max);
        check(name, actual, expected, Bound::absolute(bound * peak))
    })
}

/// Runs the cases of a folder that are asked for, and says whether all is right.
pub(crate) fn run(folder: &Path, filter: &Filter) -> Result<bool, String> {
    let Cases { source, headers } = Cases::read(folder)?;
    let report = Report::of(
        filter,
        &headers,
        |header| (header.name.clone(), format!("{} {}", header.group, header.op)),
        |header| Case::load(folder, header).map_or_else(Outcome::Failed, |case| outcome(&case)),
    );
    let title =
        format!("{} cases of {source} in {}, with the gradients that they have", headers.len(), folder.display());
    Ok(report.finish(filter, "torch", &title))
}
