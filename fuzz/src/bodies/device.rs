//! Graphs on a device against the reference.

use std::collections::BTreeMap;

use tilewise::{
    DType, Graph, Result, Tensor,
    gpu::{Gpu, LoadOptions},
    lower::{Options, Program},
    reference::{Random, compare},
};

use super::{Outcome, TARGETS, Target, decide};

/// Elements of all values of a graph up to which it is run: the reference takes its time for each.
const ELEMENTS: usize = 1 << 15;
/// Operations up to which it is run.
const FLOPS: u64 = 20_000_000;

/// What makes the graphs.
pub fn target() -> Target {
    TARGETS[0]
}

/// Runs what lowers, if it is small enough, with numbers drawn from a hash of the text, and compares every output.
///
/// # Errors
/// The fault: an output that is not what the reference says, an error of the engine, a broken promise of a watched run.
pub fn check(gpu: &Gpu, input: &[u8]) -> Result<Outcome, String> {
    super::caught(|| {
        let Ok(text) = std::str::from_utf8(input) else { return Ok(Outcome::Refused) };
        let Ok(graph) = Graph::from_json(text) else { return Ok(Outcome::Refused) };
        // FNV-1a.
        let hash = input
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        run(gpu, &graph, &mut Random::new(hash))
    })
}

fn run(gpu: &Gpu, graph: &Graph, random: &mut Random) -> Result<Outcome, String> {
    let elements = graph.values().iter().map(|value| value.shape.elements().unwrap_or(usize::MAX));
    if elements.fold(0, usize::saturating_add) > ELEMENTS {
        return Ok(Outcome::Undecided("it is too large"));
    }
    if graph.outputs().is_empty() {
        return Ok(Outcome::Undecided("it has no output"));
    }
    if !graph.without_twins().is_empty() {
        return Ok(Outcome::Undecided("a function has no twin"));
    }
    let mut options = if random.one_in(3) { Options::unfused() } else { Options::default() };
    options.share_memory = !random.one_in(4);
    let Ok(mut program) = gpu.lower(graph, &options) else { return Ok(Outcome::Read) };
    if random.one_in(2) {
        program = forced(gpu, graph, program, options, random);
    }
    let flops = program.steps.iter().map(tilewise::lower::Step::flops);
    if flops.fold(0, u64::saturating_add) > FLOPS {
        return Ok(Outcome::Undecided("it takes too long"));
    }
    let tensors = tensors(graph, random).map_err(|error| format!("its inputs: {error}"))?;
    let expected =
        decide::outputs(graph, &tensors).map_err(|error| format!("it lowers, but the reference: {error}"))?;
    let outputs = outputs(gpu, graph, &program, &tensors, !random.one_in(4))
        .map_err(|error| format!("it lowers, but does not run: {error}\n{program}"))?;
    let mut undecided = None;
    for (name, value, bound) in &expected {
        let Some(actual) = outputs.get(name) else { return Err(format!("output `{name}` is missing\n{program}")) };
        match bound {
            Err(why) => undecided = Some(*why),
            Ok(bound) => match compare::compare(name, actual, value, bound) {
                Ok(_) => {}
                Err(mismatch) if mismatch.proves_nothing() => undecided = Some("its bound is as large as its values"),
                Err(mismatch) => return Err(format!("{mismatch}\n{program}\n{tensors:?}")),
            },
        }
    }
    // One output that was compared is worth it.
    let compared = expected.iter().any(|(.., bound)| bound.is_ok());
    Ok(undecided.filter(|_| !compared).map_or(Outcome::Whole, Outcome::Undecided))
}

/// The program with another variant of one of its kernels, if that lowers.
fn forced(gpu: &Gpu, graph: &Graph, program: Program, options: Options, random: &mut Random) -> Program {
    let several: Vec<_> = program.steps.iter().filter(|step| step.candidates.len() > 1).collect();
    if several.is_empty() {
        return program;
    }
    let step = random.pick(&several);
    let usable: Vec<&str> = step.candidates.iter().filter(|c| c.is_usable()).map(|c| c.variant).collect();
    if usable.is_empty() {
        return program;
    }
    let options = options.force(step.family, random.pick(&usable));
    gpu.lower(graph, &options).unwrap_or(program)
}

fn outputs(
    gpu: &Gpu,
    graph: &Graph,
    program: &Program,
    tensors: &BTreeMap<String, Tensor>,
    guard: bool,
) -> Result<BTreeMap<String, Tensor>> {
    let parameters: Vec<(&str, &Tensor)> = graph.parameters().map(|(name, _)| (name, &tensors[name])).collect();
    let inputs: Vec<(&str, &Tensor)> = graph.inputs().map(|(name, _)| (name, &tensors[name])).collect();
    let mut executable = gpu.load_with(program, &parameters[..], LoadOptions { guard })?;
    for (name, ..) in graph.states() {
        executable.set_state(name, &tensors[name])?;
    }
    Ok(executable.run(&inputs)?.into_iter().collect())
}

/// A tensor for each input, parameter and state. Some are whole numbers, so that more is exact; some have what is not finite.
fn tensors(graph: &Graph, random: &mut Random) -> Result<BTreeMap<String, Tensor>> {
    let states = graph.states().map(|(name, state, _)| (name, state));
    let all = graph.inputs().chain(graph.parameters()).chain(states);
    let (whole, wild) = (random.one_in(3), random.one_in(8));
    let each = all.map(|(name, value)| {
        let (dtype, shape) = (graph.dtype(value), graph.shape(value).clone());
        let tensor = match dtype {
            DType::I32 => random.wholes(dtype, shape, -3, 9)?,
            DType::U32 => random.wholes(dtype, shape, 0, i64::from(u32::MAX))?,
            DType::Bool => random.tensor(dtype, shape, 0.0, 1.0)?,
            DType::F32 | DType::F16 | DType::BF16 if whole => random.wholes(dtype, shape, -3, 3)?,
            DType::F32 | DType::F16 | DType::BF16 => random.tensor(dtype, shape, -2.0, 2.0)?,
        };
        let tensor = if wild && dtype == DType::F32 && !tensor.is_empty() { spoiled(&tensor, random)? } else { tensor };
        Ok((name.to_string(), tensor))
    });
    each.collect()
}

/// One element is not finite.
fn spoiled(tensor: &Tensor, random: &mut Random) -> Result<Tensor> {
    let mut numbers = tensor.as_f32().unwrap_or_default().to_vec();
    let at = random.size(0, numbers.len() - 1);
    numbers[at] = random.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
    Tensor::new(tensor.shape().clone(), numbers)
}
