//! What `/metrics` and `status` show of the process besides its listeners.

use std::sync::{Arc, OnceLock};

use connection::DurationCounts;
use connection::upstream::ServerView;
use exporter::{AccessLogCounts, Histogram, KeyRotations, Surroundings, UpstreamCounts};

use super::keys::Keys;
use super::logging::LevelControl;
use super::reload::Reloader;
use super::serve::Served;
use crate::config::Choice;
use crate::registry::Registry;

/// Where to look. The admin server stands before the listeners serve: what is behind them comes later.
pub struct Insight {
    registry: Arc<Registry>,
    level: Arc<LevelControl>,
    late: OnceLock<Late>,
}

struct Late {
    fronts: Vec<(String, Arc<Served>)>,
    /// `None` where the kernel answers SYNs.
    keys: Option<Arc<Keys>>,
    reloader: Arc<Reloader>,
}

impl Insight {
    /// Before the listeners serve.
    pub fn new(registry: Arc<Registry>, level: Arc<LevelControl>) -> Arc<Insight> {
        Arc::new(Insight { registry, level, late: OnceLock::new() })
    }

    /// Adds what serves, by the names of the listeners, the keys, and who knows the configuration. The first word stands.
    pub fn complete(&self, fronts: Vec<(String, Arc<Served>)>, keys: Option<Arc<Keys>>, reloader: Arc<Reloader>) {
        let _ = self.late.set(Late { fronts, keys, reloader });
    }

    /// The keys, if there are any.
    pub fn keys(&self) -> Option<&Arc<Keys>> {
        self.late.get()?.keys.as_ref()
    }
}

impl Surroundings for Insight {
    fn upstreams(&self) -> Vec<(String, Vec<UpstreamCounts>)> {
        let fronts = self.late.get().map_or(&[][..], |late| &late.fronts);
        let counts = |served: &Served| served.upstreams().into_iter().map(counts).collect::<Vec<_>>();
        fronts.iter().map(|(name, served)| (name.clone(), counts(served))).filter(|(_, of)| !of.is_empty()).collect()
    }

    fn access_log(&self) -> Option<AccessLogCounts> {
        self.registry.log().map(|log| AccessLogCounts { written: log.written(), dropped: log.dropped() })
    }

    fn key_rotations(&self) -> Option<KeyRotations> {
        self.keys().map(|keys| keys.rotations())
    }

    fn log_level(&self) -> &'static str {
        self.level.level().word()
    }

    fn config(&self) -> Option<String> {
        self.late.get().map(|late| late.reloader.config().to_toml())
    }
}

fn counts(view: ServerView) -> UpstreamCounts {
    let DurationCounts { bounds, counts, sum } = view.durations;
    UpstreamCounts {
        server: view.server.to_string(),
        up: view.up,
        connections: view.connections,
        connects: view.total + view.failures,
        connect_failures: view.failures_by.iter().map(|(kind, count)| (kind.label(), *count)).collect(),
        connect_durations: Histogram { bounds, counts, sum },
        check_failures: view.check_failures,
        last_error: view.last_error,
    }
}
