//! The fast door of one listener: its programs, and the thread that keeps them.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::attach::{Attached, BpfHook, load_needed};
use super::keeper::{Duties, Keeper, Orders, Remains};
use super::layout::{Clockwork, Grants, ListenerWords, State};
use super::lists::{ListsInForce, PreparedLists};
use super::pins::Pins;
use super::programs::{Constants, Programs};
use super::refresh::Refresh;
use super::rights;
use super::settings::{Settings, ns_per_jiffy};
use super::targets::{Placement, random_factors, targets_of};
use crate::config::{AcceptCookies, ListenConfig};
use crate::cookie::{COOKIE_LIFETIME, KeySchedule, MasterKey};
use crate::io::engine::{EngineError, EngineView, fail_closed, fresh_seed, names, spawn, system, wake_pair};
use crate::io::estate::{Bookmark, BpfEstate};
use crate::io::fail_closed::FailClosed;
use crate::io::host::{Host, SharedInterfaces};
use crate::io::interfaces::Watch;
use crate::io::sieve::in_full;
use crate::io::transmit::Transmit;
use crate::io::worker::{clock, epoch};
use crate::listen::{Listen, ListenShared, WorkerSeat};
use crate::sources::Sources;
use crate::stats::SharedStats;

/// How long the keeper may take to put the programs' places into a directory: some microseconds each.
const LENDING: Duration = Duration::from_secs(5);

/// Settings of a fast door.
#[derive(Clone, Debug)]
pub struct BpfConfig {
    /// What to guard, and how.
    pub listen: ListenConfig,
    /// Names of the interfaces to guard. Empty, the default: all of them, those to come included.
    pub interfaces: Vec<String>,
    /// Where SYNs are answered.
    pub hook: BpfHook,
    /// Whether a crash leaves a rule behind that drops what would be refused (needs `nft`). Default: no.
    pub fail_closed: bool,
    /// A directory on a bpffs in which the programs' places are pinned, so that they outlive the process. Default: none.
    pub pins: Option<PathBuf>,
    /// The secrets of the cookies.
    pub master: KeySchedule,
    /// Whose SYNs are answered: everybody's by [`Default`].
    pub sources: Sources,
    /// What log lines call this listener. Default: its addresses.
    pub name: Option<String>,
}

/// A fast door. Dropping it takes the programs away, unless they are pinned.
#[derive(Debug)]
pub struct BpfEngine {
    view: EngineView,
    orders: Arc<Orders>,
    wake: UnixStream,
    lists: Arc<ListsInForce>,
    thread: Option<JoinHandle<Remains>>,
    fail_closed: Option<FailClosed>,
    bind: Vec<SocketAddr>,
    wants_fail_closed: bool,
    outlives: bool,
}

/// A fast door whose programs are loaded, and attached nowhere.
pub struct PreparedBpf {
    duties: Duties,
    /// The ring of reports is to take the place of a predecessor's.
    replaces_reports: bool,
    engine: BpfEngine,
}

/// Lists that are ready to be [put into force](BpfEngine::set_sources).
#[derive(Debug)]
#[must_use = "nothing is in force yet"]
pub struct PreparedSources {
    sources: Sources,
    lists: PreparedLists,
}

/// What keeps the programs of a fast door that was handed over where they are. To be dropped when the successor has put its own there.
#[must_use = "dropped, it takes the programs away that no successor has replaced"]
pub struct BpfRemains {
    attached: Attached,
}

impl BpfRemains {
    /// Where another successor finds the places, if the first one has failed.
    ///
    /// # Errors
    /// As [`BpfEngine::estate`].
    pub fn estate(&mut self) -> io::Result<BpfEstate> {
        self.attached.lend()
    }
}

impl std::fmt::Debug for BpfRemains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BpfRemains").finish_non_exhaustive()
    }
}

impl BpfEngine {
    /// Brings the programs to the interfaces. They answer nothing yet, and let nothing through to the guarded addresses, until
    /// the kernel's listening sockets stand and [`open`](BpfEngine::open) is called. `token` lives as long as the thread that
    /// keeps the programs, and is dropped while it panics, should it.
    ///
    /// # Errors
    /// [`EngineError`]: `Unsupported` inside it where the kernel cannot do this, and the message says what it lacks;
    /// `PermissionDenied` without CAP_BPF, CAP_PERFMON or CAP_NET_ADMIN.
    pub fn start(config: BpfConfig, token: impl Send + 'static) -> Result<BpfEngine, EngineError> {
        BpfEngine::prepare(config, None)?.start(&[], token)
    }

    /// Whether this kernel lets this process do all that: the programs are loaded, which takes it part of a second, and nothing is attached.
    ///
    /// # Errors
    /// As [`start`](BpfEngine::start).
    pub fn check() -> Result<(), EngineError> {
        let prepared = BpfEngine::prepare(
            BpfConfig {
                listen: ListenConfig { bind: vec![SocketAddr::from(([127, 0, 0, 1], 1))], ..ListenConfig::default() },
                interfaces: Vec::new(),
                hook: BpfHook::Auto,
                fail_closed: false,
                pins: None,
                master: MasterKey::from_bytes([0; 32]).into(),
                sources: Sources::default(),
                name: None,
            },
            None,
        );
        prepared?.duties.programs.load_all().map_err(rights::in_words).map_err(system("loading the eBPF programs"))
    }

    /// Does nearly all that may fail before a packet meets the programs. With the estate of a predecessor, which goes on working
    /// meanwhile, they are going to be put into its programs' places, and answer at once: its listening sockets must stand.
    ///
    /// # Errors
    /// As [`start`](BpfEngine::start).
    pub fn prepare(config: BpfConfig, left: Option<BpfEstate>) -> Result<PreparedBpf, EngineError> {
        config.listen.validate()?;
        rights::check().map_err(system("preparing eBPF"))?;
        let settings = Settings::read().map_err(system("reading the kernel's settings"))?;
        if !settings.takes_cookies {
            let error = io::Error::new(io::ErrorKind::Unsupported, "net.ipv4.tcp_syncookies is 0; it must be 1 or 2");
            return Err(system("preparing eBPF")(error));
        }
        let interfaces = Arc::new(SharedInterfaces::read().map_err(system("reading the interfaces"))?);
        crate::io::engine::check_names(&config.interfaces, &interfaces)?;
        let watch = Watch::open().map_err(system("watching the interfaces"))?;

        let snapshot = interfaces.get();
        let count = targets_of(&config.listen.bind, &snapshot, 0).len();
        let placement = Placement::for_count(count).map_err(system("drawing randomness"))?;
        let constants = Constants {
            target_bits: placement.bits,
            target_factors: placement.factors,
            budget_factors: random_factors().map_err(system("drawing randomness"))?,
            ns_per_jiffy: ns_per_jiffy().map_err(system("reading the clock's resolution"))?,
        };
        let name: Arc<str> = config.name.unwrap_or_else(|| names(&config.listen.bind)).into();
        Pins::sweep();
        let takes_over = left.is_some();
        let Places { passing, pins, replaces_reports } =
            Places::of(left, config.pins.as_deref(), &name).map_err(EngineError::Pins)?;
        let reports = pins.as_ref().map(|pins| if replaces_reports { pins.reports_to_come() } else { pins.reports() });
        let load = || {
            let mut programs = Programs::load(&constants, reports.as_deref())?;
            load_needed(&mut programs, &snapshot, &config.interfaces, config.hook)?;
            Ok(programs)
        };
        let mut programs = load().map_err(rights::in_words).map_err(system("loading the eBPF programs"))?;
        // Our clock first, and a jiffy has begun already when it is read: so the programs' time never runs ahead of ours.
        let before = clock().as_nanos();
        let jiffies = programs.jiffies().map_err(system("reading the kernel's clock"))?;
        let offset_ns = before.wrapping_sub((jiffies + 1).wrapping_mul(constants.ns_per_jiffy));
        let (now, epoch) = (clock(), epoch());
        // A predecessor's cookies may be out for as long as one lives.
        let form_b_until = (now + COOKIE_LIFETIME).as_nanos();
        programs.form_b_until.set(0, form_b_until, 0).map_err(in_full).map_err(system("filling the eBPF maps"))?;
        let lists = programs.lists.clone();
        if config.sources != Sources::default() {
            let prepared = PreparedLists::new(&config.sources);
            prepared.and_then(|prepared| lists.put(&prepared)).map_err(system("filling the eBPF maps"))?;
        }
        let shared = Arc::new(ListenShared::new(&config.listen, now));
        let seat = WorkerSeat { workers: 1, seed: fresh_seed().map_err(system("drawing randomness"))? };
        let mut listen = Listen::new(config.listen.clone(), shared.clone(), config.master, seat, epoch, now);
        listen.set_sources(config.sources);
        let host = Host::new(interfaces.clone(), config.interfaces.clone(), None);
        let (wake, woken) = wake_pair()?;
        let published = Arc::new(SharedStats::default());
        let orders = Arc::new(Orders::default());
        let bind = config.listen.bind.clone();
        let refresh = Arc::new(Refresh::new(&wake).map_err(system("copying a descriptor"))?);
        let view = EngineView::new(&bind, shared, Arc::new([published.clone()]), config.listen.half_open_max as u64)
            .refreshed_by(refresh.clone());
        let outlives = pins.is_some();
        let inherited = pins.as_ref().is_some_and(Pins::inherited);
        let duties = Duties {
            refresh: refresh.promise(),
            programs,
            attached: Attached::new(passing, pins),
            placement,
            at_first: match (takes_over, inherited) {
                (true, _) => State::Answers,
                // What a predecessor's programs answered goes on being answered.
                (false, true) => State::HandsOn,
                (false, false) => State::Silent,
            },
            words: ListenerWords { outlives, ..words(&config.listen, settings.grants) },
            clockwork: Clockwork { offset_ns, ..Clockwork::default() },
            listen,
            host: host.map_err(system("opening sock_diag"))?,
            transmit: Transmit::new().map_err(system("opening a raw socket"))?,
            interfaces,
            watch,
            only: config.interfaces,
            hook: config.hook,
            bind: config.listen.bind,
            orders: orders.clone(),
            switches: view.switch_record(),
            woken,
            published,
            name,
        };
        let engine = BpfEngine {
            view,
            orders,
            wake,
            lists,
            thread: None,
            fail_closed: None,
            bind,
            wants_fail_closed: config.fail_closed,
            outlives,
        };
        Ok(PreparedBpf { duties, replaces_reports, engine })
    }

    /// What a successor needs to [`prepare`](BpfEngine::prepare): where it finds the places of the programs. Unless they are pinned, that
    /// is a directory for them to pass through.
    ///
    /// # Errors
    /// Where no bpffs is to be found; of bpf(2); when the keeper has died.
    pub fn estate(&self) -> io::Result<BpfEstate> {
        let dead = |_| io::Error::other("the keeper of the eBPF programs has died");
        let (answer, lent) = mpsc::channel();
        *self.orders.lend.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.wake();
        lent.recv_timeout(LENDING).map_err(dead)?
    }

    /// The successor that asked for the [`estate`](BpfEngine::estate) has given up: nothing stays that was made for it.
    pub fn take_back(&self) {
        self.orders.take_back.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Lets go, once a successor is prepared and before it starts: the programs, which answer on, and the fail-closed rule are its.
    ///
    /// # Errors
    /// When the keeper has panicked.
    pub fn hand_over(mut self) -> io::Result<(Bookmark, BpfRemains)> {
        self.orders.leave.store(true, Ordering::Relaxed);
        self.orders.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(rule) = self.fail_closed.take() {
            rule.leave();
        }
        let remains = self.thread.take().and_then(|thread| thread.join().ok());
        let Remains { attached, bookmark } =
            remains.ok_or_else(|| io::Error::other("the keeper of the eBPF programs has died"))?;
        Ok((bookmark, BpfRemains { attached }))
    }

    /// The kernel's listening sockets stand: from now on SYNs are answered.
    ///
    /// # Errors
    /// Of `nft`, with `fail_closed`.
    pub fn open(&mut self) -> Result<(), EngineError> {
        self.fail_closed = fail_closed(&self.bind, self.wants_fail_closed)?;
        self.orders.open.store(true, Ordering::Release);
        self.wake();
        Ok(())
    }

    /// What is to be seen from outside.
    pub fn view(&self) -> EngineView {
        self.view.clone()
    }

    /// Stops answering SYNs. Handshakes that were answered already may still complete; connections go on.
    ///
    /// Pinned programs go on answering instead, and keep the ends of handshakes back for the next process, also once this is
    /// dropped. Dropped without having been told to drain, it takes even them away.
    pub fn drain(&self) {
        self.orders.drain.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// From now on these master keys, within a second: see [`Listen::set_masters`].
    pub fn set_masters(&self, masters: KeySchedule) {
        self.orders.keys.tell(masters);
        self.wake();
    }

    /// From now on these lists: all of them, or, if this fails, those of before. Returns when no SYN is judged by the old ones any more, some
    /// milliseconds later.
    ///
    /// # Errors
    /// Of bpf(2), where nothing is known that could be wrong.
    pub fn set_sources(&self, prepared: PreparedSources) -> io::Result<()> {
        let PreparedSources { sources, lists } = prepared;
        self.lists.put(&lists)?;
        self.orders.sources.tell(sources);
        self.wake();
        Ok(())
    }

    /// Whether the programs are pinned.
    pub fn outlives(&self) -> bool {
        self.outlives
    }

    /// Whether, after a [`drain`](BpfEngine::drain), no handshake ends here any more because all are the next process's.
    pub fn hands_on(&self) -> bool {
        self.outlives && self.orders.drains.load(Ordering::Acquire)
    }

    fn wake(&self) {
        // A full pipe means the thread has been told already.
        let _ = (&self.wake).write(&[1]);
    }
}

impl PreparedSources {
    /// Does all that may fail before other lists are in force: they are written into the kernel's memory, which takes about a microsecond for
    /// each prefix.
    ///
    /// # Errors
    /// Of bpf(2): no memory.
    pub fn new(sources: Sources) -> io::Result<PreparedSources> {
        Ok(PreparedSources { lists: PreparedLists::new(&sources)?, sources })
    }
}

impl PreparedBpf {
    /// Brings the programs to the interfaces, with the half-open entries of a predecessor, if it had any: see
    /// [`start`](BpfEngine::start) of the engine.
    ///
    /// # Errors
    /// [`EngineError`]: a device that takes no program, a thread that cannot be started.
    pub fn start(self, bookmarks: &[Bookmark], token: impl Send + 'static) -> Result<BpfEngine, EngineError> {
        let PreparedBpf { mut duties, replaces_reports, mut engine } = self;
        bookmarks.iter().for_each(|bookmark| duties.listen.take_entries(&bookmark.entries));
        if replaces_reports {
            duties.attached.reports_came().map_err(EngineError::Pins)?;
        }
        let keeper = Keeper::new(duties).map_err(system("attaching the eBPF programs"))?;
        let thread = spawn("portcullis-bpf", move || {
            let _token = token; // First, so that it is dropped last.
            keeper.run()
        });
        engine.thread = Some(thread.map_err(system("starting a thread"))?);
        Ok(engine)
    }
}

/// Where programs are to find their places.
struct Places {
    passing: Option<Pins>,
    pins: Option<Pins>,
    /// What is pinned is a living predecessor's, the ring of reports among it.
    replaces_reports: bool,
}

impl Places {
    fn of(left: Option<BpfEstate>, root: Option<&Path>, name: &str) -> io::Result<Places> {
        let passing = left.map(Pins::inherit);
        match (passing, root) {
            (Some(left), Some(root)) if left.is_at(root, name) => {
                Ok(Places { passing: None, pins: Some(left), replaces_reports: true })
            }
            (passing, root) => {
                let pins = root.map(|root| Pins::open(root, name)).transpose()?;
                Ok(Places { passing, pins, replaces_reports: false })
            }
        }
    }
}

impl Drop for BpfEngine {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the keeper of the eBPF programs had panicked");
        }
        self.fail_closed = None;
    }
}

/// The part of a budget per second that one period of the programs has: they count in periods of 2^27 ns.
fn in_a_period(per_second: u32) -> u32 {
    ((u64::from(per_second) << 27) / 1_000_000_000).max(1) as u32
}

fn words(listen: &ListenConfig, grants: Grants) -> ListenerWords {
    ListenerWords {
        state: State::Silent,
        reports: true,
        window_scale: listen.window_scale,
        form_b_always: listen.accept_cookies == AcceptCookies::Always,
        grants,
        looks_up: false,
        has_entries: false,
        outlives: false,
        replies_max: in_a_period(listen.replies_per_prefix),
        bad_cookies_max: in_a_period(listen.bad_cookies_per_prefix),
    }
}
