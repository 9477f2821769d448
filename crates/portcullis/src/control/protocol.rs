//! What is said on the control socket: one [`Request`] on a line, one [`Answer`] on a line.

use std::net::SocketAddr;

pub use exporter::status::{ListenerStatus, Status, Traffic, UpstreamStatus};
use serde::{Deserialize, Serialize};

use super::prefix::Prefix;

/// Longest request, with its newline: a `kill` of [`KILL_IDS_MAX`] connections fits.
pub const REQUEST_BYTES_MAX: usize = 32 * 1024;
/// Longest answer that a client reads: [`CONNS_MAX`] connections fit twice over.
pub const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Most connections that `conns` shows. Each is some 400 bytes of the answer.
pub const CONNS_MAX: usize = 10_000;
/// Most prefixes that `top` shows.
pub const TOP_MAX: usize = 1000;
/// Most connections that one `kill` names.
pub const KILL_IDS_MAX: usize = 1000;

/// What an operator wants: `{"verb":"conns","limit":3}`. A key that has no meaning is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Status {},
    Conns {
        /// Of this listener alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        listener: Option<String>,
        /// Of these clients alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<Prefix>,
        /// 1 to [`CONNS_MAX`].
        limit: usize,
    },
    Top {
        /// 1 to [`TOP_MAX`].
        limit: usize,
    },
    Drain {},
    Reload {},
    Restart {},
    /// Of a process that wants to go on in place of this one: what follows is no line any more.
    TakeOver {
        /// Of what follows.
        version: u32,
    },
    /// Those of these numbers, or those of these clients; not both.
    Kill {
        /// At most [`KILL_IDS_MAX`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ids: Vec<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<Prefix>,
    },
    LogLevel {
        level: String,
    },
    RotateKeys {
        /// A new master key, instead of the one that stands where the first one came from.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        generate: bool,
        /// From when, as Unix time in seconds; as soon as is possible, if it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u64>,
    },
}

/// What came of it: `{"status":{...}}`, or `{"error":{"kind":"refused","message":"..."}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Status(Status),
    Conns(Conns),
    Top(Top),
    Drain(Drained),
    Reload(Reloaded),
    Restart(Restarted),
    Kill(Killed),
    LogLevel(LevelChanged),
    RotateKeys(Rotated),
    Error(Refusal),
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusalKind {
    /// The request means nothing here.
    Usage,
    /// It was understood and cannot be done.
    Refused,
    /// This user may not ask.
    Rights,
}

impl Refusal {
    /// A request that means nothing here.
    pub fn usage(message: impl Into<String>) -> Refusal {
        Refusal { kind: RefusalKind::Usage, message: message.into() }
    }

    /// What was understood and cannot be done.
    pub fn refused(message: impl Into<String>) -> Refusal {
        Refusal { kind: RefusalKind::Refused, message: message.into() }
    }

    /// A user who may not ask.
    pub fn rights(message: impl Into<String>) -> Refusal {
        Refusal { kind: RefusalKind::Rights, message: message.into() }
    }
}

/// Open connections, the oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conns {
    /// How many there are that were asked for; more than are shown, if that is bounded.
    pub matching: usize,
    pub connections: Vec<Conn>,
}

/// One open connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conn {
    /// What `kill` takes.
    pub id: u64,
    pub peer: SocketAddr,
    /// Whom the peer, a proxy, speaks for; `null`: for itself.
    #[serde(default)]
    pub client: Option<SocketAddr>,
    pub local: SocketAddr,
    pub listener: String,
    pub age_seconds: f64,
    pub traffic: Traffic,
    /// The kernel's state of its socket, as `ESTABLISHED`; `null`: it has just been closed.
    pub state: Option<String>,
    /// Who made the handshake: `queue`, `cookie` or `kernel`.
    pub via: String,
    pub service: Option<String>,
    pub upstream: Option<String>,
}

/// Where connections come from, the prefix with the most first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// How many prefixes there are; more than are shown, if that is bounded.
    pub prefixes: usize,
    pub top: Vec<TopEntry>,
}

/// The open connections of one source prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopEntry {
    pub prefix: Prefix,
    pub open: usize,
    pub traffic: Traffic,
}

/// The end was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// It had been asked for before.
    pub already: bool,
    /// Connections that are still open.
    pub open: usize,
    /// Time they have, from the beginning of the drain, before they are closed.
    pub deadline_seconds: u64,
}

/// A new configuration is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys whose value is another one.
    pub changes: Vec<Changed>,
}

/// Another process has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarted {
    /// The new process.
    pub pid: u32,
    /// Connections that the old one finishes.
    pub open: usize,
    /// Time they have before they are closed.
    pub deadline_seconds: u64,
}

/// A key of the configuration whose value has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub key: String,
    pub from: String,
    pub to: String,
}

/// Connections that are being ended with RST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    pub killed: usize,
    /// Numbers that no open connection has.
    pub unknown: Vec<u64>,
}

/// Another master key is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// From when it makes cookies, in seconds since 1970. Cookies of the old one are taken for as long as ever.
    pub from_unix_seconds: u64,
    /// How far that is.
    pub in_seconds: u64,
    /// Where it was read from, or is kept.
    pub source: String,
}

/// The log's level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelChanged {
    pub old: String,
    pub new: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Result<Request, String> {
        serde_json::from_str(line).map_err(|error| error.to_string())
    }

    #[test]
    fn requests_are_lines_with_a_verb() {
        assert_eq!(request(r#"{"verb":"status"}"#), Ok(Request::Status {}));
        assert_eq!(
            request(r#"{"verb":"conns","peer":"192.0.2.1","limit":3}"#),
            Ok(Request::Conns { listener: None, peer: Some("192.0.2.1/32".parse().unwrap()), limit: 3 })
        );
        let kill = Request::Kill { ids: vec![3, 4], peer: None };
        assert_eq!(serde_json::to_string(&kill).unwrap(), r#"{"verb":"kill","ids":[3,4]}"#);
        assert_eq!(request(r#"{"verb":"log-level","level":"debug"}"#), Ok(Request::LogLevel { level: "debug".into() }));
    }

    #[test]
    fn what_has_no_meaning_is_an_error_that_names_it() {
        for (line, part) in [
            (r#"{"verb":"fly"}"#, "`fly`"),
            (r#"{"verb":"status","now":1}"#, "`now`"),
            (r#"{"verb":"conns","limit":-1}"#, "-1"),
            (r#"{"verb":"conns","limit":1,"peer":"x"}"#, "\"x\" is no address"),
            (r#"{"verb":"top"}"#, "`limit`"),
            (r#"[]"#, "`verb`"),
            ("", "EOF"),
        ] {
            let why = request(line).unwrap_err();
            assert!(why.contains(part), "{line}: {why}");
        }
    }

    #[test]
    fn the_longest_kill_fits_into_a_request() {
        let kill = Request::Kill { ids: vec![u64::MAX; KILL_IDS_MAX], peer: None };
        assert!(serde_json::to_string(&kill).unwrap().len() < REQUEST_BYTES_MAX);
    }
}
