use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Result, bail};
use tilewise::{
    DType, Graph, Tensor, ValueId,
    gpu::Parameters,
    grad::gradients,
    graph::Reduce,
    reference::{
        Evaluation, Random,
        compare::{Check, Expected},
    },
    workloads::Workload,
};

use crate::{
    args::{DeviceArgs, GradcheckArgs},
    input,
    output::{self, note, say},
};

/// A gradient is right if it is this near to the differences, in units of the largest of its tensor: both are in f64, and what is
/// left is the error of the differences.
const NEAR: f64 = 1e-4;

/// What is compared of the gradient of one value.
struct Row {
    name: String,
    shape: String,
    /// The largest element.
    largest: f64,
    /// The device's error over what is allowed, or what is wrong.
    device: std::result::Result<f64, String>,
    /// The largest error of the formulas by differences, and where; none if the value is no f32.
    differences: Option<(f64, usize)>,
}

/// Compares the gradients of a graph with differences, and the device's with the reference's. False if one is wrong.
pub(crate) fn run(args: &GradcheckArgs, device: &DeviceArgs) -> Result<bool> {
    let graph = input::graph(&args.graph)?;
    let given = input::tensors(args.inputs.iter().map(PathBuf::as_path))?;
    let workload = Workload::of("gradcheck", graph.clone(), given);
    let mut inputs = workload.inputs()?;
    let parameters = workload.parameters()?;
    // A state is an input like any other here: what it is given, or the zeros that it begins with.
    let given: BTreeMap<String, Tensor> = workload.states().into_iter().collect();
    for (name, state, _) in graph.states().filter(|(name, ..)| parameters.iter().all(|(other, _)| other != name)) {
        let start =
            given.get(name).cloned().map_or_else(|| Tensor::zeros(graph.dtype(state), graph.shape(state)), Ok)?;
        inputs.push((name.to_string(), start));
    }
    let all: BTreeMap<String, Tensor> = inputs.iter().chain(&parameters).cloned().collect();

    let mut whole = Graph::clone(&graph);
    let loss = loss(&mut whole)?;
    let names: Vec<String> = all.keys().filter(|name| is_float(&whole, name)).cloned().collect();
    if names.is_empty() {
        bail!("{}: no input and no parameter is a float, so that nothing has a gradient", args.graph.display());
    }
    let plain = whole.clone();
    let values: Vec<ValueId> = names.iter().filter_map(|name| whole.find(name)).collect();
    let grads = gradients(&mut whole, loss, &values)?;
    let mut trained = without_outputs(&whole)?;
    for (name, grad) in names.iter().zip(&grads) {
        trained.output(of(name), *grad)?;
    }

    let gpu = device.open()?;
    note!("on {} ({})", gpu.profile().adapter, gpu.driver());
    let parameters: Vec<(&str, &Tensor)> = parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut program = gpu.compile(&trained, Parameters::from(&parameters[..]))?;
    let outputs = program.run(&inputs)?;
    let expected = Expected::of_graph(&trained, &all, Check::measured())?;
    let mut compared: BTreeMap<String, std::result::Result<f64, String>> = expected
        .each_named(&outputs)
        .map(|(name, result)| (name.to_string(), result.map(|c| c.ratio).map_err(|mismatch| mismatch.to_string())))
        .collect();

    let exact = Evaluation::<f64>::new(&trained, &all)?;
    let mut rows = Vec::new();
    for (name, grad) in names.iter().zip(grads) {
        let grad = exact.value(grad).to_f64();
        let largest = grad.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let differences = match all[name].as_f32() {
            Some(_) => Some(by_differences(&plain, loss, &all, name, &grad, largest, args.samples())?),
            None => None,
        };
        let device = compared.remove(&of(name)).unwrap_or_else(|| Err("there is no such output".into()));
        rows.push(Row { name: name.clone(), shape: all[name].shape().to_string(), largest, device, differences });
    }
    Ok(print(&rows, args.samples()))
}

fn is_float(g: &Graph, name: &str) -> bool {
    g.find(name).is_some_and(|value| g.dtype(value).is_float())
}

fn of(name: &str) -> String {
    format!("gradient of {name}")
}

/// The same graph without its outputs.
fn without_outputs(g: &Graph) -> Result<Graph> {
    let mut bare = Graph::new();
    for node in g.nodes() {
        let outputs = bare.push(node.op.clone(), &node.inputs)?;
        for (&new, &old) in outputs.iter().zip(&node.outputs) {
            if node.op.is_given() {
                bare.name(new, g.label(old))?;
            }
        }
    }
    Ok(bare)
}

/// An output that is a single float, if there is no other; otherwise the sum of all float outputs, each element times a fixed number.
fn loss(g: &mut Graph) -> Result<ValueId> {
    let floats: Vec<ValueId> =
        g.outputs().iter().map(|(_, value)| *value).filter(|value| g.dtype(*value).is_float()).collect();
    if let &[only] = &floats[..]
        && g.shape(only).elements() == Some(1)
    {
        return Ok(only);
    }
    let mut sum: Option<ValueId> = None;
    for (at, value) in floats.into_iter().enumerate() {
        let weights = Random::new(at as u64).tensor(DType::F32, g.shape(value).clone(), -1.0, 1.0)?;
        let weights = g.constant(weights)?;
        let value = g.cast(value, DType::F32)?;
        let product = g.mul(value, weights)?;
        let part = g.reduce(Reduce::Sum, product, &[], false)?;
        sum = Some(match sum {
            Some(sum) => g.add(sum, part)?,
            None => part,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => bail!("the graph has no output of floats, so that nothing has a gradient"),
    }
}

/// The largest error of some elements of a gradient, in units of the largest element, and which element it is. Differences over a
/// width and half of it, of which Richardson's extrapolation takes the error of second order away.
fn by_differences(
    g: &Graph,
    loss: ValueId,
    all: &BTreeMap<String, Tensor>,
    name: &str,
    grad: &[f64],
    largest: f64,
    samples: usize,
) -> Result<(f64, usize)> {
    let base = all[name].as_f32().unwrap_or_default().to_vec();
    let size = base.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let width = if size > 0.0 { f64::from(size).log2().floor().exp2() } else { 1.0 } / 128.0;
    let mut moved = all.clone();
    let mut at = |element: usize, by: f64| -> Result<(f64, f64)> {
        let mut numbers = base.clone();
        // Where f32 really has it.
        numbers[element] = (f64::from(base[element]) + by) as f32;
        let place = f64::from(numbers[element]);
        moved.insert(name.to_string(), Tensor::new(all[name].shape(), numbers)?);
        Ok((place, Evaluation::<f64>::new(g, &moved)?.value(loss).to_f64()[0]))
    };
    let mut worst = (0.0, 0);
    let step = base.len().div_ceil(samples.max(1)).max(1);
    for element in (0..base.len()).step_by(step) {
        let mut slope = |width: f64| -> Result<f64> {
            let ((left, below), (right, above)) = (at(element, -width)?, at(element, width)?);
            Ok((above - below) / (right - left))
        };
        let (wide, near) = (slope(width)?, slope(width / 2.0)?);
        let error = (grad[element] - (4.0 * near - wide) / 3.0).abs() / largest.max(f64::MIN_POSITIVE);
        // A NaN is the worst of all.
        if error.is_nan() || error > worst.0 {
            worst = (if error.is_nan() { f64::INFINITY } else { error }, element);
        }
    }
    // Nothing depends on it, by either way.
    Ok(if largest == 0.0 && worst.0 == 0.0 { (0.0, 0) } else { worst })
}

fn print(rows: &[Row], samples: usize) -> bool {
    let mut table = output::table(&[
        "value",
        "shape",
        ">largest gradient",
        ">device: error / allowed",
        ">differences: error",
        "verdict",
    ]);
    let (mut right, mut reasons) = (true, Vec::new());
    for Row { name, shape, largest, device, differences } in rows {
        let device_text = match device {
            Ok(ratio) => format!("{ratio:.3}"),
            Err(why) => {
                reasons.push(why.clone());
                "—".into()
            }
        };
        let far = differences.filter(|(error, _)| *error > NEAR);
        if let Some((error, element)) = far {
            reasons.push(format!(
                "`{name}`: element {element} is off by {error:.1e} of the largest; if a function has a kink there, as relu at 0, it \
                 has no derivative, and other inputs tell more"
            ));
        }
        let differences = differences.map_or("not f32".into(), |(error, _)| format!("{error:.1e}"));
        let ok = device.is_ok() && far.is_none();
        right &= ok;
        let verdict = match (ok, *largest == 0.0) {
            (false, _) => "WRONG",
            (true, true) => "zero: nothing depends on it",
            (true, false) => "right",
        };
        table.add_row([
            name.clone(),
            shape.clone(),
            format!("{largest:.3e}"),
            device_text,
            differences,
            verdict.into(),
        ]);
    }
    say!("{table}");
    say!(
        "device: its gradients beside the reference's, in units of the bound; differences: the reference's beside differences of the loss, \
         {samples} elements of each value at the most, in units of its largest gradient (allowed: {NEAR:.0e})"
    );
    for reason in &reasons {
        say!("{reason}");
    }
    right
}
