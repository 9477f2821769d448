//! What an operator may ask of this process, and how it is done.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use exporter::{Readiness, Reporter};
use tokio_util::sync::CancellationToken;

use super::heritage::Heritage;
use super::logging::LevelControl;
use super::reload::Reloader;
use super::surroundings::Insight;
use crate::config::diff::Change;
use crate::config::{Choice, LogLevel};
use crate::control::{
    Changed, Conn, Conns, Drained, Killed, LevelChanged, Operations, Prefix, Refusal, Reloaded, Restarted, Rotated,
    Status, Top, TopEntry, Traffic,
};
use crate::registry::{Entry, Registry, canonical, via};

/// The running process.
pub struct Running {
    reporter: Arc<Reporter>,
    readiness: Arc<Readiness>,
    registry: Arc<Registry>,
    insight: Arc<Insight>,
    level: Arc<LevelControl>,
    reloader: Arc<Reloader>,
    heritage: Arc<Heritage>,
    drain: CancellationToken,
}

impl Running {
    /// `drain` is cancelled when somebody asks for the end.
    pub fn new(
        reporter: Arc<Reporter>,
        readiness: Arc<Readiness>,
        (registry, insight): (Arc<Registry>, Arc<Insight>),
        level: Arc<LevelControl>,
        (reloader, heritage): (Arc<Reloader>, Arc<Heritage>),
        drain: CancellationToken,
    ) -> Running {
        Running { reporter, readiness, registry, insight, level, reloader, heritage, drain }
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
        self.reporter.status()
    }

    fn conns(&self, listener: Option<&str>, peer: Option<Prefix>, limit: usize) -> Result<Conns, Refusal> {
        let sources = self.reporter.sources();
        if let Some(name) = listener.filter(|name| !sources.iter().any(|source| source.name() == *name)) {
            let names: Vec<_> = sources.iter().map(|source| source.name()).collect();
            return Err(Refusal::refused(format!("no listener is named {name:?}; there are: {}", names.join(", "))));
        }
        let mut found = self.matching(|entry| {
            listener.is_none_or(|name| *entry.opening.listener == *name)
                && peer.is_none_or(|peer| peer.contains(entry.peer_ip()))
        });
        let matching = found.len();
        found.sort_unstable_by_key(|entry| entry.id);
        found.truncate(limit);
        let connections = found.iter().map(|entry| conn(entry)).collect();
        Ok(Conns { matching, connections })
    }

    fn top(&self, limit: usize) -> Top {
        let mut prefixes: HashMap<Prefix, (usize, Traffic)> = HashMap::new();
        self.registry.for_each(|entry| {
            let (open, sum) = prefixes.entry(Prefix::of_source(entry.peer_ip())).or_default();
            let own = traffic(entry);
            *open += 1;
            sum.received_bytes += own.received_bytes;
            sum.sent_bytes += own.sent_bytes;
        });
        let mut top: Vec<_> =
            prefixes.into_iter().map(|(prefix, (open, traffic))| TopEntry { prefix, open, traffic }).collect();
        let prefixes = top.len();
        let bytes = |entry: &TopEntry| entry.traffic.received_bytes.saturating_add(entry.traffic.sent_bytes);
        // The prefix last, so that equals stand in the same order each time.
        top.sort_unstable_by_key(|entry| (std::cmp::Reverse((entry.open, bytes(entry))), entry.prefix));
        top.truncate(limit);
        Top { prefixes, top }
    }

    fn drain(&self) -> Drained {
        let already = self.drain.is_cancelled() || self.readiness.is_draining();
        self.drain.cancel();
        Drained {
            already,
            open: self.registry.len(),
            deadline_seconds: self.reloader.config().shutdown_deadline.as_secs(),
        }
    }

    fn reload(&self) -> Result<Reloaded, Refusal> {
        if self.readiness.is_draining() {
            return Err(Refusal::refused("it is ending: there is nothing left for a new configuration"));
        }
        let changes = self.reloader.reload().map_err(Refusal::refused)?;
        let told = |Change { key, from, to, .. }: Change| Changed { key, from, to };
        Ok(Reloaded { changes: changes.into_iter().map(told).collect() })
    }

    fn restart(&self) -> Result<Restarted, Refusal> {
        if self.readiness.is_draining() {
            return Err(Refusal::refused("it is ending already"));
        }
        let done = self.reloader.check().and_then(|()| self.heritage.restart());
        let done = done.inspect_err(|why| tracing::error!("ctl restart failed, this process goes on: {why}"));
        Ok(Restarted {
            pid: done.map_err(Refusal::refused)?,
            open: self.registry.len(),
            deadline_seconds: self.reloader.config().shutdown_deadline.as_secs(),
        })
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

    fn rotate_keys(&self, generate: bool, at: Option<u64>) -> Result<Rotated, Refusal> {
        if self.readiness.is_draining() {
            return Err(Refusal::refused("it is ending: the next process reads the key when it starts"));
        }
        match self.insight.keys() {
            Some(keys) => keys.rotate(generate, at),
            None => Err(Refusal::refused("the kernel answers SYNs here (datapath kernel): there is no master key")),
        }
    }

    fn set_log_level(&self, level: LogLevel) -> Result<LevelChanged, Refusal> {
        let old =
            self.level.set(level).map_err(|error| Refusal::refused(format!("cannot change the level: {error}")))?;
        tracing::info!("ctl log-level: {}, was {}", level.word(), old.word());
        Ok(LevelChanged { old: old.word().to_owned(), new: level.word().to_owned() })
    }
}

fn conn(entry: &Entry) -> Conn {
    Conn {
        id: entry.id,
        peer: canonical(entry.opening.peer),
        client: entry.client(),
        local: canonical(entry.opening.local),
        listener: entry.opening.listener.to_string(),
        age_seconds: entry.live.age().as_millis() as f64 / 1e3,
        traffic: traffic(entry),
        state: entry.live.state().map(|state| state.to_string()),
        via: via(entry.opening.handshake.via).to_owned(),
        service: entry.opening.service.map(str::to_owned),
        upstream: entry.upstream().map(ToString::to_string),
    }
}

fn traffic(entry: &Entry) -> Traffic {
    Traffic { received_bytes: entry.live.received_bytes(), sent_bytes: entry.live.sent_bytes() }
}

/// Ends connections with RST, and returns how many.
fn kill(entries: &[Arc<Entry>]) -> usize {
    entries.iter().for_each(|entry| entry.live.abort());
    tracing::info!("ctl kill: {} connections", entries.len());
    entries.len()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    use portcullis::{Handshake, Via};

    use super::super::descriptors::Descriptors;
    use super::super::heritage::Program;
    use super::*;
    use crate::cli::RunArgs;
    use crate::config::Config;
    use crate::registry::{Opening, Seat, Told};
    use crate::takeover::Giving;

    fn running() -> Running {
        let level = Arc::new(LevelControl::without_log(LogLevel::Info));
        let descriptors = Descriptors::now(1024);
        let (args, config) = (RunArgs::default(), Config::default());
        let reloader = Reloader::new(args, config, Vec::new(), descriptors, Arc::default(), level.clone());
        let (registry, drain) = (Registry::new(None), CancellationToken::new());
        let insight = Insight::new(registry.clone(), level.clone());
        let reporter = Arc::new(Reporter::new("1.2.3", Vec::new(), Arc::default()).unwrap());
        let giving = Giving::new(Vec::new(), (None, None), || None, || false, |_| {});
        let heritage = Heritage::new(giving, Program::of_process().unwrap(), None, || {}, CancellationToken::new());
        let reloader = (Arc::new(reloader), Arc::new(heritage));
        Running::new(reporter, Arc::default(), (registry, insight), level, reloader, drain)
    }

    #[test]
    fn without_a_control_socket_nobody_can_take_over() {
        let refusal = running().restart().unwrap_err();
        assert!(refusal.message.contains("no control socket"), "{refusal:?}");
    }

    /// Each with a number one higher than the one before, in its own process.
    fn open(running: &Running, id: u64, peer: &str, received_bytes: u64) -> (Seat, Arc<AtomicBool>) {
        let opening = Opening {
            listener: "web".into(),
            service: Some("echo"),
            peer: peer.parse().unwrap(),
            local: "198.18.0.1:80".parse().unwrap(),
            handshake: Handshake { via: Via::Cookie, options: None, duration: None },
        };
        let aborted = Arc::<AtomicBool>::default();
        let live = Told { id, received_bytes, aborted: aborted.clone() };
        (running.registry.open(opening, Box::new(live)), aborted)
    }

    #[test]
    fn top_has_the_prefix_with_the_most_connections_first_and_then_the_one_with_the_most_bytes() {
        let (running, id) = (running(), AtomicU64::new(1));
        let open = |peer, bytes| open(&running, id.fetch_add(1, Relaxed), peer, bytes);
        let _seats = [
            open("198.18.1.1:1", 0),
            open("198.18.2.1:1", 5),
            open("198.18.3.1:1", 7),
            open("[2001:db8::1]:1", 1),
            open("[2001:db8::2]:1", 2),
            open("[::ffff:198.18.2.9]:1", 1),
        ];
        let top = running.top(10);
        let seen = top.top.iter().map(|it| (it.prefix.to_string(), it.open, it.traffic.received_bytes));
        let expected =
            [("198.18.2.0/24", 2, 6), ("2001:db8::/64", 2, 3), ("198.18.3.0/24", 1, 7), ("198.18.1.0/24", 1, 0)];
        let expected = expected.map(|(prefix, open, bytes)| (prefix.to_owned(), open, bytes));
        assert_eq!(seen.collect::<Vec<_>>(), expected);
        assert_eq!((running.top(1).prefixes, running.top(1).top.len()), (4, 1));
    }

    #[test]
    fn conns_are_filtered_by_peer_and_bounded() {
        let running = running();
        let peers = [(1, "198.18.1.1:1"), (2, "198.18.2.1:1"), (3, "[::ffff:198.18.1.9]:1")];
        let _seats = peers.map(|(id, peer)| open(&running, id, peer, 3));
        let conns = running.conns(None, Some("198.18.1.0/24".parse().unwrap()), 1).unwrap();
        assert_eq!((conns.matching, conns.connections.len()), (2, 1));
        let conn = &conns.connections[0];
        assert_eq!((conn.id, conn.via.as_str(), conn.state.as_deref()), (1, "cookie", Some("FIN-WAIT-2")));
        assert_eq!(conn.traffic, Traffic { received_bytes: 3, sent_bytes: 4 });
        let ids: Vec<_> = running.conns(None, None, 9).unwrap().connections.iter().map(|conn| conn.id).collect();
        assert_eq!(ids, [1, 2, 3], "the oldest first");
    }

    #[test]
    fn kill_counts_the_found_and_names_the_others() {
        let running = running();
        let seats = [(1, "198.18.1.1:1"), (2, "198.18.2.1:1")].map(|(id, peer)| open(&running, id, peer, 0));
        assert_eq!(running.kill_ids(&[77, 1, 1]), Killed { killed: 1, unknown: vec![77] });
        assert!(seats[0].1.load(Relaxed) && !seats[1].1.load(Relaxed));
        assert_eq!(running.kill_peers("198.18.0.0/16".parse().unwrap()).killed, 2);
        assert!(seats[1].1.load(Relaxed));
    }

    #[test]
    fn a_drain_is_asked_for_once_and_a_reload_without_a_file_is_refused() {
        let running = running();
        assert!(running.reload().unwrap_err().message.contains("no configuration file"));
        assert!(!running.drain().already);
        assert!(running.drain.is_cancelled() && running.drain().already);
    }
}
