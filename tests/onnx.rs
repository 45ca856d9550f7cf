//! ONNX's own backend tests, as graphs of tilewise.
//!
//! Each case is one node or a few; every operator that the graph can say becomes graph operations, in `tests/onnx/`, and
//! must give the expected
//! outputs within upstream's tolerance, on the CPU reference and on the device. `TILEWISE_ONNX_CASES` names another folder of
//! cases; words on the command line choose cases by name or operator: `cargo test --test onnx -- Attention`.

mod conformance;

#[path = "onnx/attention.rs"]
mod attention;
#[path = "onnx/case.rs"]
mod case;
#[path = "onnx/flex.rs"]
mod flex;
#[path = "onnx/gather.rs"]
mod gather;
#[path = "onnx/import.rs"]
mod import;
#[path = "onnx/layout.rs"]
mod layout;
#[path = "onnx/loss.rs"]
mod loss;
#[path = "onnx/matmul.rs"]
mod matmul;
#[path = "onnx/norm.rs"]
mod norm;
#[path = "onnx/optimizer.rs"]
mod optimizer;
#[path = "onnx/pointwise.rs"]
mod pointwise;
#[path = "onnx/recurrence.rs"]
mod recurrence;
#[path = "onnx/reduce.rs"]
mod reduce;
#[path = "onnx/rotary.rs"]
mod rotary;

use std::process::ExitCode;

use case::{Case, Cases};
use conformance::{Outcome, Outputs, Report, check, folder};
use import::{Import, Refusal};
use tilewise::{DType, reference::compare::Bound};

/// What an operator that is here may leave cases out for: `(operator, dtype or option)`. Anything else that doesn't work
/// is a failure.
const LEFT_OUT: &[(&str, &str)] = &[
    // Dtypes that the graph doesn't have. Integers of 64 bits are read as i32 where they are indices, not where they
    // are data.
    ("any", "data of float64"),
    ("any", "data of int8"),
    ("any", "data of int16"),
    ("any", "data of int64"),
    ("any", "data of uint8"),
    ("any", "data of uint16"),
    ("any", "data of uint64"),
    ("Einsum", "a diagonal"),
    ("Pow", "an integer to a float power"),
];

fn run(case: &Case) -> Outcome {
    if let Some(unknown) = case.nodes.iter().find(|node| import::find(&node.op).is_none()) {
        return Outcome::Unknown(unknown.op.clone());
    }
    let mut import = Import::new(case);
    match import.nodes(&case.nodes).and_then(|()| import.outputs(case)) {
        Err(Refusal::LeftOut { operator, what }) => {
            match LEFT_OUT.iter().find(|(of, named)| (*of == operator || *of == "any") && *named == what) {
                Some((of, what)) => {
                    Outcome::LeftOut(if *of == "any" { what.to_string() } else { format!("{of}: {what}") })
                }
                None => Outcome::Failed(format!("{operator} does not take {what}")),
            }
        }
        Err(Refusal::Fault(why)) => Outcome::Failed(why),
        Ok(()) => {
            let compared = conformance::each_machine(|machine| {
                let outputs = machine(&import.graph, &import.inputs, &Outputs::new()).map_err(|e| e.to_string())?;
                case.expected.iter().try_for_each(|(name, expected)| {
                    let actual = outputs.get(name).ok_or_else(|| format!("there is no output `{name}`"))?;
                    // Expected i64 are results that count or index something, which are i32 here.
                    let tensor = expected.tensor().or_else(|| expected.index());
                    let tensor = tensor.ok_or_else(|| format!("`{name}` is {}", expected.dtype_name()))?;
                    let rtol = if tensor.dtype() == DType::BF16 { case.rtol.max(case.bf16_rtol) } else { case.rtol };
                    check(name, actual, &tensor, Bound::relative(rtol, case.atol))
                })
            });
            match compared {
                Ok(()) => Outcome::Passed,
                Err(why) => Outcome::Failed(why),
            }
        }
    }
}

fn main() -> ExitCode {
    let folder = folder("TILEWISE_ONNX_CASES", "onnx");
    let cases = match Cases::read(&folder) {
        Ok(cases) => cases,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::from_args();
    for header in &cases.headers {
        report.case(&header.name, &header.op, || match Case::load(&folder, header, cases.bf16_rtol) {
            Ok(case) => run(&case),
            Err(why) => Outcome::Failed(why),
        });
    }
    report.finish(&format!("{} cases of {} in {}", cases.headers.len(), cases.source, folder.display()))
}
