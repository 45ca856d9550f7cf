//! What the examples do with their graph: numbers for its inputs, a run on the device, a check, and the time.

use std::{collections::BTreeMap, error::Error, time::Instant};

use tilewise::{
    DType, Data, Graph, Tensor,
    gpu::Gpu,
    lower::Options,
    reference::compare::{Check, Expected},
};

/// Lowers the graph, prints the program, runs it, checks it against the CPU reference and times it.
pub(crate) fn show(graph: &Graph, given: BTreeMap<String, Tensor>) -> Result<(), Box<dyn Error>> {
    let gpu = Gpu::new()?;
    let program = gpu.lower(graph, &Options::default())?;
    let operations = graph.nodes().iter().filter(|node| !node.op.is_source()).count();
    println!("{operations} operations, on {} ({})\n\n{program}", gpu.profile().adapter, gpu.driver());

    let tensors = with_noise(graph, given)?;
    let parameters: Vec<(&str, &Tensor)> = graph.parameters().map(|(name, _)| (name, &tensors[name])).collect();
    let inputs: Vec<(&str, &Tensor)> = graph.inputs().map(|(name, _)| (name, &tensors[name])).collect();

    let started = Instant::now();
    let mut executable = gpu.load(&program, &parameters[..])?;
    println!("{:>9.2?} to compile the kernels and upload the parameters", started.elapsed());
    let started = Instant::now();
    let outputs = executable.run(&inputs)?;
    println!("{:>9.2?} for the first run", started.elapsed());
    let started = Instant::now();
    let again = executable.run(&inputs)?;
    println!("{:>9.2?} for the second, with the inputs' way there and the outputs' way back", started.elapsed());
    println!("{:>9.2?} a run on the device", executable.bench(10, 1)?.wall / 10);
    assert_eq!(outputs, again, "every run gives the same bits");

    // f64, operation by operation, nothing fused. The error bound is measured on a plain f32 evaluation.
    let expected = Expected::of_graph(graph, &tensors, Check::measured())?;
    for ((name, _), comparison) in graph.outputs().iter().zip(expected.compare_named(&outputs)?) {
        println!("\n`{name}` agrees with the CPU reference: {comparison}");
    }
    Ok(())
}

/// Numbers of the size that trained weights have for every float input and parameter that is not given.
fn with_noise(graph: &Graph, mut tensors: BTreeMap<String, Tensor>) -> tilewise::Result<BTreeMap<String, Tensor>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut unit = move || {
        // Marsaglia's xorshift64, scaled to (−1, 1).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    for (name, value) in graph.inputs().chain(graph.parameters()) {
        let shape = graph.shape(value);
        if graph.dtype(value) != DType::F32 || tensors.contains_key(name) {
            continue;
        }
        let width = match shape[..] {
            [_, inputs] => (inputs as f32).sqrt(),
            _ => 1.0,
        };
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| unit() / width).collect();
        tensors.insert(name.into(), Tensor::new(shape, Data::from(numbers))?);
    }
    Ok(tensors)
}
