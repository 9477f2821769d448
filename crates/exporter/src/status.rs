//! The status document: what `GET /api/v1/status` answers and `portcullis ctl status --json` prints, in this one definition.
//!
//! Programs read it, of this version and of others: keys are added, and none is renamed or taken away. A key that came later than the
//! first version has a default, so that what an older process says can be read. `docs/admin-api.md` explains every key.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The process and its listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Since its start.
    pub uptime_seconds: u64,
    /// The same to the microsecond, by a clock that nobody sets: what rates are computed by. 0 in answers of versions without it.
    #[serde(default)]
    pub clock_seconds: f64,
    /// The time of day, in seconds since 1970.
    #[serde(default)]
    pub unix_seconds: u64,
    /// Whether connections are finishing and no new ones are taken.
    pub draining: bool,
    /// From which level on the log is written.
    pub log_level: String,
    /// `null`: there is none.
    pub access_log: Option<AccessLogStatus>,
    /// `null`: there are none, because the kernel answers SYNs.
    #[serde(default)]
    pub keys: Option<KeysStatus>,
    /// In the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
}

/// What became of the master key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysStatus {
    /// Since the start.
    pub rotations: u64,
    /// From when the latest one makes cookies, in seconds since 1970; `null`: it is the first.
    pub from_unix_seconds: Option<u64>,
}

/// What became of the access log's lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLogStatus {
    /// Lines that were written.
    pub written: u64,
    /// Lines that were lost.
    pub dropped: u64,
}

/// One listener; counts are since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name in the configuration.
    pub name: String,
    /// The guarded addresses.
    pub bind: Vec<SocketAddr>,
    /// The datapath: `bpf`, `raw` or `kernel`.
    pub tier: String,
    /// `queue`, `cookies` while under pressure, or `kernel` where the kernel answers SYNs.
    pub mode: String,
    /// Entries of the half-open queue now.
    pub half_open: u64,
    /// The most there can be.
    pub half_open_max: u64,
    /// With so many entries the mode turns to `cookies`.
    #[serde(default)]
    pub half_open_high: u64,
    /// With more than so many it does not turn back.
    #[serde(default)]
    pub half_open_low: u64,
    /// Entries made.
    #[serde(default)]
    pub half_open_inserted: u64,
    /// Entries that left the queue, by reason, zeros included.
    #[serde(default)]
    pub half_open_removed: BTreeMap<String, u64>,
    /// SYNs that got a cookie and no entry, by reason, zeros included.
    #[serde(default)]
    pub half_open_bypassed: BTreeMap<String, u64>,
    /// Connections that wait to be served.
    pub accept_queue: u64,
    /// The most that can wait.
    pub accept_queue_max: u64,
    /// Finished handshakes that had to wait because no more could.
    #[serde(default)]
    pub accept_queue_overflows: u64,
    /// Open connections.
    pub open: u64,
    /// The most there may be; `null`: no limit.
    #[serde(default)]
    pub connections_max: Option<u64>,
    /// Connections that were accepted.
    pub accepted: u64,
    /// By reason, zeros included.
    pub closed: BTreeMap<String, u64>,
    /// Closed as soon as they were accepted, because of a limit or a list, by reason, zeros included.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// The kernel's sockets by state, SYN-RECEIVED from the half-open queue; up to a second old. `null`: they could not be counted.
    #[serde(default)]
    pub states: Option<BTreeMap<String, u64>>,
    /// Steps from one state to another.
    #[serde(default)]
    pub transitions: TransitionsStatus,
    /// Payload from clients and to them.
    pub traffic: Traffic,
    /// SYNs that were plausible.
    pub syns: u64,
    /// SYNs of sources that the lists deny.
    #[serde(default)]
    pub syns_denied: u64,
    /// SYN-ACKs, repeated ones included.
    #[serde(default)]
    pub synacks_sent: u64,
    /// SYN-ACKs for which no entry was kept.
    pub cookies_sent: u64,
    /// Cookies that validated.
    pub cookies_valid: u64,
    /// Expired, of a wrong MAC, not expected, or over the budget of their prefix.
    pub cookies_bad: u64,
    /// The same by reason, zeros included.
    #[serde(default)]
    pub cookies_invalid: BTreeMap<String, u64>,
    /// Handshakes that were completed, by what recognised the last segment: `queue` or `cookie`.
    #[serde(default)]
    pub handshakes: BTreeMap<String, u64>,
    /// Those that could not become a connection at once, by reason, zeros included.
    #[serde(default)]
    pub handshakes_refused: BTreeMap<String, u64>,
    /// How long they took.
    #[serde(default)]
    pub handshake_seconds: HistogramStatus,
    /// RST segments of the listener's own.
    #[serde(default)]
    pub resets_sent: u64,
    /// Challenge ACKs, RFC 5961.
    #[serde(default)]
    pub challenge_acks_sent: u64,
    /// Replies that were not sent, because their prefix had used up its budget.
    #[serde(default)]
    pub replies_suppressed: u64,
    /// Segments dropped without an answer, by reason; reasons that did not occur are left out.
    pub dropped: BTreeMap<String, u64>,
    /// Frames that came faster than they could be read.
    pub ring_dropped: u64,
    /// The last ones, the oldest first.
    #[serde(default)]
    pub switches: Vec<SwitchStatus>,
    /// The servers behind it.
    #[serde(default)]
    pub upstreams: Vec<UpstreamStatus>,
}

/// Steps of connections from one state to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionsStatus {
    /// Whether the steps behind the handshake are counted; if not, they are 0.
    pub complete: bool,
    /// Every step that a passively opened connection can take.
    pub counts: Vec<TransitionStatus>,
}

/// A step from one state to another, by their RFC names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionStatus {
    /// The state before.
    pub from: String,
    /// The state after.
    pub to: String,
    /// How often it was taken.
    pub count: u64,
}

/// How many there were of each size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramStatus {
    /// The upper bounds of the buckets.
    pub bounds: Vec<f64>,
    /// How many are in each bucket, and not in one before; one more than there are bounds, for what is above them all.
    pub counts: Vec<u64>,
    /// All of them added up.
    pub sum: f64,
}

/// A switch of the mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchStatus {
    /// `queue` or `cookies`.
    pub to: String,
    /// When, in seconds since 1970.
    pub unix_seconds: u64,
}

/// A server behind a listener; counts are since it was configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its address.
    pub server: String,
    /// Whether clients are sent to it before others.
    pub up: bool,
    /// Connections of clients now.
    pub connections: u64,
    /// Connects for clients, whatever came of them.
    pub connects: u64,
    /// Those that failed.
    pub connect_failures: u64,
    /// Health checks that failed.
    pub check_failures: u64,
    /// What went wrong last, whether or not it is over.
    pub last_error: Option<String>,
}

/// Payload, as the application read and wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// From clients.
    pub received_bytes: u64,
    /// To clients.
    pub sent_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 0.1.0 answered before there was an exporter's definition.
    const OLD: &str = r#"{
        "version": "0.1.0", "pid": 1, "uptime_seconds": 2, "draining": false, "log_level": "info", "access_log": null,
        "listeners": [{
            "name": "api", "bind": ["[2001:db8::1]:80"], "tier": "bpf", "mode": "queue", "half_open": 0, "half_open_max": 64,
            "accept_queue": 1, "accept_queue_max": 10, "open": 0, "accepted": 0, "closed": {},
            "traffic": {"received_bytes": 0, "sent_bytes": 0}, "syns": 0, "cookies_sent": 0, "cookies_valid": 0,
            "cookies_bad": 0, "dropped": {}, "ring_dropped": 0
        }]
    }"#;

    #[test]
    fn what_an_older_process_says_is_understood() {
        let status: Status = serde_json::from_str(OLD).unwrap();
        assert_eq!(status.listeners[0].accept_queue_max, 10);
        assert_eq!(status.listeners[0].transitions, TransitionsStatus::default());
    }

    #[test]
    fn what_a_later_process_says_besides_is_passed_over() {
        let later = OLD.replacen("\"pid\": 1", "\"pid\": 1, \"of_tomorrow\": [1]", 1);
        assert_eq!(serde_json::from_str::<Status>(&later).unwrap(), serde_json::from_str(OLD).unwrap());
    }
}
