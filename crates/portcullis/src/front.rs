//! The listener an application holds.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use connection::{AcceptGauge, AcceptReceiver, Connection, ConnectionStats, Gate, KernelGauge, Rules};
use listener::io::{BpfEngine, Engine, EngineView, PreparedSources, TransitionCounter};
use listener::{KeySchedule, Sources};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::builder::{Builder, Datapath};
use crate::drain::{handed_on, handshakes_settled};
use crate::estate::{Estate, HandedOver, Remains};
use crate::kernel::KernelListeners;
use crate::source::{ListenerSource, Queue};

/// Guards addresses and gives out the connections whose handshakes complete.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use portcullis::{Datapath, Listener};
///
/// let mut listener = Listener::builder().bind("[::]:8080").half_open(65_536).build().await?;
/// while let Some(connection) = listener.accept().await {
///     let connection = connection?;
///     println!("{} came by {:?}", connection.peer_addr(), connection.handshake().via);
/// }
/// # Ok(())
/// # }
/// ```
///
/// Dropping it stops guarding, as [`close`](Listener::close) does, and blocks for the few milliseconds that takes.
#[derive(Debug)]
pub struct Listener {
    tier: Tier,
    door: Arc<Door>,
    gate: Arc<Gate>,
    stats: Arc<ConnectionStats>,
    endpoints: Vec<SocketAddr>,
    /// `None` where the kernel does not let us see them.
    steps: Option<Arc<TransitionCounter>>,
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Tier {
    Raw { receiver: AcceptReceiver, gauge: AcceptGauge, alarm: Alarm },
    Bpf { listeners: KernelListeners, alarm: Alarm },
    Kernel(KernelListeners),
}

/// What guards the addresses.
#[derive(Debug)]
pub(crate) enum Guard {
    Raw(Engine),
    Bpf(BpfEngine),
}

impl Guard {
    fn view(&self) -> EngineView {
        match self {
            Guard::Raw(engine) => engine.view(),
            Guard::Bpf(engine) => engine.view(),
        }
    }

    fn drain(&self) {
        match self {
            Guard::Raw(engine) => engine.drain(),
            Guard::Bpf(engine) => engine.drain(),
        }
    }

    fn set_masters(&self, masters: KeySchedule) {
        match self {
            Guard::Raw(engine) => engine.set_masters(masters),
            Guard::Bpf(engine) => engine.set_masters(masters),
        }
    }

    fn set_sources(&self, prepared: SourcesToCome) -> io::Result<()> {
        match (self, prepared) {
            (Guard::Raw(engine), SourcesToCome::Raw(sources)) => engine.set_sources(sources),
            (Guard::Bpf(engine), SourcesToCome::Bpf(prepared)) => return engine.set_sources(prepared),
            // A listener's guard does not change its kind.
            (Guard::Raw(_), SourcesToCome::Bpf(_)) | (Guard::Bpf(_), SourcesToCome::Raw(_)) => {}
        }
        Ok(())
    }

    fn outlives(&self) -> bool {
        matches!(self, Guard::Bpf(engine) if engine.outlives())
    }

    fn hands_on(&self) -> bool {
        matches!(self, Guard::Bpf(engine) if engine.hands_on())
    }

    fn hand_over(self) -> io::Result<HandedOver> {
        match self {
            Guard::Raw(mut engine) => {
                let bookmarks = engine.hand_over()?;
                Ok(HandedOver { bookmarks, remains: Remains::Raw(Box::new(engine)) })
            }
            Guard::Bpf(engine) => {
                let (bookmark, programs) = engine.hand_over()?;
                Ok(HandedOver { bookmarks: vec![bookmark], remains: Remains::Bpf(programs) })
            }
        }
    }
}

/// Lists that are ready for a guard.
#[derive(Debug)]
enum SourcesToCome {
    Raw(Sources),
    Bpf(PreparedSources),
}

/// Rules that are ready to be brought [into force](PreparedRules::apply). See [`Control::prepare_rules`].
#[derive(Debug)]
#[must_use = "nothing is in force until `apply`"]
pub struct PreparedRules {
    control: Control,
    rules: Rules,
    /// `None` where nobody judges SYNs but the kernel.
    sources: Option<SourcesToCome>,
}

impl PreparedRules {
    /// What is to hold.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Changes the rules for those who come from now on: the lists hold for SYNs within a second.
    pub fn apply(self) {
        let PreparedRules { control, rules, sources } = self;
        control.gate.set_rules(rules);
        if let (Some(engine), Some(sources)) = (&*control.door.lock(), sources)
            && let Err(error) = engine.set_sources(sources)
        {
            // Of a pointer that is stored into a map of our own. Who is denied is refused behind the handshake.
            tracing::error!(%error, "the lists could not be brought into force for SYNs: those of before hold there");
        }
    }
}

/// Drains a listener, or changes its limits, from another task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    door: Arc<Door>,
    gate: Arc<Gate>,
}

/// What a listener shares with its [`Control`]s.
#[derive(Debug)]
struct Door {
    /// `None` in the kernel tier, and once closed.
    engine: Mutex<Option<Guard>>,
    view: Option<EngineView>,
    /// What guards the addresses goes on without us, until the next process takes it over.
    outlives: bool,
    draining: CancellationToken,
    drain_began: OnceLock<Instant>,
    /// The kernel's listening sockets, where it has them.
    kernel: Vec<(SocketAddr, KernelGauge)>,
    /// All that comes from now on is the successor's.
    handed_over: CancellationToken,
}

impl Listener {
    /// Begins with the documented defaults.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(tier: Tier, engine: Option<Guard>, stats: Arc<ConnectionStats>) -> Listener {
        let view = engine.as_ref().map(Guard::view);
        let endpoints = match (&tier, &view) {
            (Tier::Kernel(listeners) | Tier::Bpf { listeners, .. }, _) => listeners.local_addrs(),
            (Tier::Raw { .. }, view) => view.as_ref().map_or_else(Vec::new, EngineView::endpoints),
        };
        let outlives = engine.as_ref().is_some_and(Guard::outlives);
        let kernel = match &tier {
            Tier::Raw { .. } => Vec::new(),
            Tier::Bpf { listeners, .. } | Tier::Kernel(listeners) => {
                listeners.local_addrs().into_iter().zip(listeners.gauges()).collect()
            }
        };
        let door = Door {
            engine: Mutex::new(engine),
            view,
            outlives,
            draining: CancellationToken::new(),
            drain_began: OnceLock::new(),
            kernel,
            handed_over: CancellationToken::new(),
        };
        Listener { tier, door: Arc::new(door), gate: Gate::new(Rules::default()), stats, endpoints, steps: None }
    }

    /// The next connection that the [rules](Builder::rules) let in; `None` once the listener [drains](Listener::drain) and no handshake is
    /// left to finish.
    ///
    /// While the rules have no place for another, and say that it is to wait, this waits. A connection keeps its place until it ends.
    /// After a drain, handshakes that were answered before it have up to 3 s, and end sooner if none is under way.
    /// Cancel safe.
    ///
    /// # Errors
    /// Once, when the listener has failed for good; then it gives `None`, and is best dropped. With
    /// [`Datapath::Kernel`](crate::Datapath::Kernel): the listening socket is broken. Else: a packet worker, or the keeper of the
    /// eBPF programs, has panicked, and nobody answers the clients any more whom it answered. A connection that cannot be registered with the runtime (out of
    /// memory, or of epoll watches) is reset, counted and passed over.
    pub async fn accept(&mut self) -> Option<io::Result<Connection>> {
        loop {
            // A place before a connection: while there is none, connections wait in the accept queue, which is bounded.
            tokio::select! {
                () = self.gate.room() => {}
                // What the kernel has accepted waits for the successor; what we have adopted is ours, and waits on.
                () = self.door.handed_over.cancelled(), if !matches!(self.tier, Tier::Raw { .. }) => {}
            }
            let connection = match self.next_connection().await? {
                Ok(connection) => connection,
                Err(error) => return Some(Err(error)),
            };
            match self.gate.admit(connection.peer_addr().ip()) {
                Ok(ticket) => {
                    connection.keep(ticket);
                    return Some(Ok(connection));
                }
                Err(refused) => {
                    connection.refuse(self.gate.rules().manner(refused));
                }
            }
        }
    }

    /// The next connection, whoever it is.
    async fn next_connection(&mut self) -> Option<io::Result<Connection>> {
        match &mut self.tier {
            Tier::Raw { receiver, alarm, .. } => loop {
                match next(receiver, &self.door, alarm).await? {
                    Next::Connection(Ok(connection)) => return Some(Ok(connection)),
                    Next::Connection(Err(error)) => {
                        tracing::debug!(%error, "a connection could not be registered with the runtime");
                    }
                    Next::WorkerDied => {
                        receiver.close();
                        return Some(Err(io::Error::other(
                            "a packet worker has died: its part of the clients gets no answer",
                        )));
                    }
                }
            },
            Tier::Bpf { listeners, .. } if listeners.is_empty() => None,
            Tier::Bpf { listeners, alarm } => tokio::select! {
                biased; // An alarm cannot wait for a busy queue; what the kernel has ready comes before the end is told.
                () = alarm.raised() => {
                    listeners.close();
                    Some(Err(io::Error::other("the keeper of the eBPF programs has died, and they with it")))
                }
                () = self.door.handed_over.cancelled() => {
                    listeners.close();
                    None
                }
                accepted = listeners.accept() => Some(accepted),
                () = self.door.drained() => {
                    listeners.close();
                    self.door.let_go().await;
                    None
                }
            },
            Tier::Kernel(listeners) => tokio::select! {
                biased; // What the kernel has ready comes before the end is told, but for what is a successor's.
                () = self.door.handed_over.cancelled() => {
                    listeners.close();
                    None
                }
                accepted = listeners.accept(), if !listeners.is_empty() => Some(accepted),
                () = self.door.draining.cancelled() => {
                    listeners.close();
                    None
                }
            },
        }
    }

    pub(crate) fn with_rules(self, rules: Rules) -> Listener {
        self.gate.set_rules(rules);
        self
    }

    pub(crate) fn with_steps(mut self, steps: Option<TransitionCounter>) -> Listener {
        self.steps = steps.map(Arc::new);
        self
    }

    /// Stops answering SYNs; handshakes that were answered already can still finish, and connections go on.
    ///
    /// With [pinned programs](Builder::bpf_pins) SYNs go on being answered, and handshakes that end from now on are left to the next
    /// process. With [`Datapath::Kernel`](crate::Datapath::Kernel), the kernel goes on until [`accept`](Listener::accept) returns
    /// `None`, and handshakes it has not finished by then are lost.
    pub fn drain(&self) {
        self.door.drain();
    }

    /// Stops guarding and gives the ports back. Connections that were accepted go on; those still in the queue are
    /// reset.
    pub async fn close(self) {
        stop(self.door.take_engine()).await;
    }

    /// A handle to drain this listener while another task waits in [`accept`](Listener::accept).
    pub fn control(&self) -> Control {
        Control { door: self.door.clone(), gate: self.gate.clone() }
    }

    /// The guarded addresses; with [`Datapath::Kernel`](crate::Datapath::Kernel), with the ports the kernel chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.endpoints
    }

    /// The datapath in use: `bpf`, `raw` or `kernel`.
    pub fn tier(&self) -> &'static str {
        match self.tier {
            Tier::Raw { .. } => "raw",
            Tier::Bpf { .. } => "bpf",
            Tier::Kernel(_) => exporter::KERNEL_TIER,
        }
    }

    /// What an [`Exporter`](exporter::Exporter) reads; `name` becomes the `listener` label.
    pub fn source(&self, name: impl Into<String>) -> Arc<dyn exporter::Source> {
        let queue = match &self.tier {
            Tier::Raw { gauge, .. } => Queue::Ours(gauge.clone()),
            Tier::Bpf { listeners, .. } | Tier::Kernel(listeners) => Queue::Kernels(listeners.gauges()),
        };
        Arc::new(ListenerSource {
            name: name.into(),
            tier: self.tier(),
            view: self.door.view.clone(),
            queue,
            gate: self.gate.clone(),
            stats: self.stats.clone(),
            endpoints: self.endpoints.clone(),
            steps: self.steps.clone(),
        })
    }
}

/// What comes to a raw listener.
enum Next {
    Connection(io::Result<Connection>),
    /// Told once.
    WorkerDied,
}

/// The next connection of the accept queue; the queue closes when the door has drained.
async fn next(receiver: &mut AcceptReceiver, door: &Door, alarm: &mut Alarm) -> Option<Next> {
    let arrived = tokio::select! {
        biased; // An alarm cannot wait for a busy queue; what is in the queue comes out of it before the end is told.
        () = alarm.raised() => return Some(Next::WorkerDied),
        arrived = receiver.accept() => arrived,
        () = door.drained() => {
            receiver.close();
            receiver.accept().await
        }
    };
    // Of the last worker's death the queue tells before the alarm does.
    match arrived {
        None if alarm.take() => Some(Next::WorkerDied),
        arrived => arrived.map(Next::Connection),
    }
}

/// It joins threads, which is a wait of milliseconds, but a wait. A panic of theirs is not ours to repeat.
async fn stop(engine: Option<Guard>) {
    let _ = tokio::task::spawn_blocking(move || drop(engine)).await;
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.door.take_engine());
    }
}

impl Control {
    /// [`Listener::drain`].
    pub fn drain(&self) {
        self.door.drain();
    }

    /// Changes how many connections the [rules](Builder::rules) let in, and nothing else.
    pub fn limit_connections(&self, connections_max: usize) {
        let rules = Rules::clone(&self.gate.rules());
        self.gate.set_rules(Rules { connections_max, ..rules });
    }

    /// Changes the [rules](Builder::rules) for those who come from now on.
    ///
    /// # Errors
    /// As [`prepare_rules`](Control::prepare_rules).
    pub fn set_rules(&self, rules: Rules) -> io::Result<()> {
        self.prepare_rules(rules).map(PreparedRules::apply)
    }

    /// Does all that may fail before other rules are in force, so that several listeners can change theirs together or not at all. With
    /// [`Datapath::Bpf`] the lists are written into the kernel's memory, which blocks for about a microsecond for each prefix.
    ///
    /// # Errors
    /// `InvalidInput` for more prefixes than there may be, 1,048,576; with [`Datapath::Bpf`] of bpf(2), such as `OutOfMemory`.
    pub fn prepare_rules(&self, rules: Rules) -> io::Result<PreparedRules> {
        let sources = rules.sources().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let is_bpf = self.door.lock().as_ref().map(|engine| matches!(engine, Guard::Bpf(_)));
        let sources = match is_bpf {
            Some(true) => Some(SourcesToCome::Bpf(PreparedSources::new(sources)?)),
            Some(false) => Some(SourcesToCome::Raw(sources)),
            None => None,
        };
        Ok(PreparedRules { control: self.clone(), rules, sources })
    }

    /// What the process that takes our place needs to [succeed](Builder::succeed) this listener. Nothing changes here. Blocks for some
    /// microseconds.
    ///
    /// # Errors
    /// `NotConnected` when the listener is closed, or was handed over; with [`Datapath::Bpf`], where no bpffs is to be found, by which
    /// programs change hands.
    pub fn estate(&self) -> io::Result<Estate> {
        self.door.estate()
    }

    /// The successor that was given the [`estate`](Control::estate) has given up, before this was handed over.
    pub fn take_back(&self) {
        if let Some(Guard::Bpf(engine)) = &*self.door.lock() {
            engine.take_back();
        }
    }

    /// Stops where it is, for a successor that has all it needs: what was not finished is finished there. The connections that are here
    /// already stay, and [`accept`](Listener::accept) gives `None` when no more comes. Blocks until the workers have stopped.
    ///
    /// # Errors
    /// `NotConnected` when the listener is closed, or was handed over; when a worker has died.
    pub fn hand_over(&self) -> io::Result<HandedOver> {
        self.door.hand_over()
    }

    /// Other [master keys](Builder::master_key), in use within a second. With [`Datapath::Kernel`](crate::Datapath::Kernel) there are none, and
    /// this does nothing.
    ///
    /// A [rotation](KeySchedule::rotate) from [`Epoch::rotation`](crate::Epoch::rotation) on costs no handshake.
    pub fn set_master_keys(&self, keys: impl Into<KeySchedule>) {
        if let Some(engine) = &*self.door.lock() {
            engine.set_masters(keys.into());
        }
    }

    /// Who is inside, and who was refused.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

impl Door {
    fn estate(&self) -> io::Result<Estate> {
        let share = |(addr, socket): &(SocketAddr, KernelGauge)| Ok((*addr, socket.share()?));
        let sockets = || self.kernel.iter().map(share).collect::<io::Result<Vec<_>>>();
        let of_kernel = |datapath, programs| Ok(Estate { datapath, sockets: sockets()?, taps: Vec::new(), programs });
        match &*self.lock() {
            Some(Guard::Raw(engine)) => engine.estate().map(Estate::raw),
            Some(Guard::Bpf(engine)) => of_kernel(Datapath::Bpf, Some(engine.estate()?)),
            None if self.view.is_none() && !self.handed_over.is_cancelled() => of_kernel(Datapath::Kernel, None),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn hand_over(&self) -> io::Result<HandedOver> {
        let engine = self.take_engine();
        if self.handed_over.is_cancelled() || (engine.is_none() && self.view.is_some()) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.handed_over.cancel();
        engine.map_or(Ok(HandedOver { bookmarks: Vec::new(), remains: Remains::None }), Guard::hand_over)
    }

    fn drain(&self) {
        if let Some(engine) = &*self.lock() {
            engine.drain();
        }
        self.drain_began.get_or_init(Instant::now);
        self.draining.cancel();
    }

    /// Returns when a drain has been asked for and nothing more can come.
    async fn drained(&self) {
        self.draining.cancelled().await;
        let began = *self.drain_began.get_or_init(Instant::now);
        match &self.view {
            Some(_) if self.outlives => handed_on(began, || self.lock().as_ref().is_none_or(Guard::hands_on)).await,
            Some(view) => handshakes_settled(view, began).await,
            None => {}
        }
    }

    /// What goes on without us is the next process's from now on.
    async fn let_go(&self) {
        if self.outlives {
            stop(self.take_engine()).await;
        }
    }

    fn take_engine(&self) -> Option<Guard> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Guard>> {
        // Nothing under the lock leaves it half done.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use connection::{KernelListener, accept_queue};

    use super::*;

    #[tokio::test]
    async fn a_dead_worker_is_told_once_whether_or_not_others_live() {
        for others_live in [true, false] {
            let stats = Arc::new(ConnectionStats::default());
            let (sender, receiver) = accept_queue(8, stats.clone());
            let (gauge, alarm) = (sender.gauge(), Alarm::default());
            let worker = (alarm.watch(()), sender.clone());
            let mut listener = Listener::new(Tier::Raw { receiver, gauge, alarm }, None, stats);
            let others = others_live.then_some(sender);
            let died = thread::spawn(move || {
                let _worker = worker;
                panic!("as a worker with a bug does");
            });
            assert!(died.join().is_err());
            let error = listener.accept().await.expect("an error").unwrap_err();
            assert!(error.to_string().contains("worker has died"), "{error}");
            assert!(listener.accept().await.is_none());
            drop(others);
        }
    }

    #[tokio::test]
    async fn a_dead_keeper_is_told_once() {
        let stats = Arc::new(ConnectionStats::default());
        let socket = KernelListener::bind("127.0.0.1:0".parse().unwrap(), 8, stats.clone()).unwrap();
        let alarm = Alarm::default();
        let keeper = alarm.watch(());
        let mut listener =
            Listener::new(Tier::Bpf { listeners: KernelListeners::new(vec![socket]), alarm }, None, stats);
        let died = thread::spawn(move || {
            let _keeper = keeper;
            panic!("as a keeper with a bug does");
        });
        assert!(died.join().is_err());
        let error = listener.accept().await.expect("an error").unwrap_err();
        assert!(error.to_string().contains("has died"), "{error}");
        assert!(listener.accept().await.is_none());
    }
}
