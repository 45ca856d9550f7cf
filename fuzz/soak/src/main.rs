//! Long runs of the fuzzers: any number of cases over several processes, resumable, with what was found in a folder.
//!
//! ```sh
//! soak run graph --cases 1000000 --jobs 2     # mutated graphs through reading, verifying, printing and lowering
//! soak run device --compared 20000 --jobs 2   # on the adapter, against the reference
//! soak check graph FILE                       # an input that was saved
//! ```
//!
//! A case is run in a process of its own kind, so that an abort, a crash of a driver, a run without end or too much memory is
//! found too, and named by its case.

#[path = "../../src/bodies/mod.rs"]
#[allow(unreachable_pub, dead_code, reason = "the tests and the targets use it too")]
mod bodies;
mod common;
mod ledger;
mod worker;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tilewise::gpu::Gpu;

use bodies::{Outcome, Target};
use ledger::{Entry, Ledger};

/// Frees what it allocates, up to a limit.
#[global_allocator]
static MEMORY: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

#[derive(Debug, Parser)]
#[command(about = "Long runs of the fuzzers of tilewise")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs cases, several at once, from where the last run of this seed ended. Ends with 1 if any of them showed a fault.
    Run(Run),
    /// Checks an input that was saved.
    Check {
        /// graph, device, safetensors, index, function or config.
        target: String,
        /// The input.
        file: PathBuf,
    },
    /// Prints the input of a case.
    Show {
        /// graph, safetensors, index, function or config.
        target: String,
        /// The case.
        case: u64,
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Runs the cases whose numbers it reads.
    #[command(hide = true)]
    Worker {
        target: String,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        memory: usize,
    },
}

#[derive(Clone, Debug, Args)]
struct Run {
    /// graph, device, safetensors, index, function or config.
    target: String,
    /// Cases to try.
    #[arg(long, default_value_t = 1_000_000)]
    cases: u64,
    /// Stop when so many have gone all the way; on the device, were compared.
    #[arg(long)]
    compared: Option<u64>,
    /// The seed of the cases.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Processes.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Take the I-th of N shares of the cases, as 1/4: for runs on several machines.
    #[arg(long, default_value = "1/1", value_parser = share)]
    share: (u64, u64),
    /// Where the record and the inputs that showed faults go.
    #[arg(long, default_value = "fuzz/soak-record")]
    folder: PathBuf,
    /// Seconds that a case may take.
    #[arg(long, default_value_t = 20)]
    timeout: u64,
    /// MiB that the library may have allocated at once.
    #[arg(long, default_value_t = 1024)]
    memory: usize,
}

fn share(text: &str) -> Result<(u64, u64), String> {
    let parts: Option<(u64, u64)> = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parts.filter(|&(i, n)| 1 <= i && i <= n).ok_or_else(|| "expected I/N with I from 1 to N".into())
}

/// What is run: a target, or graphs on the device.
enum Subject {
    Host(Target),
    Device(Box<Gpu>),
}

impl Subject {
    fn open(name: &str) -> Result<Self> {
        Ok(match target(name)? {
            _ if name == "device" => Subject::Device(Box::new(Gpu::new()?)),
            target => Subject::Host(target),
        })
    }

    fn check(&self, input: &[u8]) -> Result<Outcome, String> {
        match self {
            Subject::Host(target) => target.check(input),
            Subject::Device(gpu) => bodies::device::check(gpu, input),
        }
    }
}

/// The target that makes the inputs.
fn target(name: &str) -> Result<Target> {
    if name == "device" {
        return Ok(bodies::device::target());
    }
    let names: Vec<&str> = bodies::TARGETS.iter().map(|target| target.name).chain(["device"]).collect();
    Target::named(name).with_context(|| format!("there is no target `{name}`; there are {}", names.join(", ")))
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(run) => soak(&run),
        Command::Check { target, file } => check(&target, &file),
        Command::Show { target: name, case, seed } => target(&name).map(|target| {
            println!("{}", bodies::readable(&target.case(seed, case)));
            true
        }),
        Command::Worker { target, seed, memory } => worker::serve(&target, seed, memory).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(name: &str, file: &Path) -> Result<bool> {
    let input = std::fs::read(file).with_context(|| file.display().to_string())?;
    match Subject::open(name)?.check(&input) {
        Ok(outcome) => println!("no fault: {outcome:?}"),
        Err(fault) => {
            println!("{fault}");
            return Ok(false);
        }
    }
    Ok(true)
}

/// Cases that are counted together: what is lost if a run is stopped.
fn chunk(name: &str) -> u64 {
    if name == "device" { 25 } else { 1000 }
}

fn soak(run: &Run) -> Result<bool> {
    target(&run.target)?;
    if run.jobs == 0 {
        bail!("--jobs is 0, expected at least 1");
    }
    let size = chunk(&run.target);
    let ledger = Ledger::open(run, size)?;
    let (i, n) = run.share;
    let chunks = (0..run.cases.div_ceil(size)).filter(|chunk| chunk % n == i - 1);
    let open: Vec<u64> = chunks.filter(|&chunk| !ledger.has(chunk)).collect();
    let wanted = run.compared.unwrap_or(u64::MAX);
    let bar = progress(run, &ledger, open.len() as u64 * size)?;
    let queue = Mutex::new(open.into_iter());
    let enough = Mutex::new(ledger.whole() >= wanted);
    let (send, receive) = mpsc::channel::<Entry>();
    let started = Instant::now();
    let ledger = std::thread::scope(|scope| -> Result<Ledger> {
        for _ in 0..run.jobs {
            let (send, queue, enough, bar) = (send.clone(), &queue, &enough, &bar);
            scope.spawn(move || {
                let next = || {
                    let stop = *enough.lock().expect("no thread panics while it holds this");
                    if stop { None } else { queue.lock().expect("no thread panics while it holds this").next() }
                };
                if let Err(error) = worker::drive(run, size, next, &send, bar) {
                    bar.suspend(|| eprintln!("error: {error:#}"));
                    let _ = send.send(Entry::Broken { error: format!("{error:#}") });
                }
            });
        }
        drop(send);
        let mut ledger = ledger;
        for entry in receive {
            if let Entry::Fault { case, fault, .. } = &entry {
                bar.suspend(|| {
                    eprintln!("FAULT: {} case {case} of seed {}: {}", run.target, run.seed, first_lines(fault))
                });
            }
            ledger.add(entry)?;
            bar.set_message(ledger.to_string());
            *enough.lock().expect("no thread panics while it holds this") = ledger.whole() >= wanted;
        }
        Ok(ledger)
    })?;
    bar.finish_and_clear();
    println!("{}, seed {}: {ledger}; {:.0} s", run.target, run.seed, started.elapsed().as_secs_f64());
    if ledger.faults() > 0 {
        println!("the inputs are in {}", run.folder.join("faults").display());
    }
    Ok(ledger.faults() == 0 && !ledger.is_broken())
}

fn first_lines(text: &str) -> String {
    text.lines().take(4).map(|line| line.chars().take(300).collect::<String>()).collect::<Vec<_>>().join("\n")
}

fn progress(run: &Run, ledger: &Ledger, cases: u64) -> Result<ProgressBar> {
    let bar = ProgressBar::new(cases)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} cases, {per_sec}, {eta} left; {msg}")?);
    bar.set_message(ledger.to_string());
    bar.enable_steady_tick(Duration::from_secs(1));
    if bar.is_hidden() {
        eprintln!("{}: {cases} cases to go in {} processes; so far {ledger}", run.target, run.jobs);
    }
    Ok(bar)
}
