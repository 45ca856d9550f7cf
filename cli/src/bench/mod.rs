//! `tilewise bench`: measure, judge, compare, save, draw.

mod compare;
mod plot;
mod print;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use report::{Figure, Report};
use tilewise::{
    Error, files,
    gpu::Gpu,
    lower::Program,
    measure::{Effort, HostCost, Probe, Protocol, Timed},
    workloads::{self, Size, Workload},
};

use crate::{
    args::{BenchArgs, DeviceArgs},
    output::{any_of, say},
};

/// Bytes of inputs and outputs that are on the device at once: as many workloads take turns as fit.
const AT_ONCE: u64 = 2 << 30;
/// Time for one workload; past it, three samples are enough.
const ENOUGH: Duration = Duration::from_secs(3);

/// Measures or reads a run. False if a figure can't be true.
pub(crate) fn run(args: &BenchArgs, device: &DeviceArgs) -> Result<bool> {
    // What will be needed at the end is asked for now, not after an hour.
    [&args.save, &args.plot, &args.roofline].into_iter().flatten().try_for_each(files::check)?;
    let before = args.compare.as_deref().map(Report::read).transpose()?;
    let mut report = match &args.from {
        Some(file) => Report::read(file)?,
        None => measure(args, device)?,
    };
    report.figures.retain(|figure| is_chosen(&figure.name, args));
    if report.figures.is_empty() {
        bail!("no workload's name contains {}", any_of(&args.kernel));
    }
    let changes = before.as_ref().map(|before| compare::changes(before, &report, args.across_adapters)).transpose();
    if args.json {
        let mut json = serde_json::to_value(&report)?;
        if let Ok(Some(changes)) = &changes {
            json["changes"] = serde_json::to_value(changes)?;
        }
        say!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        print::print(&report, args.markdown);
        if let (Some(before), Ok(Some(changes))) = (&before, &changes) {
            compare::print(before, changes);
        }
    }
    if let Some(file) = &args.save {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        files::write(file, text)?;
    }
    if let Some(file) = &args.plot {
        plot::bars(&report, file)?;
    }
    if let Some(file) = &args.roofline {
        plot::roofline(&report, file)?;
    }
    changes?;
    Ok(report.figures.iter().all(|figure| figure.fault.is_none()))
}

fn is_chosen(name: &str, args: &BenchArgs) -> bool {
    args.kernel.is_empty() || args.kernel.iter().any(|text| name.contains(text.as_str()))
}

/// A workload with one variant that is being timed.
struct Subject {
    workload: Workload,
    program: Program,
    first_call: f64,
    timed: Timed,
    spent: Duration,
}

fn measure(args: &BenchArgs, device: &DeviceArgs) -> Result<Report> {
    let (size, effort) = match (args.quick, args.large) {
        (true, _) => (Size::Quick, Effort::Quick),
        (_, true) => (Size::Large, Effort::Full),
        _ => (Size::Full, Effort::Full),
    };
    let mut workloads = workloads::all(size)?;
    workloads.retain(|workload| is_chosen(&workload.name, args));
    if workloads.is_empty() {
        bail!("no workload's name contains {}", any_of(&args.kernel));
    }
    let load = report::load();
    let gpu = device.open()?;
    let progress = ProgressBar::new(workloads.len() as u64).with_style(
        ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg}").context("the progress bar's template")?,
    );
    progress.set_message("the adapter's ceilings");
    let mut probe = Probe::new(&gpu, effort)?;
    let protocol = Protocol::new(&probe.ceilings(), effort);
    let rounds = if args.quick { 1 } else { args.rounds };

    let mut figures: Vec<(Figure, Program)> = Vec::new();
    let mut costs: Vec<HostCost> = Vec::new();
    let mut skipped: Vec<(String, String)> = Vec::new();
    let mut subjects: Vec<Subject> = Vec::new();
    let mut waiting = workloads.into_iter().peekable();
    while let Some(workload) = waiting.next() {
        progress.set_message(format!("{} …", workload.name));
        match variants(&gpu, &workload, args.variants) {
            Ok(forced) => {
                for forced in forced {
                    subjects.push(Subject::new(&gpu, &workload, forced, &protocol)?);
                }
            }
            Err(error @ Error::Limit { .. }) => skipped.push((workload.name, error.to_string())),
            Err(error) => return Err(error.into()),
        }
        let bytes: u64 = subjects.iter().map(|subject| subject.timed.times().rotated_bytes).sum();
        if bytes < AT_ONCE && waiting.peek().is_some() {
            continue;
        }
        for round in 1..=rounds {
            progress.set_message(format!("{} workloads in turns, round {round} of {rounds}", subjects.len()));
            probe.sample()?;
            subjects.iter_mut().try_for_each(Subject::sample)?;
        }
        for mut subject in subjects.drain(..) {
            // The host's work grows with the steps; one step says nothing of it.
            if subject.program.steps.len() > 1 {
                costs.push(subject.host_cost(&gpu, protocol.sample)?);
            }
            figures.push((subject.figure(), subject.program));
            progress.inc(1);
        }
    }
    progress.finish_and_clear();

    // The best samples of all rounds are the ceilings, so they come last.
    let mut report = Report::begin(&gpu, args, probe.ceilings());
    report.load = load;
    report.costs = costs;
    report.skipped = skipped;
    for (mut figure, program) in figures {
        if effort == Effort::Full {
            figure.judge(&program, &report.ceilings);
        }
        report.figures.push(figure);
    }
    Ok(report)
}

/// The variants to time: the chosen one, or all that can run the workload's own family. An error if the device can't run it.
fn variants(gpu: &Gpu, workload: &Workload, all: bool) -> tilewise::Result<Vec<Option<(&'static str, &'static str)>>> {
    let program = gpu.lower(&workload.graph, &gpu.options())?;
    match &program.steps[..] {
        [step] if all => {
            let usable = step.candidates.iter().filter(|candidate| candidate.is_usable());
            Ok(usable.map(|candidate| Some((step.family, candidate.variant))).collect())
        }
        _ => Ok(vec![None]),
    }
}

impl Subject {
    fn new(
        gpu: &Gpu,
        workload: &Workload,
        forced: Option<(&'static str, &'static str)>,
        protocol: &Protocol,
    ) -> Result<Self> {
        let mut options = gpu.options();
        if let Some((family, variant)) = forced {
            options = options.force(family, variant);
        }
        let values = workload.values()?;
        let start = Instant::now();
        let program = gpu.lower(&workload.graph, &options)?;
        let mut first_call = start.elapsed();
        let timed = Timed::new(gpu, &program, &values, protocol)?;
        first_call += timed.first_call();
        let spent = Duration::ZERO;
        Ok(Subject { workload: workload.clone(), program, first_call: first_call.as_secs_f64(), timed, spent })
    }

    fn sample(&mut self) -> Result<()> {
        if self.spent > ENOUGH && self.timed.samples() >= 3 {
            return Ok(());
        }
        let start = Instant::now();
        self.timed.sample()?;
        self.spent += start.elapsed();
        Ok(())
    }

    fn host_cost(&mut self, gpu: &Gpu, time: Duration) -> Result<HostCost> {
        let Workload { name, graph, .. } = &self.workload;
        Ok(HostCost::measure(gpu, name, graph, self.timed.executable(), time)?)
    }

    fn figure(&self) -> Figure {
        let Workload { name, family, .. } = &self.workload;
        Figure::new(name.clone(), family, &self.program, self.first_call, self.timed.times())
    }
}
