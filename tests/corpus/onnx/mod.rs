//! ONNX's own backend tests, as graphs of tilewise.
//!
//! Each case is one node or a few; every operator that the graph can say becomes graph operations, and must give the expected
//! outputs within upstream's tolerance.

mod attention;
mod case;
mod flex;
mod gather;
mod import;
mod layout;
mod loss;
mod matmul;
mod norm;
mod optimizer;
mod pointwise;
mod recurrence;
mod reduce;
mod rotary;

use std::path::Path;

use case::{Case, Cases};
use import::{Import, Refusal};
use tilewise::{DType, reference::compare::Bound};

use crate::{Filter, Outcome, Outputs, Report, check, each_machine};

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

fn outcome(case: &Case) -> Outcome {
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
            let compared = each_machine(|machine| {
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

/// Runs the cases of a folder that are asked for, and says whether all is right.
pub(crate) fn run(folder: &Path, filter: &Filter) -> Result<bool, String> {
    let Cases { source, bf16_rtol, headers } = Cases::read(folder)?;
    let report = Report::of(
        filter,
        &headers,
        |header| (header.name.clone(), header.op.clone()),
        |header| Case::load(folder, header, bf16_rtol).map_or_else(Outcome::Failed, |case| outcome(&case)),
    );
    Ok(report.finish(filter, "onnx", &format!("{} cases of {source} in {}", headers.len(), folder.display())))
}
