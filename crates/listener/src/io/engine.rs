//! The raw tier of one listener: its taps, its workers, and the reservation of its ports.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use super::bpf::Refresh;
use super::estate::{Bookmark, Estate, TapEstate};
use super::fail_closed::FailClosed;
use super::filter::{self, Share, segment_max};
use super::host::{Host, SharedInterfaces};
use super::interfaces::Watch;
use super::reserve::{Reserved, probe};
use super::ring::{Ring, Tap};
use super::sieve::Sieve;
use super::switches::{ModeSwitch, SwitchRecord};
use super::transmit::Transmit;
use super::worker::{Orders, Station, Taps, Worker, clock, epoch};
use crate::accepted::Establish;
use crate::config::{ConfigError, ListenConfig};
use crate::cookie::KeySchedule;
use crate::listen::{Listen, ListenShared, WorkerSeat};
use crate::pressure::{Mode, Watermarks};
use crate::sources::Sources;
use crate::stats::{SharedStats, Stats};

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What to guard, and how.
    pub listen: ListenConfig,
    /// Names of the interfaces to listen on. Empty, the default: all of them, those to come included.
    pub interfaces: Vec<String>,
    /// Threads. Default: one for each core this process may use, at most 64.
    pub workers: Option<NonZeroUsize>,
    /// Whether a crash leaves a rule behind that drops what would be refused (needs `nft`). Default: no.
    pub fail_closed: bool,
    /// The secrets of the cookies.
    pub master: KeySchedule,
    /// Whose SYNs are answered. Default: everybody's.
    pub sources: Sources,
    /// What log lines call this listener. Default: its addresses.
    pub name: Option<String>,
}

impl EngineConfig {
    /// Settings with the documented defaults.
    pub fn new(listen: ListenConfig, master: impl Into<KeySchedule>) -> EngineConfig {
        let master = master.into();
        let sources = Sources::default();
        EngineConfig { listen, interfaces: Vec::new(), workers: None, fail_closed: false, master, sources, name: None }
    }
}

/// Why an engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A setting out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No interface of that name.
    #[error("no interface {name:?} on this host (there are: {known})")]
    Interface {
        /// The name that was asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A guarded address could not be reserved.
    #[error("cannot guard {addr}: {source}{}", privileged_port_hint(*addr, source))]
    Reserve {
        /// The address.
        addr: SocketAddr,
        /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`...
        source: io::Error,
    },
    /// What is pinned could not be taken over, or nothing be pinned there.
    #[error("taking over what is pinned: {0}")]
    Pins(#[source] io::Error),
    /// A system call failed while `what`.
    #[error("{what}: {source}")]
    System {
        /// What it was for.
        what: &'static str,
        /// `PermissionDenied` where CAP_NET_RAW or CAP_NET_ADMIN is missing.
        source: io::Error,
    },
}

fn privileged_port_hint(addr: SocketAddr, source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied if addr.port() < 1024 => " (a port below 1024 needs CAP_NET_BIND_SERVICE)",
        _ => "",
    }
}

impl EngineError {
    /// Whether a right was missing.
    pub fn is_permission_denied(&self) -> bool {
        match self {
            EngineError::Reserve { source, .. } | EngineError::System { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            EngineError::Config(_) | EngineError::Interface { .. } | EngineError::Pins(_) => false,
        }
    }
}

/// A running raw tier. Dropping it stops the workers and gives the ports back.
#[derive(Debug)]
pub struct Engine {
    view: EngineView,
    orders: Arc<Orders>,
    wakes: Vec<UnixStream>,
    workers: Vec<Working>,
    links: Option<JoinHandle<()>>,
    /// What a successor would get.
    taps: Vec<[Tap; 2]>,
    // In this order: the ports last, so that the kernel never answers for a port before its rule is gone.
    fail_closed: Option<FailClosed>,
    reserved: Vec<(SocketAddr, Reserved)>,
}

/// A worker's thread.
#[derive(Debug)]
struct Working {
    thread: JoinHandle<()>,
    /// Where it stopped, told before it closes its sockets, which takes the kernel its time.
    stopped: Receiver<Bookmark>,
}

/// A raw tier that has all it needs, and judges no packet yet.
///
/// Its taps are shut, or still a predecessor's; its ports are reserved.
pub struct PreparedEngine<E> {
    engine: Engine,
    workers: Vec<Worker<E>>,
    sieve: Option<Sieve>,
    segment_max: u32,
    watch: Watch,
    interfaces: Arc<SharedInterfaces>,
    wants_fail_closed: bool,
    /// The taps are a predecessor's: without its word nobody knows where in the rings to begin.
    inherited: bool,
}

/// What is to be seen of an engine from outside. Cheap to clone; reading it costs packet workers nothing.
#[derive(Clone, Debug)]
pub struct EngineView {
    endpoints: Arc<[SocketAddr]>,
    shared: Arc<ListenShared>,
    stats: Arc<[Arc<SharedStats>]>,
    half_open_limit: u64,
    switches: Arc<SwitchRecord>,
    /// Where counts are published only now and then.
    refresh: Option<Arc<Refresh>>,
}

impl Engine {
    /// Starts guarding. `establish` makes the maker of connections for each worker, by its number.
    ///
    /// The taps are set up shut, then the ports are reserved, then the taps open: at no moment does the kernel refuse a
    /// client that we would have answered, or answer around us.
    ///
    /// # Errors
    /// [`EngineError`]; nothing is left behind.
    pub fn start<E: Establish>(
        config: EngineConfig,
        establish: impl FnMut(usize) -> io::Result<E>,
    ) -> Result<Engine, EngineError> {
        Engine::prepare(config, None, establish)?.start(&[])
    }

    /// Does all that may fail before the first packet is judged. With the estate of a predecessor, which goes on working meanwhile, its
    /// ports and its taps are taken, and with them its number of workers; addresses that it did not guard are reserved.
    ///
    /// # Errors
    /// [`EngineError`]; nothing is left behind, and a predecessor is as it was.
    pub fn prepare<E: Establish>(
        config: EngineConfig,
        left: Option<Estate>,
        mut establish: impl FnMut(usize) -> io::Result<E>,
    ) -> Result<PreparedEngine<E>, EngineError> {
        config.listen.validate()?;
        let interfaces = Arc::new(SharedInterfaces::read().map_err(system("reading the interfaces"))?);
        check_names(&config.interfaces, &interfaces)?;
        let watch = Watch::open().map_err(system("watching the interfaces"))?;

        let Estate { reserved: left, taps } = left.unwrap_or_default();
        let inherited = !taps.is_empty();
        let taps = match taps.len() {
            0 => open_taps(worker_count(&config)).map_err(system("opening a packet socket"))?,
            _ => inherit_taps(taps).map_err(system("taking over a packet socket"))?,
        };
        let workers = taps.len();
        let reserved = reserve(&config.listen.bind, left)?;
        let (now, epoch) = (clock(), epoch());
        let segment_max = segment_max(interfaces.get().largest_mtu());
        let sieve = load_sieve(&config.listen.bind);
        let shared = Arc::new(ListenShared::new(&config.listen, now));
        let name: Arc<str> = config.name.clone().unwrap_or_else(|| names(&config.listen.bind)).into();
        let orders = Arc::new(Orders::default());
        let mut engine = Engine {
            view: EngineView::new(
                &config.listen.bind,
                shared.clone(),
                (0..workers).map(|_| Arc::new(SharedStats::default())).collect(),
                config.listen.half_open_max as u64,
            ),
            orders: orders.clone(),
            wakes: Vec::new(),
            workers: Vec::new(),
            links: None,
            taps: taps.iter().map(|taps| [taps.syns.tap(), taps.others.tap()]).collect(),
            fail_closed: None,
            reserved,
        };
        let mut prepared = Vec::new();
        for (index, taps) in taps.into_iter().enumerate() {
            let seat = WorkerSeat { workers, seed: fresh_seed().map_err(system("drawing randomness"))? };
            let mut listen =
                Listen::new(config.listen.clone(), shared.clone(), config.master.clone(), seat, epoch, now);
            listen.set_sources(config.sources.clone());
            let settled = sieve.as_ref().map(Sieve::settled).transpose().map_err(system("opening an eBPF map"))?;
            let host = Host::new(interfaces.clone(), config.interfaces.clone(), settled);
            let (wake, woken) = wake_pair()?;
            engine.wakes.push(wake);
            prepared.push(Worker {
                station: Station {
                    listen,
                    taps,
                    host: host.map_err(system("opening sock_diag"))?,
                    transmit: Transmit::new().map_err(system("opening a raw socket"))?,
                    pending: Default::default(),
                    now,
                    abstains_until: now,
                },
                establish: establish(index).map_err(system("preparing to adopt connections"))?,
                orders: orders.clone(),
                keys_seen: 0,
                sources_seen: 0,
                switches: engine.view.switches.clone(),
                wake: woken,
                published: engine.view.stats[index].clone(),
                leads: index == 0,
                name: name.clone(),
            });
        }
        let wants_fail_closed = config.fail_closed;
        Ok(PreparedEngine {
            engine,
            workers: prepared,
            sieve,
            segment_max,
            watch,
            interfaces,
            wants_fail_closed,
            inherited,
        })
    }

    /// What a successor needs to [`prepare`](Engine::prepare). Nothing changes here.
    ///
    /// # Errors
    /// Of dup(2).
    pub fn estate(&self) -> io::Result<Estate> {
        let reserved = self.reserved.iter().map(|(addr, reserved)| Ok((*addr, reserved.estate()?)));
        let taps = self.taps.iter().map(|[syns, others]| Ok([syns.estate()?, others.estate()?]));
        Ok(Estate { reserved: reserved.collect::<io::Result<_>>()?, taps: taps.collect::<io::Result<_>>()? })
    }

    /// Stops the workers, in the middle of whatever comes, and says where: there a successor goes on. Its are the ports, and the
    /// fail-closed rule. What is left here is best dropped when it does.
    ///
    /// # Errors
    /// When a worker has panicked: where it was, nobody knows.
    pub fn hand_over(&mut self) -> io::Result<Vec<Bookmark>> {
        self.orders.stop.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(rule) = self.fail_closed.take() {
            rule.leave();
        }
        let bookmarks = self.workers.iter().map(|worker| worker.stopped.recv());
        bookmarks.collect::<Result<_, _>>().map_err(|_| io::Error::other("a packet worker has died"))
    }

    /// What is to be seen from outside.
    pub fn view(&self) -> EngineView {
        self.view.clone()
    }

    /// Stops answering SYNs. Handshakes that were answered already may still complete; connections go on.
    pub fn drain(&self) {
        self.orders.drain.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// From now on these master keys, in every worker within a second: see [`Listen::set_masters`].
    pub fn set_masters(&self, masters: KeySchedule) {
        self.orders.keys.tell(masters);
        self.wake();
    }

    /// From now on these lists, in every worker within a second: see [`Listen::set_sources`].
    pub fn set_sources(&self, sources: Sources) {
        self.orders.sources.tell(sources);
        self.wake();
    }

    /// Stops the workers, waits for them, then gives the ports back: from then on the kernel refuses clients.
    pub fn stop(self) {
        drop(self);
    }

    /// A thread that reads the interfaces again whenever the kernel says that something changed.
    fn watch(&mut self, mut watch: Watch, interfaces: Arc<SharedInterfaces>) -> Result<(), EngineError> {
        let (wake, woken) = wake_pair()?;
        let orders = self.orders.clone();
        let thread = spawn("portcullis-links", move || {
            use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
            use std::os::fd::AsFd;
            let mut stale = false;
            while !orders.stop.load(Ordering::Relaxed) {
                let mut fds =
                    [PollFd::new(watch.as_fd(), PollFlags::POLLIN), PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, if stale { PollTimeout::from(1000u16) } else { PollTimeout::NONE });
                let told = fds[1].any().unwrap_or(false);
                if watch.changed() || stale {
                    let refreshed = interfaces.refresh();
                    if let (Err(error), false) = (&refreshed, stale) {
                        tracing::warn!(%error, "could not read the interfaces; trying again each second");
                    }
                    stale = refreshed.is_err();
                }
                if told && !orders.stop.load(Ordering::Relaxed) {
                    let _ = io::Read::read(&mut &woken, &mut [0; 16]);
                }
            }
        });
        self.wakes.push(wake);
        self.links = Some(thread.map_err(system("starting a thread"))?);
        Ok(())
    }

    fn wake(&self) {
        for wake in &self.wakes {
            // A full pipe means the thread has been told already.
            let _ = (&*wake).write(&[1]);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Relaxed);
        self.wake();
        let workers = self.workers.drain(..).map(|worker| worker.thread.join().is_ok());
        let links = self.links.take().map(|links| links.join().is_ok());
        if workers.chain(links).any(|well| !well) {
            tracing::error!("a worker had panicked");
        }
        self.fail_closed = None;
        self.reserved.clear();
    }
}

impl<E: Establish> PreparedEngine<E> {
    /// Starts guarding: anew, or, with what [`hand_over`](Engine::hand_over) said, where a predecessor stopped.
    ///
    /// # Errors
    /// [`EngineError`]: of the fail-closed rule and of setfilter, which a predecessor had; of threads.
    pub fn start(self, bookmarks: &[Bookmark]) -> Result<Engine, EngineError> {
        let PreparedEngine {
            mut engine,
            mut workers,
            mut sieve,
            segment_max,
            watch,
            interfaces,
            wants_fail_closed,
            inherited,
        } = self;
        if inherited && bookmarks.len() != workers.len() {
            let error = io::Error::other(format!("{} workers, and {} bookmarks", workers.len(), bookmarks.len()));
            return Err(system("going on where a predecessor stopped")(error));
        }
        let bind = engine.view.endpoints();
        // Which takes its time: a predecessor's rule stands, if it had one, and its clients wait.
        if !inherited {
            engine.fail_closed = fail_closed(&bind, wants_fail_closed)?;
        }
        for (worker, bookmark) in workers.iter_mut().zip(bookmarks) {
            worker.station.begin_at(bookmark);
        }
        for (index, mut worker) in workers.into_iter().enumerate() {
            for tap in [&worker.station.taps.others, &worker.station.taps.syns] {
                let opened = match &mut sieve {
                    Some(sieve) => tap.open_with(sieve),
                    None => tap.open_for(&bind, segment_max),
                };
                opened.map_err(system("attaching the tap's filter"))?;
            }
            let (tell, stopped) = mpsc::channel();
            let thread = spawn(&format!("portcullis-{index}"), move || {
                // If nobody wants to know, it was not stopped for a successor.
                let _ = tell.send(worker.run());
            });
            engine.workers.push(Working { thread: thread.map_err(system("starting a thread"))?, stopped });
        }
        engine.watch(watch, interfaces)?;
        if inherited {
            engine.fail_closed = fail_closed(&bind, wants_fail_closed)?;
        }
        Ok(engine)
    }

    /// The engine that this becomes, from outside.
    pub fn view(&self) -> EngineView {
        self.engine.view()
    }
}

impl EngineView {
    pub(super) fn new(
        bind: &[SocketAddr],
        shared: Arc<ListenShared>,
        stats: Arc<[Arc<SharedStats>]>,
        half_open_limit: u64,
    ) -> EngineView {
        let switches = Arc::default();
        EngineView { endpoints: bind.into(), shared, stats, half_open_limit, switches, refresh: None }
    }

    pub(super) fn refreshed_by(self, refresh: Arc<Refresh>) -> EngineView {
        EngineView { refresh: Some(refresh), ..self }
    }

    /// The guarded addresses.
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.endpoints.to_vec()
    }

    /// The counts of all workers added up, and with them everything else here, as of now.
    ///
    /// In the bpf tier this wakes a thread and waits for it: some ten microseconds, 100 ms at the most.
    pub fn stats(&self) -> Stats {
        self.refresh.iter().for_each(|refresh| refresh.refresh());
        let mut sum = Stats::default();
        for worker in self.stats.iter() {
            sum.merge(&worker.read());
        }
        sum
    }

    /// Connections in SYN-RECEIVED that have an entry.
    pub fn half_open(&self) -> u64 {
        self.shared.half_open()
    }

    /// The bound of [`half_open`](EngineView::half_open).
    pub fn half_open_limit(&self) -> u64 {
        self.half_open_limit
    }

    /// Where the mode turns, in half-open entries.
    pub fn watermarks(&self) -> Watermarks {
        self.shared.watermarks()
    }

    /// The last switches of the mode, at most 16, the oldest first.
    pub fn switches(&self) -> Vec<ModeSwitch> {
        self.switches.read()
    }

    /// What writes [`switches`](EngineView::switches).
    pub(super) fn switch_record(&self) -> Arc<SwitchRecord> {
        self.switches.clone()
    }

    /// Whether SYNs are answered by cookie alone now.
    pub fn cookies_mode(&self) -> bool {
        self.shared.mode() == Mode::Cookies
    }
}

fn worker_count(config: &EngineConfig) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    config.workers.map_or_else(cores, NonZeroUsize::get).min(64).min(config.listen.half_open_max)
}

/// The taps of each worker, shut: one group, so that a packet meets one of them and not two.
fn open_taps(workers: usize) -> io::Result<Vec<Taps>> {
    let rings = |share: Share| (0..workers).map(move |_| Ring::new(share));
    let mut syns = rings(Share::Syns).chain(rings(Share::Others)).collect::<io::Result<Vec<Ring>>>()?;
    let [first, rest @ ..] = &syns[..] else { return Ok(Vec::new()) };
    let group = first.found_group()?;
    rest.iter().try_for_each(|ring| ring.join_group(group))?;
    let secrets = [getrandom::u32(), getrandom::u32()];
    let [factor, last_factor] = secrets.map(|secret| secret.map_err(io::Error::other));
    first.share_out(&filter::share_out(workers as u32, [factor?, last_factor?]))?;
    let others = syns.split_off(workers);
    Ok(syns.into_iter().zip(others).map(|(syns, others)| Taps { syns, others }).collect())
}

/// A predecessor's taps, group and all.
fn inherit_taps(left: Vec<[TapEstate; 2]>) -> io::Result<Vec<Taps>> {
    let inherit = |[syns, others]: [TapEstate; 2]| {
        Ok(Taps { syns: Ring::inherit(syns, Share::Syns)?, others: Ring::inherit(others, Share::Others)? })
    };
    left.into_iter().map(inherit).collect()
}

/// The ports of these addresses, those that a predecessor left among them.
fn reserve(
    bind: &[SocketAddr],
    mut left: Vec<(SocketAddr, OwnedFd)>,
) -> Result<Vec<(SocketAddr, Reserved)>, EngineError> {
    let reserve = |&addr: &SocketAddr| match left.iter().position(|(its, _)| *its == addr) {
        Some(index) => Ok((addr, Reserved::inherit(left.swap_remove(index).1))),
        None => {
            Reserved::new(addr).map(|reserved| (addr, reserved)).map_err(|source| EngineError::Reserve { addr, source })
        }
    };
    bind.iter().map(reserve).collect()
}

/// The rule of these ports, which must be reserved; or none, and none of an earlier run.
pub(super) fn fail_closed(bind: &[SocketAddr], wanted: bool) -> Result<Option<FailClosed>, EngineError> {
    if !wanted {
        FailClosed::clear_leftover(bind);
    }
    wanted.then(|| FailClosed::install(bind)).transpose().map_err(system("setting the fail-closed rule"))
}

/// The filter that spares established connections the tap, where the kernel lets us.
fn load_sieve(bind: &[SocketAddr]) -> Option<Sieve> {
    Sieve::load(bind)
        .inspect_err(|error| {
            tracing::info!(%error, "no eBPF (CAP_BPF?): the tap judges by flags and size, which costs connections more");
        })
        .ok()
}

/// Whether these addresses could be guarded at this moment. No client notices the question.
///
/// For a program that guards several: better to know before the first of them has answered a client.
///
/// # Errors
/// [`EngineError::Reserve`] for the first that could not.
pub fn check_reservable(bind: &[SocketAddr]) -> Result<(), EngineError> {
    bind.iter().try_for_each(|&addr| probe(addr).map_err(|source| EngineError::Reserve { addr, source }))
}

pub(super) fn check_names(wanted: &[String], interfaces: &SharedInterfaces) -> Result<(), EngineError> {
    let interfaces = interfaces.get();
    match wanted.iter().find(|name| interfaces.by_name(name).is_none()) {
        None => Ok(()),
        Some(name) => {
            let known: Vec<&str> = interfaces.links().map(|link| link.name.as_str()).collect();
            Err(EngineError::Interface { name: name.clone(), known: known.join(", ") })
        }
    }
}

pub(super) fn names(bind: &[SocketAddr]) -> String {
    bind.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

pub(super) fn fresh_seed() -> io::Result<[u8; 16]> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(seed)
}

/// What wakes a thread, and what that thread reads. Waking never blocks: who has not read yet has been woken already.
pub(super) fn wake_pair() -> Result<(UnixStream, UnixStream), EngineError> {
    let made = UnixStream::pair().and_then(|(wake, woken)| wake.set_nonblocking(true).map(|()| (wake, woken)));
    made.map_err(system("making a socket pair"))
}

pub(super) fn spawn<R: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> R + Send + 'static,
) -> io::Result<JoinHandle<R>> {
    thread::Builder::new().name(name.into()).spawn(body)
}

pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> EngineError {
    move |source| EngineError::System { what, source }
}
