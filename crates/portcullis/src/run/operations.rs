//! What an operator may ask of this process, and how it is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use exporter::{KERNEL_TIER, Readiness, Source};
use listener::io::sock_diag::SockDiag;
use listener::{Counter, DropReason};
use tokio_util::sync::CancellationToken;
use wire::{Endpoint, FourTuple};

use super::logging::LevelControl;
use crate::config::{Choice, Config, LogLevel};
use crate::control::{
    AccessLogStatus, Conn, Conns, Drained, Killed, LevelChanged, ListenerStatus, Operations, Prefix, Refusal, Status,
    Top, TopEntry, Traffic,
};
use crate::registry::{Entry, Registry, canonical, via};

/// The running process.
pub struct Running {
    began: Instant,
    sources: Vec<Arc<dyn Source>>,
    readiness: Arc<Readiness>,
    registry: Arc<Registry>,
    level: LevelControl,
    shutdown_deadline_seconds: u64,
    drain: CancellationToken,
}

impl Running {
    /// `drain` is cancelled when somebody asks for the end.
    pub fn new(
        config: &Config,
        sources: Vec<Arc<dyn Source>>,
        readiness: Arc<Readiness>,
        registry: Arc<Registry>,
        level: LevelControl,
        drain: CancellationToken,
    ) -> Running {
        let shutdown_deadline_seconds = config.shutdown_deadline.as_secs();
        Running { began: Instant::now(), sources, readiness, registry, level, shutdown_deadline_seconds, drain }
    }

    fn matching(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let mut found = Vec::new();
        self.registry.for_each(|entry| {
            if wanted(entry) {
                found.push(entry.clone());
            }
        });
        found
    }
}

impl Operations for Running {
    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.began.elapsed().as_secs(),
            draining: self.readiness.is_draining(),
            log_level: self.level.level().word().to_owned(),
            access_log: self
                .registry
                .log()
                .map(|log| AccessLogStatus { written: log.written(), dropped: log.dropped() }),
            listeners: self.sources.iter().map(|source| listener_status(&**source)).collect(),
        }
    }

    fn conns(&self, listener: Option<&str>, peer: Option<Prefix>, limit: usize) -> Result<Conns, Refusal> {
        if let Some(name) = listener.filter(|name| !self.sources.iter().any(|source| source.name() == *name)) {
            let names: Vec<_> = self.sources.iter().map(|source| source.name()).collect();
            return Err(Refusal::refused(format!("no listener is named \"{name}\"; there are: {}", names.join(", "))));
        }
        let mut found = self.matching(|entry| {
            listener.is_none_or(|name| *entry.opening.listener == *name)
                && peer.is_none_or(|peer| peer.contains(entry.peer_ip()))
        });
        let matching = found.len();
        found.sort_unstable_by_key(|entry| entry.id);
        found.truncate(limit);
        // Without an answer of the kernel the states are unknown, and the rest is not.
        let mut kernel = SockDiag::open().ok();
        let connections = found.iter().map(|entry| conn(entry, kernel.as_mut())).collect();
        Ok(Conns { matching, connections })
    }

    fn top(&self, limit: usize) -> Top {
        let mut prefixes: HashMap<Prefix, (usize, Option<Traffic>)> = HashMap::new();
        self.registry.for_each(|entry| {
            let (open, sum) = prefixes.entry(Prefix::of_source(entry.peer_ip())).or_default();
            *open += 1;
            if let Some(own) = traffic(entry) {
                let sum = sum.get_or_insert_default();
                sum.received_bytes += own.received_bytes;
                sum.sent_bytes += own.sent_bytes;
            }
        });
        let mut top: Vec<_> =
            prefixes.into_iter().map(|(prefix, (open, traffic))| TopEntry { prefix, open, traffic }).collect();
        let prefixes = top.len();
        let bytes = |entry: &TopEntry| entry.traffic.map_or(0, |it| it.received_bytes.saturating_add(it.sent_bytes));
        // The prefix last, so that equals stand in the same order each time.
        top.sort_unstable_by_key(|entry| (std::cmp::Reverse((entry.open, bytes(entry))), entry.prefix));
        top.truncate(limit);
        Top { prefixes, top }
    }

    fn drain(&self) -> Drained {
        let already = self.drain.is_cancelled() || self.readiness.is_draining();
        self.drain.cancel();
        Drained { already, open: self.registry.len(), deadline_seconds: self.shutdown_deadline_seconds }
    }

    fn kill_ids(&self, ids: &[u64]) -> Killed {
        let mut unknown = Vec::new();
        let found = ids.iter().filter_map(|id| {
            let entry = self.registry.get(*id);
            if entry.is_none() {
                unknown.push(*id);
            }
            entry
        });
        let found: Vec<_> = found.collect();
        Killed { killed: kill(&found), unknown }
    }

    fn kill_peers(&self, peers: Prefix) -> Killed {
        let found = self.matching(|entry| peers.contains(entry.peer_ip()));
        Killed { killed: kill(&found), unknown: Vec::new() }
    }

    fn set_log_level(&self, level: LogLevel) -> Result<LevelChanged, Refusal> {
        let old =
            self.level.set(level).map_err(|error| Refusal::refused(format!("cannot change the level: {error}")))?;
        Ok(LevelChanged { old: old.word().to_owned(), new: level.word().to_owned() })
    }
}

fn listener_status(source: &dyn Source) -> ListenerStatus {
    let (stats, connections) = (source.stats(), source.connections());
    let closed: u64 = connections.closed.iter().map(|(_, count)| count).sum();
    let sum = |counters: &[Counter]| counters.iter().map(|counter| stats.get(*counter)).sum();
    ListenerStatus {
        name: source.name().to_owned(),
        bind: source.endpoints(),
        tier: source.tier().to_owned(),
        mode: match source.tier() {
            KERNEL_TIER => "kernel",
            _ if source.cookies_mode() => "cookies",
            _ => "queue",
        }
        .to_owned(),
        half_open: source.half_open(),
        half_open_max: source.half_open_limit(),
        accept_queue: source.accept_queue(),
        accept_queue_max: source.accept_queue_limit(),
        open: connections.accepted.saturating_sub(closed),
        accepted: connections.accepted,
        closed: connections.closed.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
        traffic: Traffic { received_bytes: connections.received_bytes, sent_bytes: connections.sent_bytes },
        syns: stats.get(Counter::SynsReceived),
        cookies_sent: stats.get(Counter::CookiesSent),
        cookies_valid: stats.get(Counter::CookiesValid),
        cookies_bad: sum(&[
            Counter::CookiesExpired,
            Counter::CookiesBadMac,
            Counter::CookiesNotExpected,
            Counter::CookiesOverBudget,
        ]),
        dropped: DropReason::ALL
            .into_iter()
            .map(|reason| (reason.label().to_owned(), stats.dropped(reason)))
            .filter(|(_, count)| *count > 0)
            .collect(),
        ring_dropped: stats.get(Counter::RingDropped),
    }
}

fn conn(entry: &Entry, kernel: Option<&mut SockDiag>) -> Conn {
    let found = kernel.and_then(|kernel| kernel.lookup(&tuple(entry)).ok().flatten());
    Conn {
        id: entry.id,
        peer: canonical(entry.opening.peer),
        local: canonical(entry.opening.local),
        listener: entry.opening.listener.to_string(),
        age_seconds: entry.opened.elapsed().as_millis() as f64 / 1e3,
        traffic: traffic(entry),
        state: found.map(|found| found.state.to_string()),
        via: via(entry.opening.handshake.via).to_owned(),
        service: entry.opening.service.map(str::to_owned),
        upstream: entry.upstream().map(ToString::to_string),
    }
}

fn traffic(entry: &Entry) -> Option<Traffic> {
    entry.bytes().map(|(received_bytes, sent_bytes)| Traffic { received_bytes, sent_bytes })
}

fn tuple(entry: &Entry) -> FourTuple {
    FourTuple { local: Endpoint::from(entry.opening.local), peer: Endpoint::from(entry.opening.peer) }
}

/// Ends connections with RST, and returns how many.
fn kill(entries: &[Arc<Entry>]) -> usize {
    let mut kernel = SockDiag::open().ok();
    for entry in entries {
        // A service resets by itself. The relay, when it is cut short, closes, which sends a FIN if nothing is left unread: so
        // the kernel is asked to destroy the client's socket first. That takes CAP_NET_ADMIN, which datapath `kernel` may lack.
        if let (Some(_), Some(kernel)) = (entry.upstream(), kernel.as_mut()) {
            let found = kernel.lookup(&tuple(entry)).ok().flatten();
            let _ = found.map(|found| kernel.destroy(&found));
        }
        entry.kill();
    }
    entries.len()
}
