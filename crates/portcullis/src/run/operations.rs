//! What an operator may ask of this process, and how it is done.

use std::collections::{BTreeSet, HashMap};
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
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for id in ids.iter().copied().collect::<BTreeSet<_>>() {
            match self.registry.get(id) {
                Some(entry) => found.push(entry),
                None => unknown.push(id),
            }
        }
        Killed { killed: kill(&found), unknown }
    }

    fn kill_peers(&self, peers: Prefix) -> Killed {
        let found = self.matching(|entry| peers.contains(entry.peer_ip()));
        Killed { killed: kill(&found), unknown: Vec::new() }
    }

    fn set_log_level(&self, level: LogLevel) -> Result<LevelChanged, Refusal> {
        let old =
            self.level.set(level).map_err(|error| Refusal::refused(format!("cannot change the level: {error}")))?;
        tracing::info!("ctl log-level: {}, was {}", level.word(), old.word());
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
    let asked = || kernel.and_then(|kernel| kernel.lookup(&tuple(entry)).ok().flatten()).map(|found| found.state);
    let state = entry.live().map_or_else(asked, |live| live.state());
    Conn {
        id: entry.id,
        peer: canonical(entry.opening.peer),
        local: canonical(entry.opening.local),
        listener: entry.opening.listener.to_string(),
        age_seconds: entry.opened.elapsed().as_millis() as f64 / 1e3,
        traffic: traffic(entry),
        state: state.map(|state| state.to_string()),
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
        if let (None, Some(_), Some(kernel)) = (entry.live(), entry.upstream(), kernel.as_mut()) {
            let found = kernel.lookup(&tuple(entry)).ok().flatten();
            let _ = found.map(|found| kernel.destroy(&found));
        }
        entry.kill();
    }
    tracing::info!("ctl kill: {} connections", entries.len());
    entries.len()
}

#[cfg(test)]
mod tests {
    use portcullis::{Handshake, TcpState, Via};

    use super::*;
    use crate::registry::{Live, Opening, Seat};
    use crate::run::Stop;

    /// A connection that counts its bytes.
    struct Counted(u64);

    impl Live for Counted {
        fn received_bytes(&self) -> u64 {
            self.0
        }

        fn sent_bytes(&self) -> u64 {
            0
        }

        fn state(&self) -> Option<TcpState> {
            Some(TcpState::FinWait2)
        }

        fn close_reason(&self) -> Option<&'static str> {
            None
        }

        fn abort(&self) {}
    }

    fn running() -> Running {
        let level = LevelControl::without_log(LogLevel::Info);
        let registry = Registry::new(None);
        Running::new(&Config::default(), Vec::new(), Arc::default(), registry, level, CancellationToken::new())
    }

    fn open(running: &Running, peer: &str, bytes: Option<u64>) -> Seat {
        let opening = Opening {
            listener: "web".into(),
            service: Some("echo"),
            peer: peer.parse().unwrap(),
            local: "198.18.0.1:80".parse().unwrap(),
            handshake: Handshake { via: Via::Cookie, options: None, duration: None },
        };
        let seat = running.registry.open(opening, &Stop::default());
        bytes.into_iter().for_each(|bytes| seat.set_live(Arc::new(Counted(bytes))));
        seat
    }

    #[test]
    fn top_has_the_prefix_with_the_most_connections_first_and_then_the_one_with_the_most_bytes() {
        let running = running();
        let _seats = [
            open(&running, "198.18.1.1:1", None),
            open(&running, "198.18.2.1:1", Some(5)),
            open(&running, "198.18.3.1:1", Some(7)),
            open(&running, "[2001:db8::1]:1", Some(1)),
            open(&running, "[2001:db8::2]:1", Some(2)),
            open(&running, "[::ffff:198.18.2.9]:1", None),
        ];
        let top = running.top(10);
        let seen: Vec<_> =
            top.top.iter().map(|it| (it.prefix.to_string(), it.open, it.traffic.map(|it| it.received_bytes))).collect();
        let expected = [
            ("198.18.2.0/24", 2, Some(5)),
            ("2001:db8::/64", 2, Some(3)),
            ("198.18.3.0/24", 1, Some(7)),
            ("198.18.1.0/24", 1, None),
        ];
        assert_eq!(seen, expected.map(|(prefix, open, bytes)| (prefix.to_owned(), open, bytes)));
        assert_eq!((running.top(1).prefixes, running.top(1).top.len()), (4, 1));
    }

    #[test]
    fn conns_are_filtered_by_peer_and_bounded() {
        let running = running();
        let _seats =
            ["198.18.1.1:1", "198.18.2.1:1", "[::ffff:198.18.1.9]:1"].map(|peer| open(&running, peer, Some(3)));
        let conns = running.conns(None, Some("198.18.1.0/24".parse().unwrap()), 1).unwrap();
        assert_eq!((conns.matching, conns.connections.len()), (2, 1));
        let conn = &conns.connections[0];
        assert_eq!((conn.id, conn.via.as_str(), conn.state.as_deref()), (1, "cookie", Some("FIN-WAIT-2")));
        assert_eq!(conn.traffic, Some(Traffic { received_bytes: 3, sent_bytes: 0 }));
        let peers: Vec<_> = running.conns(None, None, 9).unwrap().connections.iter().map(|conn| conn.id).collect();
        assert_eq!(peers, [1, 2, 3], "the oldest first");
    }

    #[test]
    fn kill_counts_the_found_and_names_the_others() {
        let running = running();
        let seats = ["198.18.1.1:1", "198.18.2.1:1"].map(|peer| open(&running, peer, None));
        assert_eq!(running.kill_ids(&[77, 1, 1]), Killed { killed: 1, unknown: vec![77] });
        assert!(seats[0].stop().now.is_cancelled() && !seats[1].stop().now.is_cancelled());
        assert_eq!(running.kill_peers("198.18.0.0/16".parse().unwrap()).killed, 2);
        assert!(seats[1].stop().now.is_cancelled());
    }

    #[test]
    fn a_drain_is_asked_for_once() {
        let running = running();
        assert!(!running.drain().already);
        assert!(running.drain.is_cancelled() && running.drain().already);
    }
}
