//! `portcullis run`: from the configuration to the end.

mod banner;
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
use std::sync::atomic::Ordering;

use exporter::{Build, Readiness, Reloads, Reporter, Source};
use portcullis::{KeySchedule, Listener};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::cli::RunArgs;
use crate::config::{Config, Datapath};
use crate::control::{self, ControlSocket, Share};
use crate::failure::Failure;
use crate::master_key::{Environment, KeySource, Named};
use crate::registry::Registry;
use crate::takeover::{Giving, Predecessor};
use crate::{read_config, rights};
use descriptors::Descriptors;
use end::{Serving, Succession};
use heritage::{Heritage, Program};
use keys::Keys;
use logging::LevelControl;
use operations::Running;
use reload::{Reached, Reloader};
use serve::Front;
use servers::{Admin, AdminSocket, Ctl};
use stop::{Signals, Stop};
use surroundings::Insight;

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

/// From nothing to a server that serves.
async fn begin(
    args: &RunArgs,
    config: &Config,
    keys: Option<(KeySource, KeySchedule)>,
    limit: u64,
    level: Arc<LevelControl>,
    predecessor: &mut Option<Predecessor>,
) -> Result<Serving, Failure> {
    let program = Program::of_process().map_err(|error| Failure::runtime("cannot find this program's file", error))?;
    let (readiness, reloads) = (Arc::new(Readiness::default()), Arc::new(Reloads::default()));
    preflight::check(config, predecessor.as_ref())?;
    check_lists(config)?;
    let left = predecessor.as_mut().and_then(Predecessor::control);
    let socket = control::take(&config.control, config.bpf_pins.is_some(), left)?;
    let registry = Registry::new(AccessLog::start(&config.access_log)?);
    let keys = keys.map(|(source, loaded)| match predecessor.as_mut().and_then(Predecessor::keys) {
        Some(left) => (source, keys::inherited(left, &loaded, keys::unix_seconds())),
        None => (source, loaded),
    });
    let masters = keys.as_ref().map(|(_, masters)| masters);
    let prepared = start::prepare_all(config, masters, limit, predecessor.as_mut()).await?;
    let admin = AdminSocket::take(config.admin, |addr| predecessor.as_mut()?.admin(addr))?;
    let share = socket.as_ref().map(ControlSocket::share).transpose();
    let share = share.map_err(|error| Failure::runtime("cannot copy a descriptor", error))?;
    // What stays open to the end is open by now; the rest of the descriptors is for connections.
    let descriptors = Descriptors::now(limit);
    let opened = config.listeners.iter().map(|of| reload::opened(config, of, &descriptors));
    let opened = opened.collect::<Result<Vec<_>, _>>()?;
    // All that can well fail has not. A predecessor stops now.
    let listeners = start::start_all(config, prepared, predecessor.as_mut())?;
    let sources: Vec<_> = config.listeners.iter().zip(&listeners).map(|(of, it)| it.source(&of.name)).collect();
    let insight = Insight::new(registry.clone(), level.clone());
    let reporter = Reporter::new(build(), sources.clone(), readiness.clone());
    let reporter = reporter.map_err(|error| Failure::Runtime(error.to_string()))?;
    let reporter = Arc::new(reporter.with_surroundings(insight.clone()));
    let mut admin = Admin::start(reporter.clone(), reloads.clone(), admin)?;
    let of_each = config.listeners.iter().zip(&listeners).zip(opened);
    let reached: Vec<_> =
        of_each.map(|((of, listener), opened)| Reached::begin(&of.name, listener.control(), opened)).collect();
    let stop = Stop::default();
    let controls: Vec<_> = listeners.iter().map(Listener::control).collect();
    let keys = keys.map(|(source, masters)| Arc::new(Keys::new(source, masters, controls.clone())));
    let served_by_name = reached.iter().map(|it| (it.name.clone(), it.served.clone())).collect();
    let fronts = fronts(&reached, &stop, &registry);
    let named = reached.iter().map(|of| (of.name.clone(), of.control.clone())).collect();
    let reloader = Reloader::new(args.clone(), config.clone(), reached, descriptors, reloads, level.clone());
    let (reloader, drain_asked) = (Arc::new(reloader), CancellationToken::new());
    insight.complete(served_by_name, keys.clone(), reloader.clone());
    let (taken, ctl_stop) = (CancellationToken::new(), CancellationToken::new());
    let giving = giving(named, &mut admin, share, keys, (&readiness, &taken, &stop));
    let path = socket.as_ref().map(|socket| socket.path().to_owned());
    let (leave, lost) = (socket.as_ref().map(ControlSocket::left), CancellationToken::new());
    let served = {
        let (leave, ctl_stop) = (leave.clone(), ctl_stop.clone());
        move || {
            leave.iter().for_each(|leave| leave.store(true, Ordering::Relaxed));
            ctl_stop.cancel();
        }
    };
    let heritage = Arc::new(Heritage::new(giving, program, path, served, lost.clone()));
    let running = Running::new(
        reporter,
        readiness.clone(),
        (registry.clone(), insight),
        level,
        (reloader.clone(), heritage.clone()),
        drain_asked.clone(),
    );
    let ctl = Ctl::start(socket, running, heritage, ctl_stop)?;
    let _watches = watch_all(sources);
    let banner = banner::lines(config, &listeners, admin.addr, ctl.path.as_deref());
    let fronts = run_all(fronts, listeners);
    readiness.set_ready(true);
    banner::show(&banner, config.log.format);
    let succession = Succession { taken, lost, socket: leave };
    Ok(Serving { reloader, readiness, registry, fronts, controls, admin, ctl, drain_asked, succession, stop, _watches })
}

/// What a successor gets, and what we do when it is on its way.
fn giving(
    listeners: Vec<(String, portcullis::Control)>,
    admin: &mut Admin,
    share: Option<Share>,
    keys: Option<Arc<Keys>>,
    (readiness, taken, stop): (&Arc<Readiness>, &CancellationToken, &Stop),
) -> Giving {
    let (readiness, taken, stop, admin_stop) = (readiness.clone(), taken.clone(), stop.clone(), admin.stop.clone());
    let keys = move || keys.as_ref().map(|keys| keys.masters());
    let ending = move || readiness.is_draining();
    Giving::new(listeners, (admin.share.take(), share), keys, ending, move |pid| {
        supervisor::succeeded_by(pid);
        // In this order: what ends because of the others has to know why.
        taken.cancel();
        stop.drain.cancel();
        admin_stop.cancel();
    })
}

/// Which program this is; `build.rs` has found out.
fn build() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("PORTCULLIS_COMMIT").to_owned(),
        target: env!("PORTCULLIS_TARGET").to_owned(),
        rustc: env!("PORTCULLIS_RUSTC").to_owned(),
    }
}

fn fronts(reached: &[Reached], stop: &Stop, registry: &Arc<Registry>) -> Vec<Front> {
    let front = |of: &Reached| Front::new(&of.name, of.served.clone(), stop.clone(), registry.door(&of.name));
    reached.iter().map(front).collect()
}

/// They end when the set is dropped.
fn watch_all(sources: Vec<Arc<dyn Source>>) -> JoinSet<()> {
    let mut watches: JoinSet<()> = sources.into_iter().map(shortage::watch).collect();
    watches.spawn(supervisor::watchdog());
    watches
}

fn run_all(fronts: Vec<Front>, listeners: Vec<Listener>) -> JoinSet<Result<(), Failure>> {
    fronts.into_iter().zip(listeners).map(|(front, listener)| front.run(listener)).collect()
}
