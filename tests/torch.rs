//! What PyTorch computed, against graphs of tilewise on the CPU reference and on the device.
//!
//! Single operations are graph operations; layers and models are those of [`tilewise::nn`], which take PyTorch's weights
//! under their own names. PyTorch's results are in float64, rounded once, so the bounds are those of a plain f32 run: 1e-5 of
//! the largest result for one operation, 1e-4 for a layer or model. `TILEWISE_TORCH_CASES` names another folder of cases;
//! words on the command line choose cases by name, group or operator: `cargo test --test torch -- encoder`.

mod conformance;

#[path = "torch/case.rs"]
mod case;
#[path = "torch/layers.rs"]
mod layers;
#[path = "torch/models.rs"]
mod models;
#[path = "torch/operators.rs"]
mod operators;
#[path = "torch/packed.rs"]
mod packed;

use std::process::ExitCode;

use case::{Case, Cases, Compute, Net};
use conformance::{Outcome, Outputs, Report, check, folder};
use tilewise::reference::compare::Bound;

/// How to compute a case of a group.
fn find(group: &str, operator: &str) -> Option<Compute> {
    [operators::find, layers::find, packed::find, models::find].into_iter().find_map(|find| find(group, operator))
}

/// Groups of one operation, which is held to the tighter bound.
const OPERATIONS: &[&str] = &["sdpa", "norm", "product", "softmax", "pointwise", "gather", "loss"];

fn run(case: &Case) -> Outcome {
    let Some(compute) = find(&case.group, &case.op) else {
        return Outcome::Unknown(format!("{} {}", case.group, case.op));
    };
    let bound = if OPERATIONS.contains(&case.group.as_str()) { 1e-5 } else { 1e-4 };
    let compared = conformance::each_machine(|machine| {
        let outputs = match compute {
            Compute::Graph(build) => Net::new(case).and_then(|mut net| {
                build(&mut net)?;
                net.run(machine)
            }),
            Compute::Steps(steps) => steps(case, machine),
        };
        compare(case, &outputs.map_err(|e| e.to_string())?, bound)
    });
    match compared {
        Ok(()) => Outcome::Passed,
        Err(why) => Outcome::Failed(why),
    }
}

fn compare(case: &Case, outputs: &Outputs, bound: f64) -> Result<(), String> {
    case.expected.iter().try_for_each(|(name, expected)| {
        let actual = outputs.get(name).ok_or_else(|| format!("there is no output `{name}`"))?;
        let peak = expected.to_f64().into_iter().map(f64::abs).filter(|x| x.is_finite()).fold(0.0, f64::max);
        check(name, actual, expected, Bound::absolute(bound * peak))
    })
}

fn main() -> ExitCode {
    let folder = folder("TILEWISE_TORCH_CASES", "torch");
    let cases = match Cases::read(&folder) {
        Ok(cases) => cases,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::from_args();
    for header in &cases.headers {
        report.case(&header.name, &format!("{} {}", header.group, header.op), || match Case::load(&folder, header) {
            Ok(case) => run(&case),
            Err(why) => Outcome::Failed(why),
        });
    }
    let gradients = cases.headers.iter().filter(|header| header.has_gradients()).count();
    report.finish(&format!(
        "{} cases of {} in {}; the gradients that {gradients} of them have are not compared, only results",
        cases.headers.len(),
        cases.source,
        folder.display()
    ))
}
