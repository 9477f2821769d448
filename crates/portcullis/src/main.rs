//! The portcullis binary.
#![forbid(unsafe_code)]

mod access_log;
mod cli;
mod config;
mod control;
mod failure;
mod machine;
mod master_key;
mod pages;
mod registry;
mod rights;
mod run;
mod service;
mod takeover;
mod top;
mod trace;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use listener::MasterKey;

use cli::{Cli, Command};
use config::{Config, DEFAULT_TOML};
use failure::Failure;

fn main() -> ExitCode {
    rights::take_up();
    // clap itself ends the program for --help (0) and for bad flags (2).
    let done = match Cli::parse().into_command() {
        Command::Run(args) => run::run(&args),
        Command::Check { file, strict } => check(&file, strict),
        Command::Keygen => keygen(),
        Command::Completions { shell } => print_bytes(&pages::completions(shell)),
        Command::Man { dir } => man(dir.as_deref()),
        Command::Config { print_default: _ } => print(DEFAULT_TOML),
        Command::Ctl(args) => control::ctl(args).and_then(|answer| print(&answer)),
        Command::Top(args) => top::top(args),
        Command::Trace(args) => trace::trace(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A reader that has gone away must not change the exit code.
            let _ = writeln!(io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}

fn check(file: &Path, strict: bool) -> Result<(), Failure> {
    let config = read_config(file)?;
    run::check_lists(&config)?;
    let count = config.listeners.len();
    print(&format!("{}: good, {count} listener{}\n", file.display(), if count == 1 { "" } else { "s" }))?;
    let lacks = machine::lacks(&config);
    let fatal = lacks.iter().filter(|lack| lack.fatal).count();
    for (title, of) in
        [("cannot start on this machine, by this user:", true), ("makes do on this machine, for this user:", false)]
    {
        let list: String =
            lacks.iter().filter(|lack| lack.fatal == of).map(|lack| format!("  {}\n", lack.text)).collect();
        if !list.is_empty() {
            print(&format!("{title}\n{list}"))?;
        }
    }
    if strict && fatal > 0 {
        Err(Failure::Runtime(format!("{}: {fatal} missing here", file.display())))
    } else {
        Ok(())
    }
}

fn keygen() -> Result<(), Failure> {
    let key = MasterKey::generate().map_err(|error| Failure::runtime("cannot make a key", error))?;
    print(&key.to_hex())?;
    print("\n")
}

fn man(dir: Option<&Path>) -> Result<(), Failure> {
    match dir {
        Some(dir) => pages::write_man(dir)
            .map_err(|error| Failure::runtime(format!("cannot write man pages into {}", dir.display()), error)),
        None => print_bytes(&pages::man().map_err(|error| Failure::runtime("cannot make the man page", error))?),
    }
}

fn read_config(file: &Path) -> Result<Config, Failure> {
    let bytes = fs::read(file)
        .map_err(|error| Failure::Usage(format!("{}: cannot read the config file: {error}", file.display())))?;
    Config::from_bytes(&bytes).map_err(|diagnostics| Failure::Usage(diagnostics.render(file)))
}

/// Writes to standard output. A reader that has gone away (`portcullis config ... | head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::runtime("cannot write to standard output", error))
        }
        _ => Ok(()),
    }
}
