//! The listener an application holds.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use connection::{AcceptGauge, AcceptReceiver, Connection, ConnectionStats};
use listener::io::{Engine, EngineView};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::builder::Builder;
use crate::drain::handshakes_settled;
use crate::kernel::KernelListeners;
use crate::source::ListenerSource;

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
    stats: Arc<ConnectionStats>,
    endpoints: Vec<SocketAddr>,
}

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Tier {
    Raw { receiver: AcceptReceiver, gauge: AcceptGauge },
    Kernel(KernelListeners),
}

/// Drains a listener from another task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    door: Arc<Door>,
}

/// What a listener shares with its [`Control`]s.
#[derive(Debug)]
struct Door {
    /// `None` in the kernel tier, and once closed.
    engine: Mutex<Option<Engine>>,
    view: Option<EngineView>,
    draining: CancellationToken,
    drain_began: OnceLock<Instant>,
}

impl Listener {
    /// Begins with the documented defaults.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(tier: Tier, engine: Option<Engine>, stats: Arc<ConnectionStats>) -> Listener {
        let view = engine.as_ref().map(Engine::view);
        let endpoints = match (&tier, &view) {
            (Tier::Kernel(listeners), _) => listeners.local_addrs(),
            (Tier::Raw { .. }, view) => view.as_ref().map_or_else(Vec::new, EngineView::endpoints),
        };
        let door =
            Door { engine: Mutex::new(engine), view, draining: CancellationToken::new(), drain_began: OnceLock::new() };
        Listener { tier, door: Arc::new(door), stats, endpoints }
    }

    /// The next connection; `None` once the listener [drains](Listener::drain) and no handshake is left to finish.
    ///
    /// After a drain, handshakes that were answered before it have up to 3 s, and end sooner if none is under way.
    /// Cancel safe.
    ///
    /// # Errors
    /// Only with [`Datapath::Kernel`](crate::Datapath::Kernel), when the listening socket has failed for good. A connection that
    /// cannot be registered with the runtime (out of memory, or of epoll watches) is reset, counted and passed over.
    pub async fn accept(&mut self) -> Option<io::Result<Connection>> {
        match &mut self.tier {
            Tier::Raw { receiver, .. } => loop {
                match next(receiver, &self.door).await? {
                    Ok(connection) => return Some(Ok(connection)),
                    Err(error) => tracing::debug!(%error, "a connection could not be registered with the runtime"),
                }
            },
            Tier::Kernel(listeners) => tokio::select! {
                biased; // What the kernel has ready comes before the end is told.
                accepted = listeners.accept(), if !listeners.is_empty() => Some(accepted),
                () = self.door.draining.cancelled() => {
                    listeners.close();
                    None
                }
            },
        }
    }

    /// Stops answering SYNs; handshakes that were answered already can still finish, and connections go on.
    ///
    /// With [`Datapath::Kernel`](crate::Datapath::Kernel), the kernel goes on until [`accept`](Listener::accept) returns
    /// `None`, and handshakes it has not finished by then are lost.
    pub fn drain(&self) {
        self.door.drain();
    }

    /// Stops guarding and gives the ports back. Connections that were accepted go on; those still in the queue are
    /// reset.
    pub async fn close(self) {
        let engine = self.door.take_engine();
        // It joins threads, which is a wait of milliseconds, but a wait. A panic of theirs is not ours to repeat.
        let _ = tokio::task::spawn_blocking(move || drop(engine)).await;
    }

    /// A handle to drain this listener while another task waits in [`accept`](Listener::accept).
    pub fn control(&self) -> Control {
        Control { door: self.door.clone() }
    }

    /// The guarded addresses; with [`Datapath::Kernel`](crate::Datapath::Kernel), with the ports the kernel chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.endpoints
    }

    /// The datapath in use: `raw` or `kernel`.
    pub fn tier(&self) -> &'static str {
        match self.tier {
            Tier::Raw { .. } => "raw",
            Tier::Kernel(_) => exporter::KERNEL_TIER,
        }
    }

    /// What an [`Exporter`](exporter::Exporter) reads; `name` becomes the `listener` label.
    pub fn source(&self, name: impl Into<String>) -> Arc<dyn exporter::Source> {
        let gauge = match &self.tier {
            Tier::Raw { gauge, .. } => Some(gauge.clone()),
            Tier::Kernel(_) => None,
        };
        Arc::new(ListenerSource {
            name: name.into(),
            tier: self.tier(),
            view: self.door.view.clone(),
            gauge,
            stats: self.stats.clone(),
            endpoints: self.endpoints.clone(),
        })
    }
}

/// The next connection of the accept queue; the queue closes when the door has drained.
async fn next(receiver: &mut AcceptReceiver, door: &Door) -> Option<io::Result<Connection>> {
    tokio::select! {
        biased; // What is in the queue comes out of it before the end is told.
        arrived = receiver.accept() => arrived,
        () = door.drained() => {
            receiver.close();
            receiver.accept().await
        }
    }
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
}

impl Door {
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
        if let Some(view) = &self.view {
            handshakes_settled(view, *self.drain_began.get_or_init(Instant::now)).await;
        }
    }

    fn take_engine(&self) -> Option<Engine> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Engine>> {
        // Nothing under the lock leaves it half done.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
