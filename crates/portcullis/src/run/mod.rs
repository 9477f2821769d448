//! `portcullis run`: from the configuration to the end.

mod banner;
mod begin;
mod descriptors;
mod end;
mod heritage;
mod keys;
mod limits;
mod logging;
mod operations;
mod preflight;
mod reload;
mod serve;
mod servers;
mod shortage;
mod sparse;
mod start;
mod stop;
mod supervisor;
mod surroundings;
mod upstream;

use std::sync::Arc;

use portcullis::KeySchedule;
use tokio::runtime::Runtime;

use crate::cli::RunArgs;
use crate::config::{Config, Datapath};
use crate::control;
use crate::failure::Failure;
use crate::master_key::{Environment, KeySource, Named};
use crate::takeover::Predecessor;
use crate::{read_config, rights};
use begin::begin;
use logging::LevelControl;
use stop::Signals;

pub use limits::check_lists;
pub use sparse::Sparse;

/// Runs until a signal ends it.
///
/// # Errors
/// Whatever keeps it from starting. Once it runs, only a listening socket of the kernel tier can fail.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default()), read_config)?;
    let config = config.with_flags(args).map_err(|error| Failure::Usage(format!("error: {error}")))?;
    let level = Arc::new(logging::init(config.log));
    let keys = match config.datapath {
        Datapath::Kernel => None,
        Datapath::Auto | Datapath::Bpf | Datapath::Raw => {
            rights::check(config.datapath, config.listeners.iter().flat_map(|listener| &listener.bind))?;
            let by = if args.master_key_file.is_some() { "--master-key-file" } else { "master_key_file" };
            let named = config.master_key_file.as_deref().map(|file| Named { file, by });
            let source = KeySource::find(named, config.state_dir.as_deref(), Environment::of_process())?;
            let masters = source.load()?;
            Some((source, masters))
        }
    };
    let limit = descriptors::raise_limit();
    let runtime = Runtime::new().map_err(|error| Failure::runtime("cannot start the runtime", error))?;
    runtime.block_on(serve_all(args, &config, keys, limit, level))
}

async fn serve_all(
    args: &RunArgs,
    config: &Config,
    keys: Option<(KeySource, KeySchedule)>,
    limit: u64,
    level: Arc<LevelControl>,
) -> Result<(), Failure> {
    // First of all, so that a signal during the start ends it in an orderly way as well.
    let mut signals = Signals::listen().map_err(|error| Failure::runtime("cannot listen to signals", error))?;
    let mut predecessor = predecessor(args, config)?;
    let begun = begin(args, config, keys, limit, level, &mut predecessor).await;
    if let Some(predecessor) = predecessor {
        match &begun {
            Ok(_) => predecessor.served(),
            Err(failure) => predecessor.failed(&failure.to_string()),
        }
    }
    let serving = begun?;
    serving.succession.keep_socket();
    let count = config.listeners.len();
    supervisor::ready(&format!("guarding {count} listener{}", if count == 1 { "" } else { "s" }));
    serving.serve_out(&mut signals).await
}

/// Whom we are to take over from.
fn predecessor(args: &RunArgs, config: &Config) -> Result<Option<Predecessor>, Failure> {
    let Some(named) = &args.takeover else { return Ok(None) };
    let Some(stream) = control::running(named.0.as_deref(), &config.control)? else {
        tracing::info!("--takeover: no process runs there, so there is nothing to take over");
        return Ok(None);
    };
    let predecessor = Predecessor::ask(stream);
    let predecessor =
        predecessor.map_err(|why| Failure::Runtime(format!("--takeover: the process that runs: {why}")))?;
    tracing::info!("taking over from process {}", predecessor.pid());
    Ok(Some(predecessor))
}
