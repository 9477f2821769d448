//! The connections that are being served, for an operator who wants to see or end them; and a line for each in the access log.
//!
//! One entry costs some 500 bytes, the handle included, and well under a microsecond. The bound is that of the connections
//! themselves: who registers one holds a place of its listener's `connections_max`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use portcullis::{CloseReason, Connection, ConnectionHandle, Handshake, TcpState, Via};

use crate::access_log::{AccessLog, Record, timestamp};

/// What is known of a connection when it is registered.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// The name of the built-in service that answers; `None`: an upstream does.
    pub service: Option<&'static str>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub handshake: Handshake,
}

/// What only the connection itself can tell and do, while another task serves it, and at its end.
pub trait Live: Send + Sync {
    /// A number that no other connection has or had.
    fn id(&self) -> u64;
    /// Since it was accepted; at its end this stands still.
    fn age(&self) -> Duration;
    /// Payload from the client, in bytes.
    fn received_bytes(&self) -> u64;
    /// Payload to the client, in bytes.
    fn sent_bytes(&self) -> u64;
    /// The kernel's state of its socket; `None` once that is gone.
    fn state(&self) -> Option<TcpState>;
    /// The states it has gone through, as far as we have part in them.
    fn states(&self) -> Vec<TcpState>;
    /// Why it ended, as a `reason` label; `None` while it has not.
    fn close_reason(&self) -> Option<&'static str>;
    /// Ends it with RST, whatever its task is doing.
    fn abort(&self);
}

impl Live for ConnectionHandle {
    fn states(&self) -> Vec<TcpState> {
        self.states()
    }

    fn id(&self) -> u64 {
        self.id()
    }

    fn received_bytes(&self) -> u64 {
        self.received_bytes()
    }

    fn sent_bytes(&self) -> u64 {
        self.sent_bytes()
    }

    fn age(&self) -> Duration {
        self.age()
    }

    fn state(&self) -> Option<TcpState> {
        self.state()
    }

    fn close_reason(&self) -> Option<&'static str> {
        self.close_reason().map(CloseReason::label)
    }

    fn abort(&self) {
        self.abort(CloseReason::Aborted);
    }
}

/// All connections that are being served.
pub struct Registry {
    /// By number, so that connections that come one after the other do not meet at a lock.
    shards: [Mutex<HashMap<u64, Arc<Entry>>>; SHARDS],
    log: Option<AccessLog>,
}

/// More than there are threads on most machines.
const SHARDS: usize = 64;

/// One connection that is being served.
pub struct Entry {
    /// Never used again.
    pub id: u64,
    pub opening: Opening,
    pub live: Box<dyn Live>,
    upstream: OnceLock<Arc<str>>,
    client: OnceLock<SocketAddr>,
}

impl Entry {
    /// The server it is passed on to, once one has taken it.
    pub fn upstream(&self) -> Option<&Arc<str>> {
        self.upstream.get()
    }

    /// Whom the peer speaks for, if it is a proxy and has said so.
    pub fn client(&self) -> Option<SocketAddr> {
        self.client.get().copied().map(canonical)
    }

    /// The address of the peer, that of an IPv4 client of an IPv6 socket as IPv4.
    pub fn peer_ip(&self) -> IpAddr {
        self.opening.peer.ip().to_canonical()
    }

    fn record(&self) -> Record {
        let seconds = |time: Duration| time.as_micros() as f64 / 1e6;
        let Opening { listener, service, peer, local, handshake } = &self.opening;
        Record {
            time: timestamp(),
            listener: listener.clone(),
            id: self.id,
            peer: canonical(*peer),
            client: self.client(),
            local: canonical(*local),
            via: via(handshake.via),
            handshake_seconds: handshake.duration.map(seconds),
            duration_seconds: seconds(self.live.age()),
            received_bytes: self.live.received_bytes(),
            sent_bytes: self.live.sent_bytes(),
            service: *service,
            upstream: self.upstream().cloned(),
            close_reason: self.live.close_reason(),
            states: self.live.states().iter().map(ToString::to_string).collect(),
        }
    }
}

impl Registry {
    /// An empty one. Connections that close are told to the log, if there is one.
    pub fn new(log: Option<AccessLog>) -> Arc<Registry> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Registry { shards, log })
    }

    /// For the connections of the listener of this name.
    pub fn door(self: &Arc<Registry>, listener: &str) -> Door {
        Door { registry: self.clone(), listener: listener.into() }
    }

    /// Registers a connection until the seat is dropped.
    pub fn open(self: &Arc<Registry>, opening: Opening, live: Box<dyn Live>) -> Seat {
        let entry =
            Arc::new(Entry { id: live.id(), opening, live, upstream: OnceLock::new(), client: OnceLock::new() });
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
}

impl Door {
    /// Registers a connection until the seat is dropped.
    pub fn open(&self, connection: &Connection, service: Option<&'static str>) -> Seat {
        let (peer, local) = (connection.peer_addr(), connection.local_addr());
        let listener = self.listener.clone();
        let opening = Opening { listener, service, peer, local, handshake: connection.handshake() };
        self.registry.open(opening, Box::new(connection.handle()))
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
    /// Says whom the peer speaks for. The first word stands; that it speaks for itself is none.
    pub fn set_client(&self, client: SocketAddr) {
        if client != self.entry.opening.peer {
            let _ = self.entry.client.set(client);
        }
    }

    /// Says which server the connection is passed on to. The first word stands.
    pub fn set_upstream(&self, upstream: impl Into<Arc<str>>) {
        let _ = self.entry.upstream.set(upstream.into());
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

/// A connection whose socket is not there, for tests.
#[cfg(test)]
#[derive(Debug)]
pub struct Told {
    pub id: u64,
    pub received_bytes: u64,
    pub aborted: Arc<std::sync::atomic::AtomicBool>,
}

#[cfg(test)]
impl Live for Told {
    fn states(&self) -> Vec<TcpState> {
        vec![TcpState::Established]
    }

    fn id(&self) -> u64 {
        self.id
    }

    fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    fn sent_bytes(&self) -> u64 {
        4
    }

    fn age(&self) -> Duration {
        Duration::from_millis(1500)
    }

    fn state(&self) -> Option<TcpState> {
        Some(TcpState::FinWait2)
    }

    fn close_reason(&self) -> Option<&'static str> {
        Some("client_fin")
    }

    fn abort(&self) {
        self.aborted.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(registry: &Arc<Registry>, id: u64) -> Seat {
        let opening = Opening {
            listener: "web".into(),
            service: None,
            peer: "[::ffff:198.18.0.1]:40000".parse().unwrap(),
            local: "198.18.0.2:80".parse().unwrap(),
            handshake: Handshake { via: Via::Queue, options: None, duration: Some(Duration::from_millis(25)) },
        };
        registry.open(opening, Box::new(Told { id, received_bytes: 3, aborted: Arc::default() }))
    }

    #[test]
    fn an_entry_is_there_until_its_seat_is_dropped() {
        let registry = Registry::new(None);
        let (first, _second) = (open(&registry, 1), open(&registry, 2));
        assert_eq!(registry.len(), 2);
        drop(first);
        assert!(registry.get(1).is_none());
        let mut seen = Vec::new();
        registry.for_each(|entry| seen.push(entry.id));
        assert_eq!(seen, [2]);
    }

    #[tokio::test]
    async fn a_task_that_panics_or_is_cancelled_leaves_no_entry() {
        let registry = Registry::new(None);
        let (panics, hangs) = (open(&registry, 1), open(&registry, 2));
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
    fn the_record_has_what_the_connection_tells() {
        let registry = Registry::new(None);
        let seat = open(&registry, 7);
        seat.set_upstream("198.18.0.3:80");
        seat.set_client("[::ffff:198.18.0.1]:40000".parse().unwrap());
        assert_eq!(seat.entry.record().client, None, "the peer itself");
        seat.set_client("[2001:db8::9]:9".parse().unwrap());
        let record = seat.entry.record();
        assert_eq!((record.id, record.peer.to_string()), (7, "198.18.0.1:40000".to_owned()));
        assert_eq!(record.client, Some("[2001:db8::9]:9".parse().unwrap()));
        assert_eq!((record.via, record.handshake_seconds, record.duration_seconds), ("queue", Some(0.025), 1.5));
        assert_eq!((record.received_bytes, record.sent_bytes, record.close_reason), (3, 4, Some("client_fin")));
        assert_eq!((record.service, record.upstream.as_deref()), (None, Some("198.18.0.3:80")));
    }
}
