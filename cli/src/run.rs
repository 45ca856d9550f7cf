use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Result;
use tilewise::{
    files,
    gpu::{Parameters, RunProfile},
    reference::{
        self,
        compare::{Check, Expected},
    },
    safetensors,
};

use crate::{
    args::{Device, DeviceArgs, RunArgs},
    input,
    output::{self, note, say},
};

/// Runs a graph. False if `--check` was asked for and an output is off, or not proved to be right.
pub(crate) fn run(args: &RunArgs, device: &DeviceArgs) -> Result<bool> {
    let graph = input::graph(&args.graph)?;
    if let Some(file) = &args.outputs {
        files::check(file)?;
        safetensors::check_names(graph.outputs().iter().map(|(name, _)| name.as_str()))?;
    }
    let given = input::tensors(args.inputs.iter().map(PathBuf::as_path))?;

    let outputs = match args.device {
        Device::Cpu => reference::evaluate(&graph, &given)?,
        Device::Gpu => {
            let gpu = device.open()?;
            note!("on {} ({})", gpu.profile().adapter, gpu.driver());
            let all: BTreeSet<&str> = graph.parameters().map(|(name, _)| name).collect();
            let given = given.iter().map(|(name, tensor)| (name.as_str(), tensor));
            let (parameters, inputs): (Vec<_>, Vec<_>) = given.partition(|(name, _)| all.contains(name));
            let mut program = gpu.compile(&graph, Parameters::from(&parameters[..]))?;
            let all: BTreeSet<&str> = graph.states().map(|(name, ..)| name).collect();
            let (states, inputs): (Vec<_>, Vec<_>) = inputs.into_iter().partition(|(name, _)| all.contains(name));
            for (name, tensor) in states {
                program.set_state(name, tensor)?;
            }
            let outputs = program.run(&inputs)?;
            if args.profile {
                print_profile(&program.profile()?);
            }
            outputs
        }
    };
    // What was computed is told, whether it can be written or not.
    let saved = args.outputs.as_ref().map_or(Ok(()), |file| safetensors::save(file, &outputs));
    let mut ok = true;
    if args.check {
        let expected = Expected::of_graph(&graph, &given, Check::measured())?;
        let mut table = output::table(&["output", "shape", ">observed / allowed", "verdict"]);
        let mut reasons = Vec::new();
        for (name, result) in expected.each_named(&outputs) {
            let shape = outputs.get(name).map_or_else(String::new, |tensor| tensor.shape().to_string());
            let (error, verdict) = match result {
                Ok(c) => {
                    let nan = match c.nan {
                        0 => String::new(),
                        n => format!("; {n} of {} are NaN, and the reference is NaN there too", c.elements),
                    };
                    (format!("{:.2e} / {:.2e}", c.observed, c.allowed), format!("within the bound{nan}"))
                }
                Err(mismatch) => {
                    let verdict = if mismatch.proves_nothing() { "proves nothing" } else { "WRONG" };
                    reasons.push(mismatch.to_string());
                    ("—".into(), verdict.into())
                }
            };
            table.add_row([name.to_string(), shape, error, verdict]);
        }
        say!("{table}");
        for reason in &reasons {
            say!("{reason}");
        }
        ok = reasons.is_empty();
    } else {
        for (name, tensor) in &outputs {
            say!("{name}: {} {}", tensor.dtype(), tensor.shape());
        }
    }
    saved?;
    Ok(ok)
}

fn print_profile(profile: &RunProfile) {
    let mut table = output::table(&["step", ">GPU", ">GFLOP/s", ">GB/s"]);
    for step in &profile.steps {
        let rate = |count: u64| match step.gpu {
            Some(time) if !time.is_zero() => format!("{:.1}", count as f64 / time.as_secs_f64() / 1e9),
            _ => "—".into(),
        };
        let time = step.gpu.map_or("—".into(), |time| output::duration(time.as_secs_f64()));
        table.add_row([step.label.clone(), time, rate(step.flops), rate(step.bytes)]);
    }
    say!("{table}");
    let whole = |time: std::time::Duration| output::duration(time.as_secs_f64());
    say!("all steps: {} on the GPU, {} by the clock", profile.gpu.map_or("—".into(), whole), whole(profile.wall));
}
