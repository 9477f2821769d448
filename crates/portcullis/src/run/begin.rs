//! From a configuration to a server that serves: first all that can well fail, then what others wait for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use exporter::{Build, Readiness, Reloads, Reporter, Source};
use portcullis::{Control, KeySchedule, Listener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::descriptors::Descriptors;
use super::end::{Serving, Succession};
use super::heritage::{Heritage, Program};
use super::keys::{self, Keys};
use super::limits::check_lists;
use super::logging::LevelControl;
use super::operations::Running;
use super::reload::{self, Opened, Reached, Reloader};
use super::serve::Front;
use super::servers::{Admin, AdminSocket, Ctl};
use super::start::{self, Prepared};
use super::stop::Stop;
use super::surroundings::Insight;
use super::{banner, preflight, shortage, supervisor};
use crate::access_log::AccessLog;
use crate::cli::RunArgs;
use crate::config::Config;
use crate::control::{self, ControlSocket, Share};
use crate::failure::Failure;
use crate::master_key::KeySource;
use crate::registry::Registry;
use crate::takeover::{Giving, Predecessor};

/// From nothing to a server that serves.
///
/// # Errors
/// Whatever keeps it from starting. A predecessor goes on, unless it had stopped for us already.
pub async fn begin(
    args: &RunArgs,
    config: &Config,
    keys: Option<(KeySource, KeySchedule)>,
    limit: u64,
    level: Arc<LevelControl>,
    predecessor: &mut Option<Predecessor>,
) -> Result<Serving, Failure> {
    let ground = Ground::lay(config, keys, limit, predecessor).await?;
    // All that can well fail has not. A predecessor stops now.
    ground.serve(args, config, level, predecessor.as_mut())
}

/// What stands before the first packet of a predecessor's is ours.
struct Ground {
    program: Program,
    registry: Arc<Registry>,
    keys: Option<(KeySource, KeySchedule)>,
    prepared: Vec<Prepared>,
    opened: Vec<Opened>,
    descriptors: Descriptors,
    admin: Option<AdminSocket>,
    socket: Option<ControlSocket>,
    /// A second handle on `socket`, for a successor.
    share: Option<Share>,
}

impl Ground {
    async fn lay(
        config: &Config,
        keys: Option<(KeySource, KeySchedule)>,
        limit: u64,
        predecessor: &mut Option<Predecessor>,
    ) -> Result<Ground, Failure> {
        let program =
            Program::of_process().map_err(|error| Failure::runtime("cannot find this program's file", error))?;
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
        let opened = opened.collect::<Result<_, _>>()?;
        Ok(Ground { program, registry, keys, prepared, opened, descriptors, admin, socket, share })
    }

    fn serve(
        self,
        args: &RunArgs,
        config: &Config,
        level: Arc<LevelControl>,
        predecessor: Option<&mut Predecessor>,
    ) -> Result<Serving, Failure> {
        let Ground { program, registry, keys, prepared, opened, descriptors, admin, socket, share } = self;
        let listeners = start::start_all(config, prepared, predecessor)?;
        let controls: Vec<_> = listeners.iter().map(Listener::control).collect();
        let sources: Vec<_> = config.listeners.iter().zip(&listeners).map(|(of, it)| it.source(&of.name)).collect();
        let (readiness, reloads, stop) = (Arc::<Readiness>::default(), Arc::<Reloads>::default(), Stop::default());

        let insight = Insight::new(registry.clone(), level.clone());
        let reporter = reporter(sources.clone(), &readiness, &insight)?;
        let mut admin = Admin::start(reporter.clone(), reloads.clone(), admin)?;

        let keys = keys.map(|(source, masters)| Arc::new(Keys::new(source, masters, controls.clone())));
        let reached = reached(config, &controls, opened);
        let served = reached.iter().map(|it| (it.name.clone(), it.served.clone())).collect();
        let fronts = fronts(&reached, &stop, &registry);
        let reloader = Reloader::new(args.clone(), config.clone(), reached, descriptors, reloads, level.clone());
        let reloader = Arc::new(reloader);
        insight.complete(served, keys.clone(), reloader.clone());

        let left = Left { listeners: named(config, &controls), share, keys };
        let (heritage, succession, ctl_stop) =
            succession(left, program, socket.as_ref(), &mut admin, (&readiness, &stop));
        let drain_asked = CancellationToken::new();
        let running = Running::new(
            reporter,
            readiness.clone(),
            (registry.clone(), insight),
            level,
            (reloader.clone(), heritage.clone()),
            drain_asked.clone(),
        );
        let ctl = Ctl::start(socket, running, heritage, ctl_stop)?;

        let _watches = watch_all(sources, succession.taken.clone());
        let banner = banner::lines(config, &listeners, admin.addr, ctl.path.as_deref());
        let fronts = run_all(fronts, listeners);
        readiness.set_ready(true);
        banner::show(&banner, config.log.format);
        Ok(Serving {
            reloader,
            readiness,
            registry,
            fronts,
            controls,
            admin,
            ctl,
            drain_asked,
            succession,
            stop,
            _watches,
        })
    }
}

/// What a successor is given, besides the admin server's socket.
struct Left {
    listeners: Vec<(String, Control)>,
    share: Option<Share>,
    keys: Option<Arc<Keys>>,
}

/// Who may go on in our place and how; and what ends the control server when somebody does.
fn succession(
    left: Left,
    program: Program,
    socket: Option<&ControlSocket>,
    admin: &mut Admin,
    (readiness, stop): (&Arc<Readiness>, &Stop),
) -> (Arc<Heritage>, Succession, CancellationToken) {
    let (taken, lost, ctl_stop) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let giving = giving(left, admin, (readiness, &taken, stop));
    let path = socket.map(|socket| socket.path().to_owned());
    let leave = socket.map(ControlSocket::left);
    let served = {
        let (leave, ctl_stop) = (leave.clone(), ctl_stop.clone());
        move || {
            leave.iter().for_each(|leave| leave.store(true, Ordering::Relaxed));
            ctl_stop.cancel();
        }
    };
    let heritage = Heritage::new(giving, program, path, served, lost.clone());
    (Arc::new(heritage), Succession { taken, lost, socket: leave }, ctl_stop)
}

/// What a successor gets, and what we do when it is on its way.
fn giving(
    left: Left,
    admin: &mut Admin,
    (readiness, taken, stop): (&Arc<Readiness>, &CancellationToken, &Stop),
) -> Giving {
    let Left { listeners, share, keys } = left;
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

/// What tells of all this.
fn reporter(
    sources: Vec<Arc<dyn Source>>,
    readiness: &Arc<Readiness>,
    insight: &Arc<Insight>,
) -> Result<Arc<Reporter>, Failure> {
    let reporter = Reporter::new(build(), sources, readiness.clone());
    let reporter = reporter.map_err(|error| Failure::Runtime(error.to_string()))?;
    Ok(Arc::new(reporter.with_surroundings(insight.clone())))
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

fn reached(config: &Config, controls: &[Control], opened: Vec<Opened>) -> Vec<Reached> {
    let of_each = named(config, controls).into_iter().zip(opened);
    of_each.map(|((name, control), opened)| Reached::begin(&name, control, opened)).collect()
}

fn named(config: &Config, controls: &[Control]) -> Vec<(String, Control)> {
    config.listeners.iter().map(|listener| listener.name.clone()).zip(controls.iter().cloned()).collect()
}

fn fronts(reached: &[Reached], stop: &Stop, registry: &Arc<Registry>) -> Vec<Front> {
    let front = |of: &Reached| Front::new(&of.name, of.served.clone(), stop.clone(), registry.door(&of.name));
    reached.iter().map(front).collect()
}

/// They end when the set is dropped.
fn watch_all(sources: Vec<Arc<dyn Source>>, succeeded: CancellationToken) -> JoinSet<()> {
    let mut watches: JoinSet<()> = sources.into_iter().map(shortage::watch).collect();
    watches.spawn(supervisor::watchdog(succeeded));
    watches
}

fn run_all(fronts: Vec<Front>, listeners: Vec<Listener>) -> JoinSet<Result<(), Failure>> {
    fronts.into_iter().zip(listeners).map(|(front, listener)| front.run(listener)).collect()
}
