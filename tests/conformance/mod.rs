//! What the runners of external cases share: files, arguments, the two runs of a graph, the report.
#![allow(dead_code, reason = "each runner uses a part")]

#[path = "../common/mod.rs"]
mod common;
mod report;
mod source;

use std::{collections::BTreeMap, path::PathBuf};

use common::gpu;
pub(crate) use report::{Outcome, Report};
pub(crate) use source::Source;
use tilewise::{
    Graph, Tensor,
    gpu::LoadOptions,
    lower::Options,
    reference::{
        self, Value,
        compare::{Bound, compare},
    },
};

/// The folder of the cases: what the environment variable says, or the one in this repository.
pub(crate) fn folder(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable)
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(default), PathBuf::from)
}

/// Tensors by name.
pub(crate) type Outputs = BTreeMap<String, Tensor>;

/// Computes the outputs of a graph from its inputs and parameters.
pub(crate) type Machine = dyn Fn(&Graph, &Outputs, &Outputs) -> tilewise::Result<Outputs>;

/// Does something on the reference, then on the device.
pub(crate) fn each_machine(mut test: impl FnMut(&Machine) -> Result<(), String>) -> Result<(), String> {
    test(&on_reference).map_err(|e| format!("reference: {e}"))?;
    test(&on_device).map_err(|e| format!("device: {e}"))
}

fn on_reference(graph: &Graph, inputs: &Outputs, parameters: &Outputs) -> tilewise::Result<Outputs> {
    let both = inputs.iter().chain(parameters).map(|(name, tensor)| (name.clone(), tensor.clone()));
    reference::evaluate(graph, &both.collect())
}

/// Fused as for any user, and guarded: unwritten outputs, writes past an end and races are failures.
fn on_device(graph: &Graph, inputs: &Outputs, parameters: &Outputs) -> tilewise::Result<Outputs> {
    let gpu = gpu();
    let program = gpu.lower(graph, &Options::default())?;
    let mut executable = gpu.load_with(&program, parameters, LoadOptions { guard: true })?;
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    executable.run(&inputs)
}

/// Compares a result with what is expected, a NaN with a NaN too, and integers and booleans exactly.
pub(crate) fn check(name: &str, actual: &Tensor, expected: &Tensor, bound: Bound) -> Result<(), String> {
    let nan = |tensor: &Tensor| tensor.to_f64().into_iter().map(f64::is_nan).collect::<Vec<bool>>();
    let places = nan(expected);
    if actual.shape() != expected.shape() || !places.contains(&true) {
        return compare(name, actual, &Value::from(expected), &bound).map(|_| ()).map_err(|e| e.to_string());
    }
    if nan(actual) != places {
        return Err(format!("`{name}`: {actual:?} and {expected:?} are NaN in different places"));
    }
    let (actual, expected) = (zeroed(actual, &places), zeroed(expected, &places));
    compare(name, &actual, &Value::from(&expected), &bound).map(|_| ()).map_err(|e| e.to_string())
}

/// A tensor with 0 at some places.
fn zeroed(tensor: &Tensor, places: &[bool]) -> Tensor {
    let mut bytes = tensor.as_bytes().to_vec();
    for (element, _) in bytes.chunks_mut(tensor.dtype().bytes()).zip(places).filter(|(_, zero)| **zero) {
        element.fill(0);
    }
    Tensor::from_bytes(tensor.dtype(), tensor.shape(), &bytes).expect("the shape is the same")
}
