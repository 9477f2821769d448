//! A listener that goes on in place of another process's.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use connection::{
    AcceptGauge, AcceptReceiver, ConnectionStats, KernelListener, RawEstablisher, Rules, accept_queue, adopt,
};
use listener::Via;
use listener::io::{Bookmark, BpfEngine, Engine, EngineError, PreparedBpf, PreparedEngine};

use super::{BuildError, Builder, Datapath, Steps, backlog, engine_error, guarded, illegal, listen_on};
use crate::alarm::{Alarm, Watched};
use crate::estate::Estate;
use crate::front::{Guard, Listener, Tier};
use crate::kernel::KernelListeners;

/// A [`Listener`] that has all it needs to go on where another process stops, and does nothing yet.
#[must_use = "a successor does nothing until `start`"]
pub struct Successor {
    tier: Prepared,
    stats: Arc<ConnectionStats>,
    rules: Rules,
    steps: Steps,
}

enum Prepared {
    Raw {
        engine: Box<PreparedEngine<Watched<RawEstablisher>>>,
        receiver: AcceptReceiver,
        gauge: AcceptGauge,
        alarm: Alarm,
    },
    Bpf {
        engine: Box<PreparedBpf>,
        listeners: KernelListeners,
    },
    Kernel(KernelListeners),
}

impl Builder {
    /// Prepares to go on in place of the listener whose estate this is, and which goes on working until it [hands
    /// over](crate::Control::hand_over). The addresses may be others: those that it guards too are never without a guard. The datapath has
    /// to be the same, or [`Datapath::Auto`]; so has the [master key](Builder::master_key), or handshakes under way get lost.
    ///
    /// # Errors
    /// [`BuildError`]; the predecessor is as it was.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub fn succeed(mut self, left: Estate) -> Result<Successor, BuildError> {
        let guarded = guarded(std::mem::replace(&mut self.bind, Ok(Vec::new())))?;
        if self.datapath != Datapath::Auto && self.datapath != left.datapath {
            return Err(BuildError::OtherDatapath { wanted: self.datapath, left: left.datapath });
        }
        self.sources = self.rules.sources().map_err(illegal)?;
        let (stats, rules) = (Arc::new(ConnectionStats::default()), std::mem::take(&mut self.rules));
        let steps = Steps::prepare(&guarded, left.datapath);
        let tier = match left.datapath {
            Datapath::Raw => self.prepare_raw(guarded, left, &stats),
            Datapath::Bpf => self.prepare_bpf(&guarded, left, &stats),
            Datapath::Kernel | Datapath::Auto => {
                inherit(&guarded, left.sockets, self.accept_queue, Via::Kernel, &stats).map(Prepared::Kernel)
            }
        };
        Ok(Successor { tier: tier?, stats, rules, steps })
    }

    fn prepare_raw(
        mut self,
        guarded: Vec<SocketAddr>,
        left: Estate,
        stats: &Arc<ConnectionStats>,
    ) -> Result<Prepared, BuildError> {
        adopt::probe().map_err(|source| engine_error(EngineError::System { what: "adopting connections", source }))?;
        let (sender, receiver) = accept_queue(self.accept_queue, stats.clone());
        let (gauge, alarm) = (sender.gauge(), Alarm::default());
        let master = self.key()?;
        let establish = |_worker| RawEstablisher::new(sender.clone()).map(|establish| alarm.watch(establish));
        let engine = Engine::prepare(self.engine_config(guarded, master), Some(left.into_raw()), establish)
            .map_err(engine_error)?;
        Ok(Prepared::Raw { engine: Box::new(engine), receiver, gauge, alarm })
    }

    fn prepare_bpf(
        mut self,
        guarded: &[SocketAddr],
        left: Estate,
        stats: &Arc<ConnectionStats>,
    ) -> Result<Prepared, BuildError> {
        let master = self.key()?;
        // First the sockets: the programs answer as soon as they are there.
        let listeners = inherit(guarded, left.sockets, self.accept_queue, Via::Cookie, stats)?;
        let engine = BpfEngine::prepare(self.bpf_config(guarded, master), left.programs).map_err(engine_error)?;
        Ok(Prepared::Bpf { engine: Box::new(engine), listeners })
    }
}

/// The kernel's listening sockets of these addresses, those that a predecessor left among them.
fn inherit(
    guarded: &[SocketAddr],
    mut left: Vec<(SocketAddr, OwnedFd)>,
    accept_queue: usize,
    via: Via,
    stats: &Arc<ConnectionStats>,
) -> Result<KernelListeners, BuildError> {
    let listener = |&addr: &SocketAddr| {
        let inherited = match left.iter().position(|(its, _)| same(*its, addr)) {
            Some(index) => KernelListener::inherit(left.swap_remove(index).1, backlog(accept_queue), stats.clone()),
            None => return listen_on(addr, accept_queue, via, stats),
        };
        inherited.map(|it| it.with_via(via)).map_err(|source| BuildError::Kernel { addr, source })
    };
    guarded.iter().map(listener).collect::<Result<_, _>>().map(KernelListeners::new)
}

/// Port 0 stands for whatever port the kernel chose.
fn same(its: SocketAddr, wanted: SocketAddr) -> bool {
    its.ip() == wanted.ip() && (its.port() == wanted.port() || wanted.port() == 0)
}

impl Successor {
    /// Goes on, with what the predecessor's [`hand_over`](crate::Control::hand_over) said. It has stopped, so there is no way back: a
    /// failure here leaves the addresses without anybody who answers.
    ///
    /// # Errors
    /// [`BuildError`]: of what can only be done now, which the predecessor did too.
    pub fn start(self, bookmarks: &[Bookmark]) -> Result<Listener, BuildError> {
        let Successor { tier, stats, rules, mut steps } = self;
        steps.begin();
        let (tier, guard) = match tier {
            Prepared::Raw { engine, receiver, gauge, alarm } => {
                let engine = engine.start(bookmarks).map_err(engine_error)?;
                (Tier::Raw { receiver, gauge, alarm }, Some(Guard::Raw(engine)))
            }
            Prepared::Bpf { engine, listeners } => {
                let alarm = Alarm::default();
                let mut engine = engine.start(bookmarks, alarm.watch(())).map_err(engine_error)?;
                engine.open().map_err(engine_error)?;
                (Tier::Bpf { listeners, alarm }, Some(Guard::Bpf(engine)))
            }
            Prepared::Kernel(listeners) => (Tier::Kernel(listeners), None),
        };
        Ok(steps.of(Listener::new(tier, guard, stats)).with_rules(rules))
    }
}
