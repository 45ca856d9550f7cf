//! `tilewise bench`: measure, judge, compare, save, draw.

mod compare;
mod plot;
mod print;
mod report;

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use report::{Figure, Report};
use tilewise::{
    gpu::Gpu,
    lower::{Options, Program},
    measure::{Effort, Probe, Protocol, Timed},
    workloads::{self, Size, Workload},
};

use crate::{
    args::{BenchArgs, DeviceArgs},
    output::say,
};

/// Bytes of inputs and outputs that are on the device at once: as many workloads take turns as fit.
const AT_ONCE: u64 = 2 << 30;
/// Time for one workload; past it, three samples are enough.
const ENOUGH: Duration = Duration::from_secs(3);

/// Measures or reads a run. False if a figure can't be true.
pub(crate) fn run(args: &BenchArgs, device: &DeviceArgs) -> Result<bool> {
    let mut report = match &args.from {
        Some(file) => Report::read(file)?,
        None => measure(args, device)?,
    };
    report.figures.retain(|figure| is_chosen(&figure.name, args));
    if report.figures.is_empty() {
        bail!("no workload's name contains {:?}", args.kernel);
    }
    if let Some(file) = &args.save {
        fs::write(file, serde_json::to_string_pretty(&report)? + "\n").with_context(|| file.display().to_string())?;
    }
    if let Some(file) = &args.plot {
        plot::bars(&report, file)?;
    }
    if let Some(file) = &args.roofline {
        plot::roofline(&report, file)?;
    }
    let comparison = match &args.compare {
        Some(file) => {
            let before = Report::read(file)?;
            let changes = compare::changes(&before, &report, args.across_adapters)?;
            Some((before, changes))
        }
        None => None,
    };
    if args.json {
        let mut json = serde_json::to_value(&report)?;
        if let Some((_, changes)) = &comparison {
            json["changes"] = serde_json::to_value(changes)?;
        }
        say!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        print::print(&report, args.markdown);
        if let Some((before, changes)) = &comparison {
            compare::print(before, changes);
        }
    }
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
        bail!("no workload's name contains {:?}", args.kernel);
    }
    let gpu = device.open()?;
    let progress = ProgressBar::new(workloads.len() as u64).with_style(
        ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg}").context("the progress bar's template")?,
    );
    progress.set_message("the adapter's ceilings");
    let mut probe = Probe::new(&gpu, effort)?;
    let protocol = Protocol::new(&probe.ceilings(), effort);
    let rounds = if args.quick { 1 } else { args.rounds.max(1) };

    let mut figures: Vec<(Figure, Program)> = Vec::new();
    let mut subjects: Vec<Subject> = Vec::new();
    let mut waiting = workloads.into_iter().peekable();
    while let Some(workload) = waiting.next() {
        progress.set_message(format!("{} …", workload.name));
        for forced in variants(&gpu, &workload, args.variants)? {
            subjects.push(Subject::new(&gpu, &workload, forced, &protocol)?);
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
        for subject in subjects.drain(..) {
            figures.push((subject.figure(), subject.program));
            progress.inc(1);
        }
    }
    progress.finish_and_clear();

    // The best samples of all rounds are the ceilings, so this comes last.
    let ceilings = probe.ceilings();
    let judge = |(mut figure, program): (Figure, Program)| {
        if effort == Effort::Full {
            figure.judge(&program, &ceilings);
        }
        figure
    };
    let figures = figures.into_iter().map(judge).collect();
    Ok(Report::new(&gpu, args.quick, args.commit.clone(), ceilings, figures))
}

/// The variants to time: the chosen one, or all that can run the workload's own family.
fn variants(gpu: &Gpu, workload: &Workload, all: bool) -> Result<Vec<Option<(&'static str, &'static str)>>> {
    if !all {
        return Ok(vec![None]);
    }
    let program = gpu.lower(&workload.graph, &Options::default())?;
    let [step] = &program.steps[..] else { return Ok(vec![None]) };
    Ok(step.candidates.iter().filter(|c| c.is_usable()).map(|c| Some((step.family, c.variant))).collect())
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

    fn figure(&self) -> Figure {
        let Workload { name, family, .. } = &self.workload;
        Figure::new(name.clone(), family, &self.program, self.first_call, self.timed.times())
    }
}
