//! The connections that are being served, for an operator who wants to see or end them; and a line for each in the access log.
//!
//! One entry costs some 500 bytes and half a microsecond. The bound is that of the connections themselves: who registers one
//! holds a place of its listener's `connections_max`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use portcullis::{Connection, Handshake, TcpState, Via};

use crate::access_log::{AccessLog, Record, timestamp};
use crate::config::{Backend, Choice, ListenerConfig};
use crate::run::Stop;

/// What is known of a connection when it is registered.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// The built-in service that answers; `None`: an upstream does.
    pub service: Option<&'static str>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub handshake: Handshake,
}

/// What only the connection itself can tell and do, while another task serves it, and at its end.
pub trait Live: Send + Sync {
    /// Payload from the client, in bytes.
    fn received_bytes(&self) -> u64;
    /// Payload to the client, in bytes.
    fn sent_bytes(&self) -> u64;
    /// The kernel's state of its socket; `None` once that is gone.
    fn state(&self) -> Option<TcpState>;
    /// Why it ended, as a `reason` label; `None` while it has not.
    fn close_reason(&self) -> Option<&'static str>;
    /// Ends it with RST, whatever its task is doing.
    fn abort(&self);
}

/// All connections that are being served.
pub struct Registry {
    /// By number, so that connections that come one after the other do not meet at a lock.
    shards: [Mutex<HashMap<u64, Arc<Entry>>>; SHARDS],
    next_id: AtomicU64,
    log: Option<AccessLog>,
}

/// More than there are threads on most machines.
const SHARDS: usize = 64;

/// One connection that is being served.
pub struct Entry {
    /// Counted from 1, and never used again.
    pub id: u64,
    pub opening: Opening,
    pub opened: Instant,
    upstream: OnceLock<Arc<str>>,
    live: OnceLock<Arc<dyn Live>>,
    stop: Stop,
}

impl Entry {
    /// The server it is passed on to, once that is known.
    pub fn upstream(&self) -> Option<&Arc<str>> {
        self.upstream.get()
    }

    /// What only the connection can tell; `None` if nobody said whom to ask.
    pub fn live(&self) -> Option<&dyn Live> {
        self.live.get().map(|live| &**live)
    }

    /// Bytes from and to the client, if they are counted.
    pub fn bytes(&self) -> Option<(u64, u64)> {
        self.live().map(|live| (live.received_bytes(), live.sent_bytes()))
    }

    /// Ends the connection with RST, or has whoever serves it do so.
    pub fn kill(&self) {
        if let Some(live) = self.live() {
            live.abort();
        }
        self.stop.reset();
    }

    /// The address of the client, that of an IPv4 client of an IPv6 socket as IPv4.
    pub fn peer_ip(&self) -> IpAddr {
        self.opening.peer.ip().to_canonical()
    }

    fn record(&self) -> Record {
        let seconds = |time: Duration| time.as_micros() as f64 / 1e6;
        let killed = || self.stop.now.is_cancelled().then_some("aborted");
        let Opening { listener, service, peer, local, handshake } = &self.opening;
        Record {
            time: timestamp(),
            listener: listener.clone(),
            id: self.id,
            peer: canonical(*peer),
            local: canonical(*local),
            via: via(handshake.via),
            handshake_seconds: handshake.duration.map(seconds),
            duration_seconds: seconds(self.opened.elapsed()),
            received_bytes: self.bytes().map(|(received, _)| received),
            sent_bytes: self.bytes().map(|(_, sent)| sent),
            service: *service,
            upstream: self.upstream().cloned(),
            close_reason: self.live().and_then(|live| live.close_reason()).or_else(killed),
        }
    }
}

impl Registry {
    /// An empty one. Connections that close are told to the log, if there is one.
    pub fn new(log: Option<AccessLog>) -> Arc<Registry> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Registry { shards, next_id: AtomicU64::new(1), log })
    }

    /// For the connections of one listener.
    pub fn door(self: &Arc<Registry>, config: &ListenerConfig) -> Door {
        let (service, upstream) = match &config.backend {
            Backend::Service(service) => (Some(service.word()), None),
            Backend::Upstream(addr) => (None, Some(addr.to_string().into())),
        };
        Door { registry: self.clone(), listener: config.name.as_str().into(), service, upstream }
    }

    /// Registers a connection until the seat is dropped. Its `stop` has the steps of `stop`, and may take them alone.
    pub fn open(self: &Arc<Registry>, opening: Opening, stop: &Stop) -> Seat {
        let entry = Arc::new(Entry {
            id: self.next_id.fetch_add(1, Relaxed),
            opening,
            opened: Instant::now(),
            upstream: OnceLock::new(),
            live: OnceLock::new(),
            stop: stop.of_one(),
        });
        self.shard(entry.id).insert(entry.id, entry.clone());
        Seat { entry, registry: self.clone() }
    }

    /// The connection of this number, if it is open.
    pub fn get(&self, id: u64) -> Option<Arc<Entry>> {
        self.shard(id).get(&id).cloned()
    }

    /// Looks at each. One shard is locked at a time, so connections that come or go meanwhile may be seen or not.
    pub fn for_each(&self, mut look: impl FnMut(&Arc<Entry>)) {
        for id in 0..SHARDS as u64 {
            self.shard(id).values().for_each(&mut look);
        }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        (0..SHARDS as u64).map(|id| self.shard(id).len()).sum()
    }

    /// Where closed connections are told.
    pub fn log(&self) -> Option<&AccessLog> {
        self.log.as_ref()
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        // Nothing under the lock leaves it half done.
        self.shards[id as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registers a listener's connections.
pub struct Door {
    registry: Arc<Registry>,
    listener: Arc<str>,
    service: Option<&'static str>,
    upstream: Option<Arc<str>>,
}

impl Door {
    /// Registers a connection until the seat is dropped. The seat's `stop` has the steps of `stop`, and takes them alone when the
    /// connection is killed.
    pub fn open(&self, connection: &Connection, stop: &Stop) -> Seat {
        let (peer, local) = (connection.peer_addr(), connection.local_addr());
        let (listener, service) = (self.listener.clone(), self.service);
        let opening = Opening { listener, service, peer, local, handshake: connection.handshake() };
        let seat = self.registry.open(opening, stop);
        if let Some(upstream) = &self.upstream {
            seat.set_upstream(upstream.clone());
        }
        seat
    }
}

/// A connection's place in the registry. Dropping it, at the end or in a panic, says that the connection has closed: so it has to
/// outlive the connection.
#[must_use]
pub struct Seat {
    entry: Arc<Entry>,
    registry: Arc<Registry>,
}

impl Seat {
    /// The steps of the end, for this connection: those of all, or its own when it is killed.
    pub fn stop(&self) -> &Stop {
        &self.entry.stop
    }

    /// Says which server it is passed on to. The first word stands.
    pub fn set_upstream(&self, upstream: Arc<str>) {
        let _ = self.entry.upstream.set(upstream);
    }

    /// Says whom to ask for what only the connection can tell. The first word stands.
    #[cfg_attr(not(test), expect(dead_code, reason = "a connection has no handle that outlives its move into a task"))]
    pub fn set_live(&self, live: Arc<dyn Live>) {
        let _ = self.entry.live.set(live);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.registry.shard(self.entry.id).remove(&self.entry.id);
        if let Some(log) = &self.registry.log {
            log.record(self.entry.record());
        }
    }
}

/// The word for who made the handshake.
pub fn via(via: Via) -> &'static str {
    match via {
        Via::Queue => "queue",
        Via::Cookie => "cookie",
        Via::Kernel => "kernel",
    }
}

/// An IPv4 address that an IPv6 socket shows as `::ffff:192.0.2.1`, as what it is.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn opening() -> Opening {
        Opening {
            listener: "web".into(),
            service: Some("echo"),
            peer: "[::ffff:198.18.0.1]:40000".parse().unwrap(),
            local: "198.18.0.2:80".parse().unwrap(),
            handshake: Handshake { via: Via::Queue, options: None, duration: Some(Duration::from_millis(25)) },
        }
    }

    /// A connection that was aborted, or not.
    #[derive(Default)]
    struct Counted(AtomicBool);

    impl Live for Counted {
        fn received_bytes(&self) -> u64 {
            3
        }

        fn sent_bytes(&self) -> u64 {
            4
        }

        fn close_reason(&self) -> Option<&'static str> {
            Some("client_fin")
        }

        fn state(&self) -> Option<TcpState> {
            Some(TcpState::CloseWait)
        }

        fn abort(&self) {
            self.0.store(true, Relaxed);
        }
    }

    #[test]
    fn an_entry_is_there_until_its_seat_is_dropped() {
        let registry = Registry::new(None);
        let (first, second) = (registry.open(opening(), &Stop::default()), registry.open(opening(), &Stop::default()));
        assert_eq!((first.entry.id, second.entry.id, registry.len()), (1, 2, 2));
        drop(first);
        assert!(registry.get(1).is_none());
        let mut seen = Vec::new();
        registry.for_each(|entry| seen.push(entry.id));
        assert_eq!(seen, [2]);
    }

    #[tokio::test]
    async fn a_task_that_panics_or_is_cancelled_leaves_no_entry() {
        let registry = Registry::new(None);
        let (panics, hangs) = (registry.open(opening(), &Stop::default()), registry.open(opening(), &Stop::default()));
        let panicked = tokio::spawn(async move {
            let _seat = panics;
            panic!("as a service with a bug does");
        });
        let cancelled = tokio::spawn(async move {
            let _seat = hangs;
            std::future::pending::<()>().await;
        });
        cancelled.abort();
        assert!(panicked.await.unwrap_err().is_panic() && cancelled.await.unwrap_err().is_cancelled());
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn a_kill_ends_one_and_the_end_of_all_ends_each() {
        let (registry, stop) = (Registry::new(None), Stop::default());
        let (one, other) = (registry.open(opening(), &stop), registry.open(opening(), &stop));
        registry.get(1).unwrap().kill();
        assert!(one.stop().deadline.is_cancelled() && one.stop().now.is_cancelled());
        assert!(!other.stop().deadline.is_cancelled() && !stop.now.is_cancelled());
        stop.deadline.cancel();
        assert!(other.stop().deadline.is_cancelled() && !other.stop().now.is_cancelled());
    }

    #[test]
    fn the_record_has_what_was_said_and_null_for_the_rest() {
        let registry = Registry::new(None);
        let seat = registry.open(opening(), &Stop::default());
        let record = seat.entry.record();
        assert_eq!(record.peer.to_string(), "198.18.0.1:40000");
        assert_eq!((record.via, record.handshake_seconds, record.service), ("queue", Some(0.025), Some("echo")));
        assert_eq!((record.received_bytes, record.upstream.as_deref(), record.close_reason), (None, None, None));
        seat.set_upstream("198.18.0.3:80".into());
        let counted = Arc::new(Counted::default());
        seat.set_live(counted.clone());
        seat.entry.kill();
        assert!(counted.0.load(Relaxed), "who can abort by itself is told to");
        let record = seat.entry.record();
        assert_eq!((record.received_bytes, record.sent_bytes), (Some(3), Some(4)));
        assert_eq!((record.upstream.as_deref(), record.close_reason), (Some("198.18.0.3:80"), Some("client_fin")));
    }

    #[test]
    fn a_kill_is_the_reason_if_the_connection_has_none() {
        let registry = Registry::new(None);
        let seat = registry.open(opening(), &Stop::default());
        seat.entry.kill();
        assert_eq!(seat.entry.record().close_reason, Some("aborted"));
    }
}
