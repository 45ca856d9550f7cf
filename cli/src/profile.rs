//! `tilewise profile`: where the time of a graph goes.

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tilewise::{
    Tensor, files,
    gpu::{Gpu, Parameters},
    lower::Program,
    measure::{Breakdown, Ceilings, Effort, HostCost, Probe, Saved, StepTimes},
    workloads::{self, Size, Workload},
};

use crate::{
    args::{DeviceArgs, ProfileArgs},
    input,
    output::{self, say},
};

/// What the host did before the first run: its name and when it began and ended, in seconds.
type Phase = (&'static str, [f64; 2]);

pub(crate) fn run(args: &ProfileArgs, device: &DeviceArgs) -> Result<bool> {
    let workload = subject(args)?;
    args.trace.as_ref().map_or(Ok(()), files::check)?;
    let gpu = device.open()?;
    let ceilings = if args.no_ceilings { None } else { Some(Probe::new(&gpu, Effort::Full)?.ceilings()) };

    let begun = Instant::now();
    let mut phases: Vec<Phase> = Vec::new();
    let mut phase = |name| {
        let from = phases.last().map_or(0.0, |(_, [_, to])| *to);
        phases.push((name, [from, begun.elapsed().as_secs_f64()]));
    };
    let program = gpu.lower(&workload.graph, &gpu.options())?;
    phase("lower the graph");
    let (parameters, inputs) = (workload.parameters()?, workload.inputs()?);
    phase("draw values");
    let parameters: Parameters<'_> = parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut executable = gpu.load(&program, parameters)?;
    phase("load: compile shaders, upload parameters");
    for (name, tensor) in &workload.states() {
        executable.set_state(name, tensor)?;
    }
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    executable.set_inputs(&inputs)?;
    phase("upload inputs");
    executable.run(&inputs)?;
    phase("the first run");

    let mut breakdown = Breakdown::measure(&mut executable, &program, ceilings.as_ref(), args.runs as usize)?;
    breakdown.fusion = Some(Saved::of(&gpu, &workload.graph, &program)?);
    let time = std::time::Duration::from_millis(200);
    let host = HostCost::measure(&gpu, &workload.name, &workload.graph, &mut executable, time)?;
    if args.json {
        let place = json!({"adapter": gpu.profile().adapter, "driver": gpu.driver()});
        let report = json!({
            "name": workload.name, "device": place, "ceilings": ceilings, "profile": breakdown, "host": host,
        });
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say!("{} on {} ({})\n", workload.name, gpu.profile().adapter, gpu.driver());
        print(&breakdown, &host, ceilings.as_ref());
    }
    if let Some(file) = &args.trace {
        let text = serde_json::to_string(&trace(&gpu, &program, &breakdown, &phases)?)?;
        files::write(file, text)?;
    }
    Ok(true)
}

/// The graph file or the workload that was asked for, with the values that were given.
fn subject(args: &ProfileArgs) -> Result<Workload> {
    let Some(file) = &args.graph else {
        let text = args.workload.as_deref().unwrap_or_default();
        let mut all = workloads::all(if args.large { Size::Large } else { Size::Full })?;
        let names: Vec<String> = all.iter().map(|workload| workload.name.clone()).collect();
        let exact = names.iter().position(|name| name == text);
        let Some(at) = exact.or_else(|| names.iter().position(|name| name.contains(text))) else {
            bail!("no workload's name contains `{text}`; there are {}", names.join("; "));
        };
        return Ok(all.swap_remove(at));
    };
    let graph = input::graph(file)?;
    let given = input::tensors(args.inputs.iter().map(PathBuf::as_path))?;
    let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    Ok(Workload::of(name, graph, given))
}

fn print(breakdown: &Breakdown, host: &HostCost, ceilings: Option<&Ceilings>) {
    let heads = ["step", ">time", ">±", ">share", ">GFLOP/s", ">GB/s", "limit", ">of limit", ">dispatches"];
    let mut table = output::table(&heads);
    let busy = breakdown.busy();
    for step in &breakdown.steps {
        let rate = |count: u64| step.seconds.map_or("—".into(), |t| format!("{:.1}", count as f64 / t.median / 1e9));
        let of_limit = match (step.bound, step.seconds) {
            (Some(bound), Some(seconds)) => format!("{:.0} %", 100.0 * bound.fraction(seconds.median)),
            _ => "—".into(),
        };
        let share = match (step.seconds, busy) {
            (Some(seconds), Some(busy)) => format!("{:.1} %", 100.0 * seconds.median / busy),
            _ => "—".into(),
        };
        table.add_row([
            output::short(&step.label, 70),
            step.seconds.map_or("—".into(), |t| output::duration(t.median)),
            step.seconds.map_or("—".into(), |t| format!("{:.0} %", 100.0 * t.spread())),
            share,
            rate(step.flops),
            rate(step.bytes),
            step.bound.map_or("—".into(), |bound| bound.limit.to_string()),
            of_limit,
            step.dispatches.to_string(),
        ]);
    }
    say!("{table}");
    let wall = output::duration(breakdown.wall.median);
    match (breakdown.gpu, breakdown.gaps) {
        (Some(gpu), Some(gaps)) => say!(
            "{} from the first step to the last, of which {} ({:.0} %) are gaps between steps; {wall} by the host's clock.",
            output::duration(gpu.median),
            output::duration(gaps.median),
            100.0 * gaps.median / gpu.median
        ),
        _ => say!("{wall} by the host's clock; this device has no clock of its own, so steps are not timed."),
    }
    if let Some(Saved { dispatches, bytes, intermediates }) = breakdown.fusion {
        say!(
            "Fusion: {} in place of {} dispatches; {} moved in place of {} ({:.0} % less); {} of intermediate values in place \
             of {}.",
            dispatches[0],
            dispatches[1],
            output::bytes(bytes[0]),
            output::bytes(bytes[1]),
            100.0 * (1.0 - bytes[0] as f64 / bytes[1].max(1) as f64),
            output::bytes(intermediates[0]),
            output::bytes(intermediates[1])
        );
    }
    say!(
        "Host: {} to lower the graph ({} nodes); {} to record a step ({} steps, {}).",
        output::duration(host.lower.median),
        host.nodes,
        output::duration(host.seconds_a_step()),
        host.steps,
        output::duration(host.record.median + host.finish.median)
    );
    if let Some(ceilings) = ceilings {
        let rates = ceilings.multiply.iter().map(|(arithmetic, rate)| {
            format!("{} {:.1} GFLOP/s", tilewise::measure::Limit::Multiply(*arithmetic), rate / 1e9)
        });
        let exponentials = ceilings.exponentials.map(|e| format!("exp {:.1} G/s", e.rate / 1e9));
        say!(
            "Ceilings: {:.1} GB/s past the caches, {:.1} within; {}; {} a dispatch.",
            ceilings.memory / 1e9,
            ceilings.cache / 1e9,
            rates.chain(exponentials).collect::<Vec<_>>().join(", "),
            output::duration(ceilings.dispatch)
        );
    }
}

/// The run as Chrome's trace events, which `chrome://tracing` and ui.perfetto.dev show: what the host did first, and the steps
/// on the device after it. The clocks of the two have no common zero; the device's track begins where the host's ends.
fn trace(gpu: &Gpu, program: &Program, breakdown: &Breakdown, phases: &[Phase]) -> Result<Value> {
    const HOST: u32 = 1;
    const DEVICE: u32 = 2;
    let name =
        |pid: u32, name: &str| json!({"ph": "M", "pid": pid, "tid": 1, "name": "process_name", "args": {"name": name}});
    let span = |pid: u32, name: &str, category: &str, from: f64, to: f64, args: Value| {
        json!({
            "ph": "X", "pid": pid, "tid": 1, "name": name, "cat": category,
            "ts": from * 1e6, "dur": (to - from) * 1e6, "args": args,
        })
    };
    let mut events = vec![name(HOST, "host"), name(DEVICE, &gpu.profile().adapter)];
    events.extend(phases.iter().map(|(name, [from, to])| span(HOST, name, "host", *from, *to, json!({}))));
    let zero = phases.last().map_or(0.0, |(_, [_, to])| *to);
    for (step, times) in program.steps.iter().zip(&breakdown.steps) {
        let StepTimes { start: Some(start), seconds: Some(seconds), .. } = times else {
            bail!("{} has no clock (TIMESTAMP_QUERY): there are no times of steps to trace", gpu.profile().adapter);
        };
        let args = json!({
            "variant": step.variant,
            "problem": step.summary,
            "values": step.covers,
            "GFLOP/s": times.flops as f64 / seconds.median / 1e9,
            "GB/s": times.bytes as f64 / seconds.median / 1e9,
            "limit": times.bound.map(|bound| bound.limit.to_string()),
            "of limit": times.bound.map(|bound| bound.fraction(seconds.median)),
        });
        let from = zero + start;
        events.push(span(DEVICE, &times.label, step.family, from, from + seconds.median, args));
    }
    Ok(json!({
        "displayTimeUnit": "ms",
        "otherData": {"adapter": gpu.profile().adapter, "driver": gpu.driver(), "tilewise": env!("CARGO_PKG_VERSION")},
        "traceEvents": events,
    }))
}
