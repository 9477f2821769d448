//! What is told of a connection that has closed.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// One line of the access log. Keys are written in this order, and always all of them: what is not known is `null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// When the connection closed: RFC 3339 in UTC, to the microsecond, as log lines have it.
    pub time: String,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// The number under which `portcullis ctl conns` showed it.
    pub id: u64,
    pub peer: SocketAddr,
    /// Whom the peer speaks for, as a header of the PROXY protocol says.
    pub client: Option<SocketAddr>,
    pub local: SocketAddr,
    /// Who made the handshake: `queue`, `cookie` or `kernel`.
    pub via: &'static str,
    /// From the SYN to the last segment of the handshake; `None` where nobody measured it.
    pub handshake_seconds: Option<f64>,
    /// From the handshake's end, as the application saw it, to the close.
    pub duration_seconds: f64,
    /// Payload from the client.
    pub received_bytes: u64,
    /// Payload to the client.
    pub sent_bytes: u64,
    /// The built-in service that answered.
    pub service: Option<&'static str>,
    /// The server that it was passed on to.
    pub upstream: Option<Arc<str>>,
    /// A `reason` label of `portcullis_connections_closed_total`.
    pub close_reason: Option<&'static str>,
    /// The states of RFC 9293 that it has gone through, as far as this process has part in them.
    pub states: Vec<String>,
}

impl Record {
    /// Appends the record as one line.
    pub(super) fn append_to(&self, lines: &mut Vec<u8>) {
        let begin = lines.len();
        match serde_json::to_writer(&mut *lines, self) {
            Ok(()) => lines.push(b'\n'),
            // Numbers and strings cannot fail to serialise, and memory does not.
            Err(_) => lines.truncate(begin),
        }
    }
}

/// This moment as a record has it.
pub fn timestamp() -> String {
    let mut text = String::with_capacity("2026-01-01T00:00:00.000000Z".len());
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}
