//! What is shown of the process besides its listeners: the servers behind them, the access log, the master key.

use std::sync::Arc;

use metrics::{Counter, Gauge};

use crate::registry::Registry;

/// What the exporter asks of the process: a cheap look at counts kept elsewhere, once per scrape.
///
/// Each method has a default that shows nothing.
pub trait Surroundings: Send + Sync + 'static {
    /// The servers behind each listener that has any, by the listener's name.
    ///
    /// The series of a server that is not in the answer any more go away. A reload makes new pools, whose counts begin at 0.
    fn upstreams(&self) -> Vec<(String, Vec<UpstreamCounts>)> {
        Vec::new()
    }

    /// What became of the access log's lines; all zero without one.
    fn access_log(&self) -> AccessLogCounts {
        AccessLogCounts::default()
    }

    /// Rotations of the master key.
    fn key_rotations(&self) -> KeyRotations {
        KeyRotations::default()
    }
}

/// One server behind a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamCounts {
    /// The value of the `server` label.
    pub server: String,
    /// Whether clients are sent to it before others.
    pub up: bool,
    /// Connections of clients now, those being made included.
    pub connections: u64,
    /// Connects for clients, whatever came of them. Each but the first of a client is a retry.
    pub connects: u64,
    /// Those of them that failed.
    pub connect_failures: u64,
    /// Health checks that failed.
    pub check_failures: u64,
}

/// What became of the access log's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessLogCounts {
    /// Written.
    pub written: u64,
    /// Lost, because they came faster than they could be written, or the file took no more.
    pub dropped: u64,
}

/// What became of the master key since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyRotations {
    /// Rotations that were ordered and accepted.
    pub count: u64,
    /// From when the latest master key makes cookies, in seconds since 1970; 0: it is the first.
    pub from_unix_seconds: u64,
}

/// Says nothing.
struct Nothing;

impl Surroundings for Nothing {}

/// The series that are always there.
pub(crate) struct SurroundingSeries {
    pub(crate) of: Arc<dyn Surroundings>,
    log_written: Counter,
    log_dropped: Counter,
    key_rotations: Counter,
    key_rotation_from: Gauge,
}

impl SurroundingSeries {
    pub(crate) fn register(registry: &Registry) -> SurroundingSeries {
        SurroundingSeries {
            of: Arc::new(Nothing),
            log_written: registry.counter("portcullis_access_log_lines_total", &[]),
            log_dropped: registry.counter("portcullis_access_log_dropped_total", &[]),
            key_rotations: registry.counter("portcullis_key_rotations_total", &[]),
            key_rotation_from: registry.gauge("portcullis_syncookies_key_rotation_timestamp_seconds", &[]),
        }
    }

    pub(crate) fn publish(&self) {
        let (log, keys) = (self.of.access_log(), self.of.key_rotations());
        self.log_written.absolute(log.written);
        self.log_dropped.absolute(log.dropped);
        self.key_rotations.absolute(keys.count);
        self.key_rotation_from.set(keys.from_unix_seconds as f64);
    }
}
