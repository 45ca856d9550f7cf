//! Times tilewise beside other libraries: the same shapes and operands, in one process, in turns, by one clock.
//!
//! ```text
//! tilewise-peers [--only PEER]… [--case TEXT]… [--rounds N] [--json FILE]     time, check, print, write
//! tilewise-peers --join FILE…                                                  one table from several such files
//! ```
//!
//! A peer is `tilewise`, `burn`, `candle` or `faer`. Files of `torch_bench.py` and `ort_bench.py` can be joined.

mod burn_wgpu;
mod case;
mod cpu;
mod ours;
mod peer;
mod table;

use std::time::{Duration, Instant};

use case::Case;
use peer::{Peer, Result, Runner};
use table::{Row, Run};
use tilewise::{gpu::Gpu, measure::Statistics};

/// How long one sample should take.
const SAMPLE: Duration = Duration::from_millis(50);
/// How far results may be apart, as a part of the largest element.
const TOLERANCE: f32 = 1e-4;

#[derive(Default)]
struct Args {
    only: Vec<String>,
    cases: Vec<String>,
    rounds: usize,
    json: Option<String>,
    join: Vec<String>,
}

fn arguments() -> Result<Args> {
    let mut args = Args { rounds: 7, ..Args::default() };
    let mut given = std::env::args().skip(1).peekable();
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--only" => args.only.push(value()?),
            "--case" => args.cases.push(value()?),
            "--rounds" => args.rounds = value()?.parse::<usize>()?.max(1),
            "--json" => args.json = Some(value()?),
            "--join" => args.join.extend(given.by_ref()),
            _ => return Err(format!("{name} is unknown; see the head of peers/src/main.rs").into()),
        }
    }
    Ok(args)
}

fn main() -> Result<()> {
    let args = arguments()?;
    if !args.join.is_empty() {
        return table::join(&args.join);
    }
    let run = measure(&args)?;
    table::print(&[run.clone()]);
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_string_pretty(&run)? + "\n")?;
    }
    Ok(())
}

/// The peers that were asked for. burn chooses the adapter, since it takes the best by itself, and tilewise follows.
fn peers(args: &Args) -> Result<Vec<Box<dyn Peer>>> {
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    let burn = if wanted("burn") { Some(burn_wgpu::BurnWgpu::open()?) } else { None };
    if wanted("tilewise") {
        let gpu = match &burn {
            Some(burn) => Gpu::builder().adapter(&burn.adapter).build()?,
            None => Gpu::new()?,
        };
        peers.push(Box::new(ours::Ours(gpu)));
    }
    if let Some(burn) = burn {
        if let Some(ours) = peers.first().filter(|ours| ours.device() != burn.device()) {
            return Err(format!("burn runs on {}, tilewise on {}", burn.device(), ours.device()).into());
        }
        peers.push(Box::new(burn));
    }
    if wanted("candle") {
        peers.push(Box::new(cpu::Candle));
    }
    if wanted("faer") {
        peers.push(Box::new(cpu::Faer));
    }
    Ok(peers)
}

/// A case of one peer that is being timed.
struct Subject {
    peer: String,
    device: String,
    runner: Box<dyn Runner>,
    times: usize,
    first_call: f64,
    samples: Vec<f64>,
}

fn measure(args: &Args) -> Result<Run> {
    let peers = peers(args)?;
    let mut rows = Vec::new();
    for case in case::chosen(&args.cases) {
        eprintln!("{}", case.name);
        let mut subjects = load(&case, &peers)?;
        for _ in 0..args.rounds {
            for subject in &mut subjects {
                let start = Instant::now();
                subject.runner.run(subject.times)?;
                subject.samples.push(start.elapsed().as_secs_f64() / subject.times as f64);
            }
        }
        rows.extend(subjects.into_iter().map(|subject| Row {
            case: case.name.clone(),
            peer: subject.peer,
            device: subject.device,
            first_call: Some(subject.first_call),
            seconds: Statistics::of(&subject.samples).expect("at least one round"),
        }));
    }
    Ok(Run { rows })
}

/// Loads a case for each peer that can do it, tunes and warms up, and holds the results together.
fn load(case: &Case, peers: &[Box<dyn Peer>]) -> Result<Vec<Subject>> {
    let operands = case.op.operands();
    let mut expected: Option<(String, Vec<f32>)> = None;
    let mut subjects = Vec::new();
    for peer in peers {
        let start = Instant::now();
        let Some(mut runner) = peer.load(case, &operands)? else { continue };
        runner.run(1)?;
        let first_call = start.elapsed().as_secs_f64();
        let output = runner.output()?;
        match &expected {
            None => expected = Some((peer.name(), output)),
            Some((other, values)) => compare(case, &peer.name(), &output, other, values)?,
        }
        let start = Instant::now();
        runner.run(3)?;
        let once = start.elapsed().as_secs_f64() / 3.0;
        let times = (SAMPLE.as_secs_f64() / once).clamp(1.0, 2000.0) as usize;
        subjects.push(Subject {
            peer: peer.name(),
            device: peer.device(),
            runner,
            times,
            first_call,
            samples: Vec::new(),
        });
    }
    Ok(subjects)
}

fn compare(case: &Case, name: &str, found: &[f32], other: &str, expected: &[f32]) -> Result<()> {
    let most = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let far = |(a, b): (&f32, &f32)| !((a - b).abs() <= TOLERANCE * most);
    if found.len() != expected.len() {
        return Err(format!("{}: {name} gives {} elements, {other} {}", case.name, found.len(), expected.len()).into());
    }
    match found.iter().zip(expected).position(far) {
        None => Ok(()),
        Some(i) => {
            let (a, b) = (found[i], expected[i]);
            Err(format!("{}: element {i} is {a} with {name} and {b} with {other}", case.name).into())
        }
    }
}
