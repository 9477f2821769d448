//! `portcullis run`: from the configuration to the end.

mod banner;
mod descriptors;
mod keys;
mod limits;
mod logging;
mod operations;
mod preflight;
mod reload;
mod serve;
mod shortage;
mod sparse;
mod stop;
mod surroundings;
mod upstream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exporter::{AdminServer, Census, Exporter, Readiness, Reloads, Source};
use portcullis::{BuildError, Builder, Control, KeySchedule, ListenConfig, Listener};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::cli::RunArgs;
use crate::config::{Config, Datapath, ListenerConfig};
use crate::control::{self, ControlServer, ControlSocket};
use crate::failure::Failure;
use crate::master_key::{Environment, KeySource, Named};
use crate::registry::Registry;
use crate::{read_config, rights};
use descriptors::Descriptors;
use keys::Keys;
use logging::LevelControl;
use operations::Running;
use reload::{Reached, Reloader};
use serve::Front;
use stop::{FIN_GRACE, Signals, Stop};
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
    let (readiness, reloads) = (Arc::new(Readiness::default()), Arc::new(Reloads::default()));
    preflight::check(config)?;
    check_lists(config)?;
    let socket = control::take(&config.control, config.bpf_pins.is_some())?;
    let registry = Registry::new(AccessLog::start(&config.access_log)?);
    let listeners = start_all(config, keys.as_ref().map(|(_, masters)| masters), limit).await?;
    let sources: Vec<_> = config.listeners.iter().zip(&listeners).map(|(of, it)| it.source(&of.name)).collect();
    let (census, insight) = (Census::new(sources.clone()), Insight::new(registry.clone()));
    let admin = Admin::start(config, sources.clone(), readiness.clone(), reloads.clone(), &insight, &census).await?;
    // What stays open to the end is open by now; the rest of the descriptors is for connections.
    let descriptors = Descriptors::now(limit);
    let reached = reach_all(config, &listeners, &descriptors)?;
    let stop = Stop::default();
    let controls: Vec<_> = listeners.iter().map(Listener::control).collect();
    let keys = keys.map(|(source, masters)| Arc::new(Keys::new(source, masters, controls.clone())));
    insight.complete(reached.iter().map(|it| (it.name.clone(), it.served.clone())).collect(), keys);
    let fronts = fronts(&reached, &stop, &registry);
    let reloader = Reloader::new(args.clone(), config.clone(), reached, descriptors, reloads, level.clone());
    let (reloader, drain_asked) = (Arc::new(reloader), CancellationToken::new());
    let running = Running::new(
        (sources.clone(), census),
        readiness.clone(),
        (registry.clone(), insight),
        level,
        reloader.clone(),
        drain_asked.clone(),
    );
    let ctl = Ctl::start(socket, running)?;
    let _watches = watch_all(sources);
    let banner = banner::lines(config, &listeners, admin.addr, ctl.path.as_deref());
    let controls: Vec<_> = listeners.iter().map(Listener::control).collect();
    let mut running = run_all(fronts, listeners);
    readiness.set_ready(true);
    banner::show(&banner, config.log.format);

    let announce = || readiness.set_draining(true);
    let ended = until_stopped(&reloader, &mut signals, &drain_asked, &mut running, &stop, announce, || {
        controls.iter().for_each(Control::drain);
        if config.bpf_pins.is_some() {
            admin.stop.cancel(); // The next process may start now, and wants its port.
            ctl.stop.cancel();
        }
    })
    .await;
    admin.stop().await;
    ctl.stop().await;
    if let Some(log) = registry.log() {
        log.clone().finish(LOG_GRACE).await;
    }
    ended
}

/// From here on the addresses are guarded; what gets through its handshake waits in the accept queue.
async fn start_all(config: &Config, masters: Option<&KeySchedule>, limit: u64) -> Result<Vec<Listener>, Failure> {
    let mut listeners = Vec::new();
    for listener in &config.listeners {
        listeners.push(start(config, listener, masters.cloned(), limit).await?);
    }
    Ok(listeners)
}

/// Puts the configuration into force, where a reload will find it.
fn reach_all(config: &Config, listeners: &[Listener], descriptors: &Descriptors) -> Result<Vec<Reached>, Failure> {
    let of_each = config.listeners.iter().zip(listeners);
    of_each.map(|(of, listener)| Reached::begin(config, of, listener.control(), descriptors)).collect()
}

fn fronts(reached: &[Reached], stop: &Stop, registry: &Arc<Registry>) -> Vec<Front> {
    let front = |of: &Reached| Front::new(&of.name, of.served.clone(), stop.clone(), registry.door(&of.name));
    reached.iter().map(front).collect()
}

/// They end when the set is dropped.
fn watch_all(sources: Vec<Arc<dyn Source>>) -> JoinSet<()> {
    sources.into_iter().map(shortage::watch).collect()
}

fn run_all(fronts: Vec<Front>, listeners: Vec<Listener>) -> JoinSet<Result<(), Failure>> {
    fronts.into_iter().zip(listeners).map(|(front, listener)| front.run(listener)).collect()
}

/// Goes on serving new clients for a while, so that whoever sends them here has time to notice. A second signal, or the failure of a
/// listener, ends that.
async fn pre_stop(by: &str, pre_stop: Duration, signals: &mut Signals, stop: &Stop) {
    if pre_stop.is_zero() {
        return;
    }
    tracing::info!("{by}: not ready any more; new clients are served for {} s yet", pre_stop.as_secs());
    tokio::select! {
        () = tokio::time::sleep(pre_stop) => {}
        () = stop.failed.cancelled() => {}
        _ = signals.next(no_reload) => {}
    }
}

/// How long the end may wait for the access log.
const LOG_GRACE: Duration = Duration::from_secs(2);

/// Serves until the first signal, or somebody asks for the end, then takes the steps of the end.
async fn until_stopped(
    reloader: &Reloader,
    signals: &mut Signals,
    drain_asked: &CancellationToken,
    fronts: &mut JoinSet<Result<(), Failure>>,
    stop: &Stop,
    announce: impl FnOnce(),
    drain: impl FnOnce(),
) -> Result<(), Failure> {
    let mut ended = Ok(());
    tokio::select! {
        by = asked_to_end(reloader, signals, drain_asked) => {
            announce();
            pre_stop(by, reloader.config().pre_stop, signals, stop).await;
            tracing::info!(
                "{by}: no new connections; those open have {} s to finish, and end at once at a second signal",
                reloader.config().shutdown_deadline.as_secs()
            );
        }
        // Without a signal, a front ends only by failing. Clients wait for a restart: nobody is given time to finish.
        failed = fronts.join_next() => {
            ended = outcome(failed);
            stop.deadline.cancel();
        }
        () = stop.failed.cancelled() => stop.deadline.cancel(),
    }
    // In this order: a listener that ends before it was told to has failed.
    stop.drain.cancel();
    drain();
    tokio::select! {
        () = finish(fronts, &mut ended) => return ended,
        () = stop.deadline.cancelled() => {}
        () = stop.failed.cancelled() => {}
        () = tokio::time::sleep(reloader.config().shutdown_deadline) => tracing::info!("deadline: closing what is still open"),
        signal = signals.next(no_reload) => {
            tracing::info!("{signal} again: ending at once");
            stop.everything();
        }
    }
    stop.deadline.cancel();
    tokio::select! {
        () = finish(fronts, &mut ended) => return ended,
        () = tokio::time::sleep(FIN_GRACE) => tracing::info!("resetting what has not closed"),
        _ = signals.next(no_reload) => {}
    }
    stop.everything();
    finish(fronts, &mut ended).await;
    ended
}

/// By what the end was asked for.
async fn asked_to_end(reloader: &Reloader, signals: &mut Signals, drain_asked: &CancellationToken) -> &'static str {
    tokio::select! {
        signal = signals.next(|| drop(reloader.reload())) => signal,
        () = drain_asked.cancelled() => "ctl drain",
    }
}

/// At the end there is nothing left for a new configuration.
fn no_reload() {
    tracing::warn!("SIGHUP ignored: it is ending");
}

async fn finish(fronts: &mut JoinSet<Result<(), Failure>>, ended: &mut Result<(), Failure>) {
    while let Some(front) = fronts.join_next().await {
        let front = outcome(Some(front));
        if ended.is_ok() {
            *ended = front;
        }
    }
}

/// What a front's task came to. A panic is a failure, and no reason to leave the other fronts as they are.
fn outcome(joined: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Result<(), Failure> {
    match joined {
        None => Ok(()),
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Err(Failure::runtime("a listener failed", error)),
    }
}

async fn start(
    config: &Config,
    listener: &ListenerConfig,
    master: Option<KeySchedule>,
    limit: u64,
) -> Result<Listener, Failure> {
    let accept_queue = descriptors::accept_queue(listener.accept_queue, limit, config.listeners.len());
    let built = builder(config, listener, master).accept_queue(accept_queue).build().await;
    built.map_err(|error| {
        let message = format!("listener \"{}\": {error}", listener.name);
        match &error {
            BuildError::Rights(_) => Failure::Rights(message),
            BuildError::Kernel { addr, source } => rights::low_port(*addr, source).unwrap_or(Failure::Runtime(message)),
            _ => Failure::Runtime(message),
        }
    })
}

fn builder(config: &Config, listener: &ListenerConfig, master: Option<KeySchedule>) -> Builder {
    let mut builder = Listener::builder()
        .bind(&*listener.bind)
        .datapath(match config.datapath {
            Datapath::Auto => portcullis::Datapath::Auto,
            Datapath::Bpf => portcullis::Datapath::Bpf,
            Datapath::Raw => portcullis::Datapath::Raw,
            Datapath::Kernel => portcullis::Datapath::Kernel,
        })
        .bpf_hook(config.bpf_hook)
        .listen_config(listen_config(listener))
        .name(&listener.name)
        .fail_closed(listener.fail_closed);
    for name in &listener.interfaces {
        builder = builder.interface(name);
    }
    if let Some(dir) = &config.bpf_pins {
        builder = builder.bpf_pins(dir);
    }
    if let Some(workers) = config.workers {
        builder = builder.workers(workers);
    }
    if let Some(master) = master {
        builder = builder.master_key(master);
    }
    builder
}

fn listen_config(listener: &ListenerConfig) -> ListenConfig {
    ListenConfig {
        half_open_max: listener.half_open.max,
        high_watermark_percent: listener.half_open.high_percent,
        low_watermark_percent: listener.half_open.low_percent,
        prefix_share_percent: listener.half_open.prefix_share_percent,
        synack_retries: listener.half_open.synack_retries,
        replies_per_prefix: listener.replies_per_prefix,
        bad_cookies_per_prefix: listener.cookies.bad_per_prefix,
        accept_cookies: listener.cookies.accept,
        window_scale: listener.window_scale,
        ..ListenConfig::default()
    }
}

/// The admin server, if there is one. It answers to the end, so that the end can be watched.
struct Admin {
    addr: Option<std::net::SocketAddr>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Admin {
    async fn start(
        config: &Config,
        sources: Vec<Arc<dyn Source>>,
        readiness: Arc<Readiness>,
        reloads: Arc<Reloads>,
        insight: &Arc<Insight>,
        census: &Arc<Census>,
    ) -> Result<Admin, Failure> {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let Some(addr) = config.admin else { return Ok(Admin { addr: None, stop, tasks }) };
        let failed = |error: exporter::ExporterError| Failure::Runtime(error.to_string());
        let exporter =
            Exporter::new(env!("CARGO_PKG_VERSION"), sources, readiness).map_err(failed)?.with_reloads(reloads);
        let exporter = exporter.with_surroundings(insight.clone()).with_census(census.clone()).await;
        let server = AdminServer::bind(addr, exporter).await.map_err(failed)?;
        let addr = Some(server.local_addr());
        tasks.spawn(server.run(stop.clone().cancelled_owned()));
        Ok(Admin { addr, stop, tasks })
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The control server, if there is one. It answers to the end, as the admin server does.
struct Ctl {
    path: Option<PathBuf>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Ctl {
    fn start(socket: Option<ControlSocket>, running: Running) -> Result<Ctl, Failure> {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let Some(socket) = socket else { return Ok(Ctl { path: None, stop, tasks }) };
        let server = ControlServer::new(socket, Arc::new(running))
            .map_err(|error| Failure::runtime("cannot serve the control socket", error))?;
        let path = Some(server.path().to_owned());
        tasks.spawn(server.run(stop.clone()));
        Ok(Ctl { path, stop, tasks })
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
