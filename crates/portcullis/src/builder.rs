//! What a listener can be told before it starts.

mod steps;
mod successor;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use connection::{ConnectionStats, KernelListener, RawEstablisher, Rules, accept_queue, adopt};
use listener::io::{BpfConfig, BpfEngine, BpfHook, Engine, EngineConfig, EngineError};
use listener::{ConfigError, KeySchedule, ListenConfig, MasterKey, Sources, Via};

use crate::alarm::Alarm;
use crate::front::{Guard, Listener, Tier};
use crate::guard::{expand_wildcards, overlap};
use crate::kernel::KernelListeners;

use steps::Steps;
pub use successor::Successor;

/// Which way to the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Datapath {
    /// `Bpf` where it works, else `Raw`, and one line in the log that says why not. Never `Kernel`.
    #[default]
    Auto,
    /// SYNs are answered, and handshakes completed, by eBPF programs in the kernel. Needs Linux 6.9 with BTF, CAP_BPF,
    /// CAP_PERFMON and CAP_NET_ADMIN in the initial user namespace, and CAP_NET_RAW.
    Bpf,
    /// SYNs are seen and answered through packet sockets. Needs CAP_NET_RAW and CAP_NET_ADMIN.
    Raw,
    /// The kernel's own listener: for development, and to compare with. Needs nothing, protects from nothing.
    Kernel,
}

/// Settings of a [`Listener`]; see [`Listener::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    bind: io::Result<Vec<SocketAddr>>,
    datapath: Datapath,
    bpf_hook: BpfHook,
    bpf_pins: Option<PathBuf>,
    listen: ListenConfig,
    interfaces: Vec<String>,
    workers: Option<NonZeroUsize>,
    fail_closed: bool,
    accept_queue: usize,
    rules: Rules,
    /// Those of the rules.
    sources: Sources,
    master_key: Option<KeySchedule>,
    name: Option<String>,
}

/// Why a listener could not start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A text given to [`Builder::bind`] is no address.
    #[error("no address to guard: {0}")]
    Address(#[source] io::Error),
    /// No call of [`Builder::bind`].
    #[error("no address to guard was given")]
    NoAddress,
    /// Two addresses would guard the same packets.
    #[error("{0} overlaps with {1}")]
    Overlap(SocketAddr, SocketAddr),
    /// CAP_NET_RAW, CAP_NET_ADMIN, for `Datapath::Bpf` CAP_BPF or CAP_PERFMON, or for a port below 1024 CAP_NET_BIND_SERVICE is missing.
    #[error("{why}{0}", why = missing_right(.0))]
    Rights(#[source] EngineError),
    /// The datapath could not start, or nothing be pinned: an address in use, an unknown interface, a setting out of range, an old kernel.
    #[error(transparent)]
    Engine(EngineError),
    /// The kernel's listener could not start.
    #[error("cannot listen on {addr}: {source}")]
    Kernel {
        /// The address.
        addr: SocketAddr,
        /// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied`...
        source: io::Error,
    },
    /// The listener to be succeeded has another datapath, and the one cannot go on with what the other has.
    #[error("the predecessor's datapath is {left:?}, and this one is to be {wanted:?}: stop it first, then start")]
    OtherDatapath {
        /// What was asked for.
        wanted: Datapath,
        /// What there is.
        left: Datapath,
    },
    /// No randomness for a master key.
    #[error("cannot make a master key: {0}")]
    MasterKey(#[source] io::Error),
}

impl Builder {
    pub(crate) fn new() -> Builder {
        Builder {
            bind: Ok(Vec::new()),
            datapath: Datapath::default(),
            bpf_hook: BpfHook::default(),
            bpf_pins: None,
            listen: ListenConfig::default(),
            interfaces: Vec::new(),
            workers: None,
            fail_closed: false,
            accept_queue: 4096,
            rules: Rules::default(),
            sources: Sources::default(),
            master_key: None,
            name: None,
        }
    }

    /// Guards an address and port, or several: `"0.0.0.0:80"`, `([127, 0, 0, 1], 80)`, a slice of `SocketAddr`. Each call
    /// adds to those before.
    ///
    /// A wildcard guards every local address of its family; `[::]:P` guards IPv4 too, as
    /// [`guard::expand_wildcards`](crate::guard::expand_wildcards) says. A host name is looked up at once, which blocks. Port 0,
    /// for any free port, works with [`Datapath::Kernel`] alone.
    pub fn bind(mut self, addrs: impl ToSocketAddrs) -> Builder {
        self.bind = self.bind.and_then(|mut bind| {
            bind.extend(addrs.to_socket_addrs()?);
            Ok(bind)
        });
        self
    }

    /// Which way to the wire. Default: [`Datapath::Auto`].
    pub fn datapath(mut self, datapath: Datapath) -> Builder {
        self.datapath = datapath;
        self
    }

    /// Where [`Datapath::Bpf`] answers SYNs. Default: in the driver where that pays, else behind it.
    pub fn bpf_hook(mut self, hook: BpfHook) -> Builder {
        self.bpf_hook = hook;
        self
    }

    /// Pins the programs of [`Datapath::Bpf`] in a directory of their own below this one, which must be on a bpffs. Default: not
    /// pinned.
    ///
    /// Pinned programs outlive the process, by a minute: they answer SYNs, and keep finished handshakes waiting until a listener
    /// of the same [name](Builder::name), [master key](Builder::master_key) and network namespace takes them over.
    pub fn bpf_pins(mut self, dir: impl Into<PathBuf>) -> Builder {
        self.bpf_pins = Some(dir.into());
        self
    }

    /// Watches this network interface; each call adds one. Default: all, those to come included.
    pub fn interface(mut self, name: impl Into<String>) -> Builder {
        self.interfaces.push(name.into());
        self
    }

    /// Half-open connections kept before SYNs are answered by cookie alone: 1 to 4,194,304. Default 4096.
    pub fn half_open(mut self, max: usize) -> Builder {
        self.listen.half_open_max = max;
        self
    }

    /// Finished handshakes that may wait for [`accept`](Listener::accept), at least 1. Default 4096.
    ///
    /// Each costs a descriptor. When full, a handshake stays half-open, and the client's next segment asks again. With
    /// [`Datapath::Bpf`] and [`Datapath::Kernel`] the queue is the kernel's, one for each address, and its bound is
    /// `net.core.somaxconn` if that is less.
    pub fn accept_queue(mut self, limit: usize) -> Builder {
        self.accept_queue = limit;
        self
    }

    /// Whose connections are accepted, and how many. Default: everybody's, all of them.
    ///
    /// Whom the lists deny gets no SYN-ACK; with [`Datapath::Kernel`] he does, and is refused once his handshake is complete.
    ///
    /// Can be changed while the listener runs: [`Control::set_rules`](crate::Control::set_rules).
    pub fn rules(mut self, rules: Rules) -> Builder {
        self.rules = rules;
        self
    }

    /// Threads that read packets. Default: one for each core, at most 64.
    pub fn workers(mut self, count: NonZeroUsize) -> Builder {
        self.workers = Some(count);
        self
    }

    /// The secret of the SYN cookies. Default: a new one, so that no other process can finish our handshakes.
    ///
    /// A [`MasterKey`], or a [`KeySchedule`] of several, of which each holds from some epoch on. They can be changed while the listener runs:
    /// [`Control::set_master_keys`](crate::Control::set_master_keys).
    pub fn master_key(mut self, key: impl Into<KeySchedule>) -> Builder {
        self.master_key = Some(key.into());
        self
    }

    /// What log lines call this listener. Default: its addresses.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Whether a crash leaves the ports shut (needs `nft`) rather than refused. Default: no.
    pub fn fail_closed(mut self, yes: bool) -> Builder {
        self.fail_closed = yes;
        self
    }

    /// Replaces all settings of the handshake; `bind` in them is ignored.
    pub fn listen_config(mut self, listen: ListenConfig) -> Builder {
        self.listen = listen;
        self
    }

    /// Starts guarding.
    ///
    /// # Errors
    /// [`BuildError`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn build(mut self) -> Result<Listener, BuildError> {
        let guarded = guarded(std::mem::replace(&mut self.bind, Ok(Vec::new())))?;
        self.sources = self.rules.sources().map_err(illegal)?;
        let rules = std::mem::take(&mut self.rules);
        let mut steps = Steps::prepare(&guarded, self.datapath);
        steps.begin();
        self.build_tier(guarded).map(|listener| steps.of(listener).with_rules(rules))
    }

    fn build_tier(mut self, guarded: Vec<SocketAddr>) -> Result<Listener, BuildError> {
        if self.datapath == Datapath::Kernel {
            return build_kernel(&guarded, self.accept_queue);
        }
        let master = self.key()?;
        match self.datapath {
            Datapath::Bpf => self.build_bpf(guarded, master),
            Datapath::Raw => self.build_raw(guarded, master),
            Datapath::Auto | Datapath::Kernel => self.build_best(guarded, master),
        }
    }

    fn key(&mut self) -> Result<KeySchedule, BuildError> {
        let fresh = || MasterKey::generate().map(KeySchedule::new);
        self.master_key.take().map_or_else(fresh, Ok).map_err(BuildError::MasterKey)
    }

    /// The bpf tier if this host can have it, else the raw one.
    fn build_best(self, guarded: Vec<SocketAddr>, master: KeySchedule) -> Result<Listener, BuildError> {
        let alarm = Alarm::default();
        match self.start_bpf(&guarded, master.clone(), &alarm) {
            Ok(engine) => self.listen_behind(engine, alarm, &guarded),
            Err(EngineError::System { what, source }) => {
                let name = self.name.as_deref().unwrap_or_default();
                tracing::info!(listener = name, "datapath raw, because bpf does not work here: {what}: {source}");
                self.build_raw(guarded, master)
            }
            Err(error) => Err(engine_error(error)),
        }
    }

    fn build_raw(self, guarded: Vec<SocketAddr>, master: KeySchedule) -> Result<Listener, BuildError> {
        adopt::probe().map_err(|source| engine_error(EngineError::System { what: "adopting connections", source }))?;
        let stats = Arc::new(ConnectionStats::default());
        let (sender, receiver) = accept_queue(self.accept_queue, stats.clone());
        let gauge = sender.gauge();
        let alarm = Alarm::default();
        let establish = |_worker| RawEstablisher::new(sender.clone()).map(|establish| alarm.watch(establish));
        let engine = Engine::start(self.engine_config(guarded, master), establish).map_err(engine_error)?;
        Ok(Listener::new(Tier::Raw { receiver, gauge, alarm }, Some(Guard::Raw(engine)), stats))
    }

    fn engine_config(self, guarded: Vec<SocketAddr>, master: KeySchedule) -> EngineConfig {
        EngineConfig {
            interfaces: self.interfaces,
            workers: self.workers,
            fail_closed: self.fail_closed,
            name: self.name,
            sources: self.sources,
            ..EngineConfig::new(ListenConfig { bind: guarded, ..self.listen }, master)
        }
    }

    fn build_bpf(self, guarded: Vec<SocketAddr>, master: KeySchedule) -> Result<Listener, BuildError> {
        let alarm = Alarm::default();
        let engine = self.start_bpf(&guarded, master, &alarm).map_err(engine_error)?;
        self.listen_behind(engine, alarm, &guarded)
    }

    /// The programs keep silent for these addresses until the sockets stand.
    fn start_bpf(&self, guarded: &[SocketAddr], master: KeySchedule, alarm: &Alarm) -> Result<BpfEngine, EngineError> {
        BpfEngine::start(self.bpf_config(guarded, master), alarm.watch(()))
    }

    fn bpf_config(&self, guarded: &[SocketAddr], master: KeySchedule) -> BpfConfig {
        BpfConfig {
            listen: ListenConfig { bind: guarded.to_vec(), ..self.listen.clone() },
            interfaces: self.interfaces.clone(),
            hook: self.bpf_hook,
            pins: self.bpf_pins.clone(),
            fail_closed: self.fail_closed,
            master,
            sources: self.sources.clone(),
            name: self.name.clone(),
        }
    }

    fn listen_behind(
        self,
        mut engine: BpfEngine,
        alarm: Alarm,
        guarded: &[SocketAddr],
    ) -> Result<Listener, BuildError> {
        let stats = Arc::new(ConnectionStats::default());
        let listeners = kernel_listeners(guarded, self.accept_queue, Via::Cookie, &stats)?;
        engine.open().map_err(engine_error)?;
        Ok(Listener::new(Tier::Bpf { listeners, alarm }, Some(Guard::Bpf(engine)), stats))
    }
}

fn guarded(bind: io::Result<Vec<SocketAddr>>) -> Result<Vec<SocketAddr>, BuildError> {
    let guarded = expand_wildcards(&bind.map_err(BuildError::Address)?);
    if guarded.is_empty() {
        return Err(BuildError::NoAddress);
    }
    for (index, addr) in guarded.iter().enumerate() {
        if let Some(other) = guarded[..index].iter().find(|other| overlap(addr, other)) {
            return Err(BuildError::Overlap(*addr, *other));
        }
    }
    Ok(guarded)
}

fn build_kernel(guarded: &[SocketAddr], accept_queue: usize) -> Result<Listener, BuildError> {
    let stats = Arc::new(ConnectionStats::default());
    let listeners = kernel_listeners(guarded, accept_queue, Via::Kernel, &stats)?;
    Ok(Listener::new(Tier::Kernel(listeners), None, stats))
}

/// A listening socket for each address.
fn kernel_listeners(
    guarded: &[SocketAddr],
    accept_queue: usize,
    via: Via,
    stats: &Arc<ConnectionStats>,
) -> Result<KernelListeners, BuildError> {
    let listen = |&addr: &SocketAddr| listen_on(addr, accept_queue, via, stats);
    guarded.iter().map(listen).collect::<Result<_, _>>().map(KernelListeners::new)
}

fn listen_on(
    addr: SocketAddr,
    accept_queue: usize,
    via: Via,
    stats: &Arc<ConnectionStats>,
) -> Result<KernelListener, BuildError> {
    match KernelListener::bind(addr, backlog(accept_queue), stats.clone()) {
        Ok(listener) => Ok(listener.with_via(via)),
        Err(source) => Err(BuildError::Kernel { addr, source }),
    }
}

/// The kernel counts its queue from 0: one more than the backlog may wait.
fn backlog(accept_queue: usize) -> u32 {
    u32::try_from(accept_queue.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// A port below 1024 needs a capability of its own, which the engine's error names.
fn missing_right(error: &EngineError) -> &'static str {
    match error {
        EngineError::Reserve { .. } => "",
        _ => "a capability is missing (CAP_NET_RAW, CAP_NET_ADMIN and, for bpf, CAP_BPF and CAP_PERFMON are needed): ",
    }
}

fn illegal(error: ConfigError) -> BuildError {
    BuildError::Engine(EngineError::Config(error))
}

fn engine_error(error: EngineError) -> BuildError {
    if error.is_permission_denied() { BuildError::Rights(error) } else { BuildError::Engine(error) }
}
