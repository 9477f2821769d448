//! The fast door of one listener: its programs, and the thread that keeps them.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::attach::{Attached, BpfHook};
use super::keeper::{Duties, Keeper, Orders};
use super::layout::{Clockwork, Grants, ListenerWords, State};
use super::pins::Pins;
use super::programs::{Constants, Programs};
use super::refresh::Refresh;
use super::rights;
use super::settings::{Settings, ns_per_jiffy};
use super::targets::{Placement, random_factors, targets_of};
use crate::config::{AcceptCookies, ListenConfig};
use crate::cookie::{COOKIE_LIFETIME, KeySchedule};
use crate::io::engine::{EngineError, EngineView, fresh_seed, names, spawn, system, wake_pair};
use crate::io::fail_closed::FailClosed;
use crate::io::host::{Host, SharedInterfaces};
use crate::io::interfaces::Watch;
use crate::io::sieve::in_full;
use crate::io::transmit::Transmit;
use crate::io::worker::{clock, epoch};
use crate::listen::{Listen, ListenShared, WorkerSeat};
use crate::stats::SharedStats;

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
    /// What log lines call this listener. Default: its addresses.
    pub name: Option<String>,
}

/// A fast door. Dropping it takes the programs away, unless they are pinned.
#[derive(Debug)]
pub struct BpfEngine {
    view: EngineView,
    orders: Arc<Orders>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
    fail_closed: Option<FailClosed>,
    bind: Vec<SocketAddr>,
    wants_fail_closed: bool,
    outlives: bool,
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
        let pins = config.pins.as_deref().map(|root| Pins::open(root, &name)).transpose();
        let pins = pins.map_err(EngineError::Pins)?;
        let reports = pins.as_ref().map(Pins::reports);
        let programs = Programs::load(&constants, reports.as_deref()).map_err(rights::in_words);
        let mut programs = programs.map_err(system("loading the eBPF programs"))?;
        // Our clock first, and a jiffy has begun already when it is read: so the programs' time never runs ahead of ours.
        let before = clock().as_nanos();
        let jiffies = programs.jiffies().map_err(system("reading the kernel's clock"))?;
        let offset_ns = before.wrapping_sub((jiffies + 1).wrapping_mul(constants.ns_per_jiffy));
        let (now, epoch) = (clock(), epoch());
        // A predecessor's cookies may be out for as long as one lives.
        let form_b_until = (now + COOKIE_LIFETIME).as_nanos();
        programs.form_b_until.set(0, form_b_until, 0).map_err(in_full).map_err(system("filling the eBPF maps"))?;
        let shared = Arc::new(ListenShared::new(&config.listen, now));
        let seat = WorkerSeat { workers: 1, seed: fresh_seed().map_err(system("drawing randomness"))? };
        let listen = Listen::new(config.listen.clone(), shared.clone(), config.master, seat, epoch, now);
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
        let keeper = Keeper::new(Duties {
            refresh: refresh.promise(),
            programs,
            attached: Attached::new(pins),
            placement,
            // What a predecessor's programs answered goes on being answered.
            at_first: if inherited { State::HandsOn } else { State::Silent },
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
        });
        let keeper = keeper.map_err(system("attaching the eBPF programs"))?;
        let thread = spawn("portcullis-bpf", move || {
            let _token = token; // First, so that it is dropped last.
            keeper.run();
        });
        let thread = thread.map_err(system("starting a thread"))?;
        Ok(BpfEngine {
            view,
            orders,
            wake,
            thread: Some(thread),
            fail_closed: None,
            bind,
            wants_fail_closed: config.fail_closed,
            outlives,
        })
    }

    /// The kernel's listening sockets stand: from now on SYNs are answered.
    ///
    /// # Errors
    /// Of `nft`, with `fail_closed`.
    pub fn open(&mut self) -> Result<(), EngineError> {
        if self.wants_fail_closed {
            let rule = FailClosed::install(&self.bind).map_err(system("setting the fail-closed rule"))?;
            self.fail_closed = Some(rule);
        } else {
            FailClosed::clear_leftover(&self.bind);
        }
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
