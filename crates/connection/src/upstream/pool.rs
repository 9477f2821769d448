//! The pool: which server a client gets, and what is known about each.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::config::{Balance, HealthConfig, PoolConfig, PoolConfigError, SERVERS_MAX};
use super::dial::{dial, is_ours};
use super::failure::ConnectFailure;
use super::health::{Change, Health};
use super::own_ports::OwnPorts;
use super::server::Server;
use super::stream::Stream;
use crate::histogram::{DurationCounts, Durations};
use crate::proxy_protocol::{Client, encode_header};

/// Servers that stand for each other.
///
/// A client costs a few atomic operations and one short lock of its server; nothing is locked while a connection is being made.
#[derive(Debug)]
pub struct Pool {
    config: PoolConfig,
    members: Box<[Member]>,
    own_ports: OwnPorts,
    /// A bit for each server that is up, so that choosing takes no lock. Written under the lock of the server's health.
    up: AtomicU64,
    /// Whose turn it is.
    turn: AtomicU32,
}

/// What is known about one server.
#[derive(Debug)]
struct Member {
    health: Mutex<Health>,
    connections: AtomicU64,
    /// Of connects that did not fail.
    durations: Durations,
    failures: [AtomicU64; ConnectFailure::ALL.len()],
    check_failures: AtomicU64,
}

/// Upper bounds in seconds of the histogram of how long connects take: from the same host to the other side of the world; 1 and 3 s are
/// where a lost SYN puts one (RFC 6298 §2.1 and §5.5).
const CONNECT_BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0];

/// Some of a pool's servers, a bit for each.
type Set = u64;

const _: () = assert!(SERVERS_MAX == Set::BITS as usize);

impl Pool {
    /// A pool with all servers up.
    ///
    /// Reads which ports the kernel may choose for us (`net.ipv4.ip_local_port_range`): a server on one of them is guarded against being
    /// met by ourselves while it is gone.
    ///
    /// # Errors
    ///
    /// A value outside of its range, or a server that can never be connected to.
    pub fn new(config: PoolConfig) -> Result<Arc<Pool>, PoolConfigError> {
        config.check()?;
        let members: Box<[Member]> = config.servers.iter().map(|_| Member::new(config.health)).collect();
        let up = Set::MAX >> (SERVERS_MAX - members.len());
        let own_ports = OwnPorts::now();
        Ok(Arc::new(Pool { config, members, own_ports, up: AtomicU64::new(up), turn: AtomicU32::new(0) }))
    }

    /// What the pool was made from.
    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Connects to the server whose turn it is; if that fails, to another, until one answers or
    /// [`tries`](PoolConfig::tries) of them did not.
    ///
    /// Servers that are up come first. When none of those is left, the others are tried all the same: a check that is wrong must not
    /// turn clients away. A server that is not checked is tried by one client now and then, to see whether it is back.
    ///
    /// The stream is for [`relay`](crate::relay()), which sees to `TCP_NODELAY`; a TCP stream that no header was sent by is without it so far.
    ///
    /// Cancel safe: what was begun is closed, and no longer counted.
    ///
    /// # Errors
    ///
    /// No server answered. Errors of our own, for want of descriptors, memory or local ports, are not held against a server.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn connect(self: &Arc<Pool>, client: &Client) -> Result<Upstream, ConnectError> {
        let header = self.config.send_proxy.map(|version| encode_header(version, Some(client))).unwrap_or_default();
        let mut tried: Set = 0;
        loop {
            let began = Instant::now();
            let index = self.choose(tried, began);
            tried |= 1 << index;
            let lease = Lease::new(self, index);
            match dial(lease.server(), &header, self.config.connect_timeout, &self.own_ports).await {
                Ok(stream) => {
                    lease.member().durations.observe(began.elapsed());
                    self.succeeded(index);
                    return Ok(Upstream { stream, lease: Some(lease) });
                }
                Err(error) => {
                    lease.member().failures[ConnectFailure::of(&error) as usize].fetch_add(1, Relaxed);
                    self.failed(index, &error);
                    if tried.count_ones() == self.tries() {
                        return Err(ConnectError {
                            server: lease.server().clone(),
                            tried: tried.count_ones(),
                            source: error,
                        });
                    }
                }
            }
        }
    }

    /// A view of each server, in the order of the configuration.
    pub fn view(&self) -> Vec<ServerView> {
        (0..self.members.len()).map(|index| self.view_of(index)).collect()
    }

    fn view_of(&self, index: usize) -> ServerView {
        let member = &self.members[index];
        let durations = member.durations.read();
        let failures_by = ConnectFailure::ALL.map(|kind| (kind, member.failures[kind as usize].load(Relaxed)));
        ServerView {
            server: self.server(index).clone(),
            up: self.up.load(Relaxed) & 1 << index != 0,
            connections: member.connections.load(Relaxed),
            total: durations.counts.iter().sum(),
            durations,
            failures: failures_by.iter().map(|(_, count)| count).sum(),
            failures_by,
            check_failures: member.check_failures.load(Relaxed),
            last_error: member.health().last_error().map(str::to_owned),
        }
    }

    pub(super) fn server(&self, index: usize) -> &Server {
        &self.config.servers[index]
    }

    pub(super) fn own_ports(&self) -> &OwnPorts {
        &self.own_ports
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn check_failed(&self, index: usize, error: &io::Error) {
        self.members[index].check_failures.fetch_add(1, Relaxed);
        self.failed(index, error);
    }

    /// Notes that a server was connected to, by a client or a check.
    pub(super) fn succeeded(&self, index: usize) {
        let mut health = self.members[index].health();
        if health.succeeded(Instant::now()) == Some(Change::Rose) {
            self.up.fetch_or(1 << index, Relaxed);
            drop(health);
            tracing::info!(server = %self.server(index), "upstream is up");
        }
    }

    fn failed(&self, index: usize, error: &io::Error) {
        if is_ours(error) {
            return;
        }
        let mut health = self.members[index].health();
        if health.failed(error, Instant::now()) == Some(Change::Fell) {
            self.up.fetch_and(!(1 << index), Relaxed);
            drop(health);
            tracing::warn!(server = %self.server(index), %error, "upstream is down");
        }
    }

    /// Servers that one client tries, at most.
    fn tries(&self) -> u32 {
        self.config.tries.min(self.members.len() as u32)
    }

    /// The next server for a client who has tried these, which are not all.
    fn choose(&self, tried: Set, now: Instant) -> usize {
        let untried = Set::MAX >> (SERVERS_MAX - self.members.len()) & !tried;
        let up = self.up.load(Relaxed) & untried;
        let down = untried & !up;
        if tried == 0
            && let Some(trial) = self.claim_trial(down, now)
        {
            return trial;
        }
        let turn = self.turn.fetch_add(1, Relaxed);
        let set = if up == 0 { down } else { up };
        match self.config.balance {
            Balance::RoundRobin => nth_in_turn(set, turn),
            Balance::LeastConnections => {
                let fewest = |index: &usize| self.members[*index].connections.load(Relaxed);
                let least = bits(set).map(|index| fewest(&index)).min();
                // Equals take turns. Counts may have moved on by now; then any will do.
                let equals =
                    bits(set).filter(|index| Some(fewest(index)) == least).fold(0, |equals, index| equals | 1 << index);
                nth_in_turn(if equals == 0 { set } else { equals }, turn)
            }
        }
    }

    /// A server that this client is to try, to see whether it is back: as its first, so that others are left for it if that fails.
    fn claim_trial(&self, down: Set, now: Instant) -> Option<usize> {
        match self.config.health {
            Some(_checks_tell) => None,
            None => bits(down).find(|&index| self.members[index].health().claim_trial(now)),
        }
    }
}

/// The members of a set, in order.
fn bits(mut set: Set) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as usize);
        set &= set.wrapping_sub(1);
        lowest
    })
}

/// The member of a set, which is not empty, whose turn it is when they take turns.
fn nth_in_turn(set: Set, turn: u32) -> usize {
    bits(set).nth((turn % set.count_ones()) as usize).expect("the number is below the count of members")
}

impl Member {
    fn new(checks: Option<HealthConfig>) -> Member {
        let zero = AtomicU64::default;
        let health = Mutex::new(Health::new(checks));
        let durations = Durations::new(CONNECT_BUCKETS);
        Member { health, connections: zero(), durations, failures: Default::default(), check_failures: zero() }
    }

    /// Poison is no matter: nothing that could panic happens between two writes.
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One server of a pool at one moment, for status and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerView {
    /// Which.
    pub server: Server,
    /// Whether clients are sent to it before others.
    pub up: bool,
    /// Connections of clients at present, those being made included.
    pub connections: u64,
    /// Connections of clients made so far.
    pub total: u64,
    /// How long it took to make these, a header of the PROXY protocol included.
    pub durations: DurationCounts,
    /// Connections for clients that could not be made so far, for whatever reason.
    pub failures: u64,
    /// The same by reason, zeros included.
    pub failures_by: [(ConnectFailure, u64); ConnectFailure::ALL.len()],
    /// Checks that failed so far.
    pub check_failures: u64,
    /// The last failure that was the server's, whether or not it is over.
    pub last_error: Option<String>,
}

/// No server could be connected to.
#[derive(Debug, Error)]
#[error("no upstream answered: {tried} tried, the last of them {server}: {source}")]
pub struct ConnectError {
    /// The one tried last.
    pub server: Server,
    /// So many were tried.
    pub tried: u32,
    /// What the last one failed of.
    pub source: io::Error,
}

/// A connection to a server. If a pool made it, it counts there until it is dropped.
///
/// Dereferences to its [`Stream`]. A stream of the caller's own becomes one that belongs to no pool by `into()`.
#[derive(Debug)]
pub struct Upstream {
    stream: Stream,
    lease: Option<Lease>,
}

impl Upstream {
    /// The server at the other end; `None` for a stream that belongs to no pool.
    pub fn server(&self) -> Option<&Server> {
        self.lease.as_ref().map(Lease::server)
    }

    /// The place of that server in [`PoolConfig::servers`].
    pub fn server_index(&self) -> Option<usize> {
        self.lease.as_ref().map(|lease| lease.index)
    }
}

impl Deref for Upstream {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.stream
    }
}

impl DerefMut for Upstream {
    fn deref_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

impl From<Stream> for Upstream {
    fn from(stream: Stream) -> Upstream {
        Upstream { stream, lease: None }
    }
}

impl From<TcpStream> for Upstream {
    fn from(stream: TcpStream) -> Upstream {
        Stream::from(stream).into()
    }
}

impl From<UnixStream> for Upstream {
    fn from(stream: UnixStream) -> Upstream {
        Stream::from(stream).into()
    }
}

/// Counts as one connection of its server for as long as it lives.
#[derive(Debug)]
struct Lease {
    pool: Arc<Pool>,
    index: usize,
}

impl Lease {
    fn new(pool: &Arc<Pool>, index: usize) -> Lease {
        pool.members[index].connections.fetch_add(1, Relaxed);
        Lease { pool: Arc::clone(pool), index }
    }

    fn member(&self) -> &Member {
        &self.pool.members[self.index]
    }

    fn server(&self) -> &Server {
        self.pool.server(self.index)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.member().connections.fetch_sub(1, Relaxed);
    }
}
