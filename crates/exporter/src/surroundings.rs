//! What is shown of the process besides its listeners: the servers behind them, the access log, the master key.

use metrics::{Counter, Gauge};

use crate::registry::Registry;
use crate::source::Histogram;

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

    /// What became of the access log's lines; `None` without one.
    fn access_log(&self) -> Option<AccessLogCounts> {
        None
    }

    /// Rotations of the master key; `None` where there is no key, because the kernel answers SYNs.
    fn key_rotations(&self) -> Option<KeyRotations> {
        None
    }

    /// From which level on the log is written; empty where that is nobody's business.
    fn log_level(&self) -> &'static str {
        ""
    }

    /// The configuration in force, as TOML and without secrets; `None` where there is none.
    fn config(&self) -> Option<String> {
        None
    }
}

/// One server behind a listener.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamCounts {
    /// The value of the `server` label.
    pub server: String,
    /// Whether clients are sent to it before others.
    pub up: bool,
    /// Connections of clients now, those being made included.
    pub connections: u64,
    /// Connects for clients, whatever came of them. Each but the first of a client is a retry.
    pub connects: u64,
    /// Those of them that failed, by the value of the `reason` label. Lists every reason that can occur, zeros included.
    pub connect_failures: Vec<(&'static str, u64)>,
    /// How long those took that did not, in seconds.
    pub connect_durations: Histogram,
    /// Health checks that failed.
    pub check_failures: u64,
    /// What went wrong last, whether or not it is over.
    pub last_error: Option<String>,
}

impl UpstreamCounts {
    /// Connects that failed, for whatever reason.
    pub(crate) fn failed(&self) -> u64 {
        self.connect_failures.iter().map(|(_, count)| count).sum()
    }
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
pub(crate) struct Nothing;

impl Surroundings for Nothing {}

/// The series that are always there.
pub(crate) struct SurroundingSeries {
    log_written: Counter,
    log_dropped: Counter,
    key_rotations: Counter,
    key_rotation_from: Gauge,
}

impl SurroundingSeries {
    pub(crate) fn register(registry: &Registry) -> SurroundingSeries {
        SurroundingSeries {
            log_written: registry.counter("portcullis_access_log_lines_total", &[]),
            log_dropped: registry.counter("portcullis_access_log_dropped_total", &[]),
            key_rotations: registry.counter("portcullis_key_rotations_total", &[]),
            key_rotation_from: registry.gauge("portcullis_syncookies_key_rotation_timestamp_seconds", &[]),
        }
    }

    pub(crate) fn publish(&self, of: &dyn Surroundings) {
        let (log, keys) = (of.access_log().unwrap_or_default(), of.key_rotations().unwrap_or_default());
        self.log_written.absolute(log.written);
        self.log_dropped.absolute(log.dropped);
        self.key_rotations.absolute(keys.count);
        self.key_rotation_from.set(keys.from_unix_seconds as f64);
    }
}
