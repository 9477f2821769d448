//! A load-test lab: floods, legitimate clients, and every alternative side by side.
//!
//! `lab` lays out namespaces and a cable; `target` starts who listens; `flood` and `clients` come to it; `measure` reads the kernel's
//! counters; `run` puts these together to rounds; `slo` judges them and `report` shows them. What a round found is `results`.
#![deny(unsafe_code)]

mod cli;
mod clients;
mod commands;
mod flood;
mod lab;
mod measure;
mod relay;
mod report;
mod results;
mod run;
mod scenario;
mod slo;
mod target;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::execute(cli::Cli::parse().command) {
        Ok(commands::Verdict::Passed) => ExitCode::SUCCESS,
        Ok(commands::Verdict::Failed) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("loadtest: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
