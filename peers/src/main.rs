//! Times tilewise beside other libraries: the same shapes and operands, in turns, by one clock, each library in a process of
//! its own.
//!
//! ```text
//! tilewise-peers [--only PEER]… [--case TEXT]… [--rounds N] [--json FILE]     time, check, print, write
//! tilewise-peers --print FILE                                                 print what was written
//! ```
//!
//! A peer is `tilewise`, `tuned` (tilewise after it has tuned itself for a case), `burn`, `candle`, `faer`, `torch` or
//! `onnxruntime`. The last two are Python's (`$PYTHON`, or `python3`). What `$TILEWISE_RUNNER` names runs the Rust workers, as `scripts/mesa.sh` does.

mod burn_wgpu;
mod candle;
mod case;
mod faer;
mod measure;
mod ours;
mod peer;
mod table;
mod worker;

use peer::{Peer, Result};

#[derive(Default)]
pub struct Args {
    only: Vec<String>,
    cases: Vec<String>,
    rounds: usize,
    json: Option<String>,
    print: Option<String>,
    /// The library whose worker this process is, and the adapter that it has to take.
    worker: Option<String>,
    adapter: Option<String>,
}

fn arguments() -> Result<Args> {
    let mut args = Args { rounds: 7, ..Args::default() };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--only" => args.only.push(value()?),
            "--case" => args.cases.push(value()?),
            "--rounds" => args.rounds = value()?.parse::<usize>()?.max(1),
            "--json" => args.json = Some(value()?),
            "--print" => args.print = Some(value()?),
            "--worker" => args.worker = Some(value()?),
            "--adapter" => args.adapter = Some(value()?),
            _ => return Err(format!("{name} is unknown; see the head of peers/src/main.rs").into()),
        }
    }
    match args.only.iter().find(|only| !measure::PEERS.contains(&only.as_str())) {
        Some(unknown) => Err(format!("{unknown} is none of {}", measure::PEERS.join(", ")).into()),
        None => Ok(args),
    }
}

fn main() -> Result<()> {
    let args = arguments()?;
    if let Some(name) = &args.worker {
        return worker::serve(open(name, args.adapter.as_deref()));
    }
    let run = match &args.print {
        Some(file) => table::Run::read(file)?,
        None => measure::measure(&args)?,
    };
    print!("{}", table::markdown(&run));
    Ok(())
}

/// The library that a worker stands for.
fn open(name: &str, adapter: Option<&str>) -> Result<Box<dyn Peer>> {
    Ok(match name {
        "tilewise" | "tuned" => Box::new(ours::Ours::open(adapter, name == "tuned")?),
        "burn" => Box::new(burn_wgpu::BurnWgpu::open()?),
        "candle" => Box::new(candle::Candle),
        "faer" => Box::new(faer::Faer),
        _ => return Err(format!("{name} has no worker").into()),
    })
}

/// How many threads a library on the processor takes.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
