//! One JSON object per event, for scripts: `docs/operations.md` documents the keys.

use std::time::Duration;

use listener::TcpState;
use serde::Serialize;
use wire::FourTuple;

use super::draw::flag_names;
use super::flow::{self, Event, Note};

/// A line of the output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    Segment {
        #[serde(flatten)]
        of: Of,
        from: &'static str,
        flags: String,
        seq: i64,
        ack: Option<i64>,
        window: Option<u16>,
        bytes: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        options: Option<Options>,
        inferred: bool,
        before: States,
        after: States,
    },
    Data {
        #[serde(flatten)]
        of: Of,
        until_seconds: f64,
        from_client: Bulk,
        from_server: Bulk,
        after: States,
    },
    Note {
        #[serde(flatten)]
        of: Of,
        code: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        via: Option<&'static str>,
        text: String,
    },
    End {
        #[serde(flatten)]
        of: Of,
    },
    Summary {
        flows: u64,
        segments_not_shown: u64,
        flows_not_shown: u64,
    },
}

/// Which connection, and when.
#[derive(Debug, Serialize)]
pub struct Of {
    flow: u64,
    client: String,
    server: String,
    /// Since its first segment.
    seconds: f64,
}

impl Of {
    /// What happened in a flow that began then.
    pub fn new(number: u64, tuple: &FourTuple, begun: Duration, at: Duration) -> Of {
        let (client, server) = (tuple.peer.to_string(), tuple.local.to_string());
        Of { flow: number, client, server, seconds: since(at, begun) }
    }
}

/// The states of both ends; `null` where too little was seen.
#[derive(Debug, Serialize)]
pub struct States {
    client: Option<String>,
    server: Option<String>,
}

/// What a SYN or SYN-ACK offers.
#[derive(Debug, Serialize)]
pub struct Options {
    mss: Option<u16>,
    wscale: Option<u8>,
    sack: bool,
    timestamps: bool,
}

/// What one end has sent.
#[derive(Debug, Serialize)]
pub struct Bulk {
    bytes: u64,
    /// `null`: not all of them were looked at.
    segments: Option<u32>,
    retransmitted: u32,
    acks: u32,
}

impl Line {
    /// An event of a flow that began then.
    pub fn new(number: u64, tuple: &FourTuple, begun: Duration, event: &Event) -> Line {
        let of = Of::new(number, tuple, begun, event.at());
        match event {
            Event::Segment(arrow) => Line::Segment {
                of,
                from: arrow.from.word(),
                flags: flag_names(arrow.flags),
                seq: arrow.seq,
                ack: arrow.ack,
                window: arrow.window,
                bytes: arrow.len,
                options: arrow.options.map(Options::from),
                inferred: arrow.inferred,
                before: arrow.before.into(),
                after: arrow.after.into(),
            },
            Event::Data(data) => Line::Data {
                of,
                until_seconds: since(data.until, begun),
                from_client: data.client.into(),
                from_server: data.server.into(),
                after: data.states.into(),
            },
            Event::Note(_, note) => {
                let via = if let Note::Via(via) = note { Some(via.word()) } else { None };
                Line::Note { of, code: note.code(), via, text: note.to_string() }
            }
        }
    }
}

impl From<flow::States> for States {
    fn from(states: flow::States) -> States {
        let name = |state: Option<TcpState>| state.map(|state| state.to_string());
        States { client: name(states.client), server: name(states.server) }
    }
}

impl From<wire::Options> for Options {
    fn from(options: wire::Options) -> Options {
        let wire::Options { mss, wscale, sack_permitted, timestamps } = options;
        Options { mss, wscale, sack: sack_permitted, timestamps: timestamps.is_some() }
    }
}

impl From<flow::Bulk> for Bulk {
    fn from(bulk: flow::Bulk) -> Bulk {
        let segments = bulk.is_complete().then_some(bulk.segments);
        Bulk { bytes: bulk.bytes, segments, retransmitted: bulk.again, acks: bulk.acks }
    }
}

/// Microseconds are what the clock is good for.
fn since(at: Duration, begun: Duration) -> f64 {
    at.saturating_sub(begun).as_micros() as f64 / 1e6
}
