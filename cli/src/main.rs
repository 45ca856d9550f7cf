//! The program `tilewise`: which adapters are here, whether the kernels are right on them, how fast they are, which variant of
//! each is the fastest, and how a graph runs.

#![warn(clippy::wildcard_enum_match_arm)]

mod args;
mod bench;
mod diff;
mod embed;
mod explain;
mod info;
mod output;
mod profile;
mod run;
mod shaders;
mod tune;
mod verify;

use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Command::Info(command) => info::run(command, &args.device),
        Command::Verify(command) => verify::run(command, &args.device),
        Command::Bench(command) => bench::run(command, &args.device),
        Command::Tune(command) => tune::run(command, &args.device),
        Command::Profile(command) => profile::run(command, &args.device),
        Command::Run(command) => run::run(command, &args.device),
        Command::Diff(command) => diff::run(command, &args.device),
        Command::Explain(command) => explain::run(command, &args.device),
        Command::Shaders(command) => shaders::run(command),
        Command::Embed(command) => embed::run(command, &args.device),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
