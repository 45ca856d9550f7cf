//! Loads each case into each library, holds the results together, and takes samples in turns.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tilewise::measure::Statistics;

use crate::{
    Args,
    case::{self, Case, Operand},
    ours,
    peer::Result,
    table::{Column, Row, Run},
    worker::{Launch, Worker, write_operands},
};

/// In the order of the table.
pub const PEERS: [&str; 7] = ["tilewise", "tuned", "burn", "candle", "faer", "torch", "onnxruntime"];

/// How long one sample should take.
const SAMPLE: f64 = 0.05;
/// Before each sample, for what the sample before it leaves behind.
const PAUSE: Duration = Duration::from_millis(10);
/// How far results may be apart, as a part of the largest element.
const TOLERANCE: f32 = 1e-4;

/// Times the chosen cases. What was measured is in the file after each.
pub fn measure(args: &Args) -> Result<Run> {
    let scratch = Scratch::new()?;
    let mut workers = workers(args, &scratch.0)?;
    let mut run = Run {
        columns: workers
            .iter()
            .map(|worker| Column { peer: worker.about.name.clone(), device: worker.about.device.clone() })
            .collect(),
        rows: Vec::new(),
    };
    for case in case::chosen(&args.cases) {
        eprintln!("{}", case.name);
        run.rows.extend(rows(&case, &mut workers, args.rounds, &scratch.0)?);
        if let Some(file) = &args.json {
            fs::write(file, serde_json::to_string_pretty(&run)? + "\n")?;
        }
    }
    Ok(run)
}

/// A folder that is gone in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tilewise-peers-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts the libraries that were asked for; says which there are not.
fn workers(args: &Args, folder: &Path) -> Result<Vec<Worker>> {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let start = |name: &str, launch: Launch| -> Option<Worker> {
        if !wanted(name) {
            return None;
        }
        let started = Worker::start(launch, folder);
        started.inspect_err(|error| eprintln!("{name} is not timed: {error}")).ok()
    };
    // burn takes the best adapter by itself, and tilewise follows.
    let burn = start("burn", Launch::rust("burn")?);
    let (mut ours, mut tuned) = (Launch::rust("tilewise")?, Launch::rust("tuned")?);
    let adapter = burn.as_ref().and_then(|burn| burn.about.adapter.clone()).or(args.adapter.clone());
    if let Some(adapter) = adapter {
        [ours, tuned] = [ours, tuned].map(|launch| launch.argument("--adapter").argument(&adapter));
    }
    let (ours, tuned) = (start("tilewise", ours), start("tuned", tuned));
    if let (Some(ours), Some(burn)) = (&ours, &burn)
        && ours.about.device != burn.about.device
    {
        eprintln!("burn runs on {}, tilewise on {}: no comparison", burn.about.device, ours.about.device);
    }
    let others = [
        start("candle", Launch::rust("candle")?),
        start("faer", Launch::rust("faer")?),
        start("torch", Launch::python("torch_bench.py")),
        start("onnxruntime", Launch::python("ort_bench.py")),
    ];
    let workers: Vec<Worker> = [ours, tuned, burn].into_iter().chain(others).flatten().collect();
    if workers.is_empty() { Err("there is nothing to time".into()) } else { Ok(workers) }
}

/// A case of one library that is being timed.
struct Subject<'a> {
    worker: &'a mut Worker,
    row: Row,
    output: Vec<f32>,
    /// Runs of a sample.
    times: usize,
    samples: Vec<f64>,
}

impl<'a> Subject<'a> {
    /// Loads a case, which compiles and tunes, and finds how many runs make a sample. `None` if the library can't do it.
    fn load(worker: &'a mut Worker, case: &Case, operands: &[Operand]) -> Option<Self> {
        let row = Row::new(case, &worker.about.name);
        let mut subject = Subject { worker, row, output: Vec::new(), times: 0, samples: Vec::new() };
        match subject.worker.load(case, operands) {
            Ok(None) => return None,
            Ok(Some(loaded)) => {
                subject.row.first_call = Some(loaded.first_call);
                subject.output = loaded.output;
                match subject.worker.run(3) {
                    Ok(seconds) => subject.times = (SAMPLE / seconds).clamp(1.0, 2000.0) as usize,
                    Err(error) => subject.row.fail(error.to_string()),
                }
            }
            Err(error) => subject.row.fail(error.to_string()),
        }
        Some(subject)
    }

    /// Adds a sample, unless something went wrong before.
    fn sample(&mut self) {
        if self.row.fault.is_none() {
            thread::sleep(PAUSE);
            match self.worker.run(self.times) {
                Ok(seconds) => self.samples.push(seconds),
                Err(error) => self.row.fail(error.to_string()),
            }
        }
    }

    fn finish(mut self, case: &Case, operands: &[Operand], folder: &Path) -> Row {
        // Only a library that does not tune can begin anew in reasonable time.
        if self.row.fault.is_none() && self.row.peer.starts_with("tilewise") {
            match first_call(self.worker, case, operands, folder) {
                Ok(seconds) => self.row.uncached_first_call = Some(seconds),
                Err(error) => self.row.fail(format!("with empty caches: {error}")),
            }
        }
        if self.row.fault.is_none() {
            self.row.seconds = Statistics::of(&self.samples);
        }
        self.row
    }
}

fn rows(case: &Case, workers: &mut [Worker], rounds: usize, folder: &Path) -> Result<Vec<Row>> {
    let operands = case.op.operands();
    write_operands(folder, &operands)?;
    let mut subjects: Vec<Subject<'_>> =
        workers.iter_mut().filter_map(|worker| Subject::load(worker, case, &operands)).collect();
    judge(case, &operands, &mut subjects)?;
    for _ in 0..rounds {
        subjects.iter_mut().for_each(Subject::sample);
    }
    Ok(subjects.into_iter().map(|subject| subject.finish(case, &operands, folder)).collect())
}

/// In a process of its own, with nothing compiled before.
fn first_call(worker: &Worker, case: &Case, operands: &[Operand], folder: &Path) -> Result<f64> {
    let cache = folder.join("cache");
    fs::create_dir(&cache)?;
    let loaded = worker.anew(&cache).and_then(|mut fresh| fresh.load(case, operands));
    fs::remove_dir_all(&cache)?;
    Ok(loaded?.ok_or("it can't do it any more")?.first_call)
}

/// Finds wrong results. Where any two differ, the reference in f64 is asked who is right.
fn judge(case: &Case, operands: &[Operand], subjects: &mut [Subject<'_>]) -> Result<()> {
    let mut loaded = subjects.iter_mut().filter(|subject| subject.row.first_call.is_some());
    let Some(first) = loaded.next() else { return Ok(()) };
    let mut others: Vec<&mut Subject<'_>> = loaded.collect();
    if others.iter().all(|other| difference(case, &other.output, &first.output).is_none()) {
        return Ok(());
    }
    eprintln!("results differ: asking the reference …");
    let right = ours::reference(case, operands)?;
    others.push(first);
    for subject in others {
        if let Some(difference) = difference(case, &subject.output, &right) {
            subject.row.fail(difference);
        }
    }
    Ok(())
}

/// How a result departs from what is expected.
fn difference(case: &Case, found: &[f32], expected: &[f32]) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("wrong: {} elements instead of {}", found.len(), expected.len()));
    }
    let counted = || found.iter().zip(expected).enumerate().filter(|(at, _)| case.op.counts(*at));
    let most = counted().fold(0.0f32, |most, (_, (_, x))| most.max(x.abs()));
    // NaN is near nothing.
    let is_near = |a: f32, b: f32| (a - b).abs() <= TOLERANCE * most;
    let mut far = counted().filter(|(_, (a, b))| !is_near(**a, **b));
    let (at, (a, b)) = far.next()?;
    Some(format!("wrong: element {at} is {a} instead of {b}, and {} more are off", far.count()))
}
