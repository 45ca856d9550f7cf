use anyhow::{Context, Result, bail};
use serde_json::json;
use tilewise::{
    gpu::{self, Gpu},
    kernel::{Profile, Verdict},
    lower::{self, Options, Program},
};

use crate::{
    args::{DeviceArgs, ExplainArgs},
    input,
    output::{say, say_raw},
};

/// Shows what becomes of a graph. Nothing is run; without an adapter it explains for the portable minimum, if asked to.
pub(crate) fn run(args: &ExplainArgs, device: &DeviceArgs) -> Result<bool> {
    let graph = input::graph(&args.graph)?;
    if args.dot {
        say_raw!("{}", graph.to_dot());
        return Ok(true);
    }
    let (profile, options) = match args.portable {
        true => (Profile::portable(), Options::default()),
        false => open(device).map(|gpu| (gpu.profile().clone(), gpu.options()))?,
    };
    let program = lower::lower(&graph, &profile, &options)?;
    if let Some(step) = args.wgsl {
        match program.wgsl(step) {
            Some(source) => say_raw!("{source}"),
            None => bail!("there is no step {step}: the program has {} (from 0)", program.steps.len()),
        }
    } else if args.json {
        say!("{}", serde_json::to_string_pretty(&as_json(&program, &profile))?);
    } else {
        say!("for {}\n\n{graph}\n{program}", profile.adapter);
    }
    Ok(true)
}

fn open(device: &DeviceArgs) -> Result<Gpu> {
    device.open().with_context(|| {
        let there = gpu::adapters().len();
        format!("{there} adapters are here; `--portable` explains for the portable WebGPU minimum without one")
    })
}

fn as_json(program: &Program, profile: &Profile) -> serde_json::Value {
    let steps: Vec<_> = program
        .steps
        .iter()
        .map(|step| {
            let candidates: Vec<_> = step
                .candidates
                .iter()
                .map(|candidate| match &candidate.verdict {
                    Verdict::Usable(reason) => json!({"variant": candidate.variant, "usable": true, "reason": reason}),
                    Verdict::Refused(reason) => {
                        json!({"variant": candidate.variant, "usable": false, "reason": reason})
                    }
                })
                .collect();
            json!({
                "family": step.family,
                "variant": step.variant,
                "reason": step.reason,
                "candidates": candidates,
                "problem": step.summary,
                "values": step.covers,
                "dispatches": step.kernel.launches.iter().map(|launch| json!({
                    "label": launch.label,
                    "shader": launch.source.name,
                    "workgroups": launch.grid,
                })).collect::<Vec<_>>(),
                "flops": step.flops(),
                "bytes": step.bytes(),
            })
        })
        .collect();
    let notes: Vec<_> = program
        .notes
        .iter()
        .map(|note| json!({"rule": note.rule, "value": note.value, "applied": note.applied, "reason": note.reason}))
        .collect();
    json!({
        "profile": profile,
        "steps": steps,
        "submissions": program.submissions.iter().map(|part| [part.start, part.end]).collect::<Vec<_>>(),
        "notes": notes,
        "memory": {"peak_bytes": program.peak_bytes(), "naive_bytes": program.naive_bytes()},
    })
}
