//! What `/metrics` and `status` show of the process besides its listeners.

use std::sync::{Arc, OnceLock};

use connection::upstream::ServerView;
use exporter::{AccessLogCounts, KeyRotations, Surroundings, UpstreamCounts};

use super::keys::Keys;
use super::serve::Served;
use crate::registry::Registry;

/// Where to look. The admin server stands before the listeners serve: what is behind them comes later.
pub struct Insight {
    registry: Arc<Registry>,
    late: OnceLock<Late>,
}

struct Late {
    fronts: Vec<(String, Arc<Served>)>,
    /// `None` where the kernel answers SYNs.
    keys: Option<Arc<Keys>>,
}

impl Insight {
    /// Before the listeners serve.
    pub fn new(registry: Arc<Registry>) -> Arc<Insight> {
        Arc::new(Insight { registry, late: OnceLock::new() })
    }

    /// Adds what serves, by the names of the listeners, and the keys. The first word stands.
    pub fn complete(&self, fronts: Vec<(String, Arc<Served>)>, keys: Option<Arc<Keys>>) {
        let _ = self.late.set(Late { fronts, keys });
    }

    /// The keys, if there are any.
    pub fn keys(&self) -> Option<&Arc<Keys>> {
        self.late.get()?.keys.as_ref()
    }

    /// The servers behind the listener of this name.
    pub fn upstreams_of(&self, listener: &str) -> Vec<ServerView> {
        let fronts = self.late.get().map_or(&[][..], |late| &late.fronts);
        fronts.iter().find(|(name, _)| name == listener).map(|(_, served)| served.upstreams()).unwrap_or_default()
    }
}

impl Surroundings for Insight {
    fn upstreams(&self) -> Vec<(String, Vec<UpstreamCounts>)> {
        let fronts = self.late.get().map_or(&[][..], |late| &late.fronts);
        let counts = |served: &Served| served.upstreams().into_iter().map(counts).collect::<Vec<_>>();
        fronts.iter().map(|(name, served)| (name.clone(), counts(served))).filter(|(_, of)| !of.is_empty()).collect()
    }

    fn access_log(&self) -> AccessLogCounts {
        let counts =
            |log: &crate::access_log::AccessLog| AccessLogCounts { written: log.written(), dropped: log.dropped() };
        self.registry.log().map(counts).unwrap_or_default()
    }

    fn key_rotations(&self) -> KeyRotations {
        self.keys().map(|keys| keys.rotations()).unwrap_or_default()
    }
}

fn counts(view: ServerView) -> UpstreamCounts {
    UpstreamCounts {
        server: view.server.to_string(),
        up: view.up,
        connections: view.connections,
        connects: view.total + view.failures,
        connect_failures: view.failures,
        check_failures: view.check_failures,
    }
}
