use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tilewise::{
    Tensor,
    gpu::{Executable, Gpu},
    lower::{self, Options, Program},
    workloads::{self, Workload},
};

use crate::{
    args::{BenchArgs, DeviceArgs},
    output::{self, say},
    plot::{self, Bar, Panel},
};

/// How long one sample should take at least, so that the clock's grain and a single hiccup don't matter.
const SAMPLE: Duration = Duration::from_millis(50);

/// A run of the benchmark: where, and the figures.
#[derive(Serialize)]
struct Report {
    tilewise: &'static str,
    adapter: String,
    driver: String,
    figures: Vec<Figure>,
}

/// What was measured of one workload and variant.
#[derive(Serialize)]
struct Figure {
    name: String,
    family: &'static str,
    variant: String,
    /// Seconds from the call to the first result, shaders compiled on the way.
    first_call: f64,
    /// Median seconds of a run on the GPU, where timestamps can be had.
    gpu: Option<f64>,
    /// Median seconds of a run, in a series without a wait between.
    wall: f64,
    /// Half the distance between the quartiles, over the median.
    spread: f64,
    /// Billions of floating-point operations a second, by the kernels' own formulas.
    gflops: f64,
    /// Billions of bytes a second that must be moved at the least.
    gbytes: f64,
    samples: usize,
}

struct Subject {
    workload: Workload,
    variant: String,
    program: Program,
    executable: Executable,
    iterations: u32,
    first_call: f64,
    gpu: Vec<f64>,
    wall: Vec<f64>,
}

/// Times the workloads, interleaved: each round gives one sample of each.
pub(crate) fn run(args: &BenchArgs, device: &DeviceArgs) -> Result<bool> {
    let gpu = device.open()?;
    let mut workloads = workloads::all(args.quick)?;
    workloads.retain(|w| args.kernel.is_empty() || args.kernel.iter().any(|text| w.name.contains(text.as_str())));
    if workloads.is_empty() {
        bail!("no workload's name contains {:?}", args.kernel);
    }
    let mut subjects = Vec::new();
    let progress = ProgressBar::new(workloads.len() as u64).with_style(
        ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg}").context("the progress bar's template")?,
    );
    progress.set_prefix("compiling");
    for workload in workloads {
        progress.set_message(workload.name.clone());
        for variant in variants(&gpu, &workload, args.variants)? {
            subjects.push(Subject::new(&gpu, workload.clone(), variant, args.quick)?);
        }
        progress.inc(1);
    }
    let rounds = if args.quick { 1 } else { args.rounds.max(1) };
    progress.set_prefix("timing");
    progress.reset();
    progress.set_length((rounds * subjects.len()) as u64);
    for _ in 0..rounds {
        for subject in &mut subjects {
            progress.set_message(subject.workload.name.clone());
            subject.sample()?;
            progress.inc(1);
        }
    }
    progress.finish_and_clear();

    let report = Report {
        tilewise: env!("CARGO_PKG_VERSION"),
        adapter: gpu.profile().adapter.clone(),
        driver: gpu.driver(),
        figures: subjects.into_iter().map(Subject::figure).collect(),
    };
    if let Some(file) = &args.save {
        fs::write(file, serde_json::to_string_pretty(&report)?).with_context(|| file.display().to_string())?;
    }
    if let Some(file) = &args.plot {
        draw(&report, file)?;
    }
    if args.json {
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(true)
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
    fn new(gpu: &Gpu, workload: Workload, forced: Option<(&'static str, &'static str)>, quick: bool) -> Result<Self> {
        let mut options = gpu.options();
        if let Some((family, variant)) = forced {
            options = options.force(family, variant);
        }
        let start = Instant::now();
        let program = lower::lower(&workload.graph, gpu.profile(), &options)?;
        let mut executable = gpu.load(&program, [])?;
        let inputs = workload.inputs()?;
        let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        executable.run(&inputs)?;
        let first_call = start.elapsed().as_secs_f64();
        executable.set_inputs(&inputs)?;
        // As many runs in a sample as fill its time.
        let once = executable.bench(1, 1)?.wall.as_secs_f64();
        let iterations = if quick { 1 } else { (SAMPLE.as_secs_f64() / once.max(1e-6)).clamp(1.0, 1000.0) as u32 };
        let variant = match &program.steps[..] {
            [step] => step.variant.to_string(),
            steps => format!("{} steps", steps.len()),
        };
        let (gpu, wall) = (Vec::new(), Vec::new());
        Ok(Subject { workload, variant, program, executable, iterations, first_call, gpu, wall })
    }

    fn sample(&mut self) -> Result<()> {
        let timing = self.executable.bench(self.iterations, 4)?;
        let runs = f64::from(self.iterations);
        self.wall.push(timing.wall.as_secs_f64() / runs);
        self.gpu.extend(timing.gpu.map(|time| time.as_secs_f64() / runs));
        Ok(())
    }

    fn figure(mut self) -> Figure {
        let gpu = (!self.gpu.is_empty()).then(|| median(&mut self.gpu));
        let wall = median(&mut self.wall);
        let samples = if gpu.is_some() { &self.gpu } else { &self.wall };
        let quartile = |q: usize| samples[(samples.len() - 1) * q / 4];
        let seconds = gpu.unwrap_or(wall);
        let sum = |f: fn(&lower::Step) -> u64| self.program.steps.iter().map(f).sum::<u64>() as f64;
        Figure {
            name: self.workload.name,
            family: self.workload.family,
            variant: self.variant,
            first_call: self.first_call,
            gpu,
            wall,
            spread: (quartile(3) - quartile(1)) / 2.0 / seconds,
            gflops: sum(lower::Step::flops) / seconds / 1e9,
            gbytes: sum(lower::Step::bytes) / seconds / 1e9,
            samples: samples.len(),
        }
    }
}

/// The middle of the samples, which are then sorted.
fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(report: &Report) {
    say!("{} ({})\n", report.adapter, report.driver);
    let mut table = output::table(&["workload", "variant", ">GPU", ">wall", ">±", ">GFLOP/s", ">GB/s", ">first call"]);
    for f in &report.figures {
        table.add_row([
            f.name.clone(),
            f.variant.clone(),
            f.gpu.map_or("—".into(), output::duration),
            output::duration(f.wall),
            format!("{:.0} %", f.spread * 100.0),
            format!("{:.1}", f.gflops),
            format!("{:.1}", f.gbytes),
            output::duration(f.first_call),
        ]);
    }
    say!("{table}");
    say!(
        "Medians of {} rounds; GFLOP/s and GB/s count what the formula needs, masks taken into account.",
        report.figures.iter().map(|f| f.samples).max().unwrap_or(0)
    );
}

/// Compute-bound families by GFLOP/s, the others by GB/s.
fn draw(report: &Report, file: &std::path::Path) -> Result<()> {
    let compute = |f: &&Figure| matches!(f.family, "matmul" | "attention" | "layer");
    let bars = |figures: Vec<&Figure>, rate: fn(&Figure) -> f64, unit: &str| -> Vec<Bar> {
        figures
            .into_iter()
            .map(|f| Bar {
                name: format!("{} · {}", f.name, f.variant),
                rate: rate(f),
                label: format!("{:.1} {unit}, {}", rate(f), output::duration(f.gpu.unwrap_or(f.wall))),
            })
            .collect()
    };
    let (matrix, memory): (Vec<&Figure>, Vec<&Figure>) = report.figures.iter().partition(compute);
    let panels = [
        Panel { title: "GFLOP/s".into(), bars: bars(matrix, |f| f.gflops, "GFLOP/s") },
        Panel { title: "GB/s".into(), bars: bars(memory, |f| f.gbytes, "GB/s") },
    ];
    plot::bars(file, &format!("tilewise {} on {} ({})", report.tilewise, report.adapter, report.driver), &panels)
}
