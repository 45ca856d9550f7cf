//! Other people's cases, as graphs of tilewise, on the CPU reference and on the device: ONNX's own tests, and what PyTorch computed.
//!
//! `TILEWISE_ONNX_CASES` and `TILEWISE_TORCH_CASES` name other folders of cases. On the command line the name of a corpus chooses
//! it, and other words choose cases by name, group or operator: `cargo test --test corpus -- onnx Attention`.

#[path = "../common/mod.rs"]
mod common;
mod onnx;
mod report;
mod source;
mod torch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use tilewise::{
    Graph, Tensor,
    gpu::LoadOptions,
    lower::Options,
    reference::{
        self, Value,
        compare::{Bound, compare},
    },
};

use common::gpu;
use report::{Filter, Outcome, Report};
use source::Source;

/// A set of cases: its name, the variable that names another folder of them, and how to run those that are asked for.
struct Corpus {
    name: &'static str,
    variable: &'static str,
    run: fn(&Path, &Filter) -> Result<bool, String>,
}

const CORPORA: [Corpus; 2] = [
    Corpus { name: "onnx", variable: "TILEWISE_ONNX_CASES", run: onnx::run },
    Corpus { name: "torch", variable: "TILEWISE_TORCH_CASES", run: torch::run },
];

fn main() -> ExitCode {
    let filter = Filter::from_args(&CORPORA.map(|corpus| corpus.name));
    let mut right = true;
    for Corpus { name, variable, run } in CORPORA.iter().filter(|corpus| filter.chooses(corpus.name)) {
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        let folder = std::env::var_os(variable).map_or_else(default, PathBuf::from);
        right &= run(&folder, &filter).unwrap_or_else(|why| {
            eprintln!("{why}");
            false
        });
    }
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

/// Compares a result with what is expected, integers and booleans exactly.
pub(crate) fn check(name: &str, actual: &Tensor, expected: &Tensor, bound: Bound) -> Result<(), String> {
    compare(name, actual, &Value::from(expected), &bound).map(|_| ()).map_err(|e| e.to_string())
}
