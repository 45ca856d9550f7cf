//! The program `tilewise`: which adapters are here, whether the kernels are right on them, how fast they are, which variant of
//! each is the fastest, and how a graph runs.

#![warn(clippy::wildcard_enum_match_arm)]
// They panic where `say!` and `note!` of `output` don't: on a full disk, or when the reader is gone.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod bench;
mod diff;
mod embed;
mod explain;
mod gradcheck;
mod info;
mod input;
mod output;
mod profile;
mod run;
mod shaders;
mod tune;
mod verify;

use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser as _;

fn main() -> ExitCode {
    let args = match Args::try_parse().and_then(Args::checked) {
        Ok(args) => args,
        Err(message) => return output::end_with_usage(&message),
    };
    output::end(match &args.command {
        Command::Info(command) => info::run(command, &args.device),
        Command::Verify(command) => verify::run(command, &args.device),
        Command::Bench(command) => bench::run(command, &args.device),
        Command::Tune(command) => tune::run(command, &args.device),
        Command::Profile(command) => profile::run(command, &args.device),
        Command::Run(command) => run::run(command, &args.device),
        Command::Diff(command) => diff::run(command, &args.device),
        Command::Gradcheck(command) => gradcheck::run(command, &args.device),
        Command::Explain(command) => explain::run(command, &args.device),
        Command::Shaders(command) => shaders::run(command),
        Command::Embed(command) => embed::run(command, &args.device),
    })
}
