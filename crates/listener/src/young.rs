//! Connections between the handshake's last segment and their socket: what the client sends meanwhile is kept here.

use std::collections::HashMap;

use wire::{FourTuple, Segment, SeqNum, TimestampOption};

use crate::accepted::EARLY_DATA_MAX_BYTES;

/// The few connections that are being adopted at this moment.
///
/// At most [`Young::MAX`]: a worker that has so many reads no more packets before it has adopted some.
#[derive(Default)]
pub(crate) struct Young {
    flows: HashMap<FourTuple, Flow>,
    /// Buffers of flows that are done, kept for the next ones.
    spare: Vec<Vec<u8>>,
}

/// What the client sent on one of them.
pub(crate) struct Flow {
    /// The next sequence number that continues what is here.
    next: SeqNum,
    data: Vec<u8>,
    /// The handshake's last segment.
    first: Option<Header>,
    /// The client's FIN, if it came in sequence.
    fin: Option<Header>,
    /// Its RST, if that was exact.
    reset: Option<Header>,
}

/// The header fields of a segment, enough to say it again without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub seq: SeqNum,
    pub ack: SeqNum,
    pub window: u16,
    pub timestamps: Option<TimestampOption>,
}

impl Young {
    /// Flows at a time.
    pub(crate) const MAX: usize = 1024;
    /// Buffers kept.
    const SPARE: usize = 64;

    pub(crate) fn is_full(&self) -> bool {
        self.flows.len() >= Young::MAX
    }

    /// Begins to keep what comes on `tuple` from `first` on.
    pub(crate) fn begin(&mut self, tuple: FourTuple, first: SeqNum) {
        let data = self.spare.pop().unwrap_or_default();
        self.flows.insert(tuple, Flow { next: first, data, first: None, fin: None, reset: None });
    }

    /// Keeps what this segment adds; `false` if its flow is not here.
    pub(crate) fn capture(&mut self, tuple: &FourTuple, segment: &Segment<'_>) -> bool {
        if self.flows.is_empty() {
            return false;
        }
        let Some(flow) = self.flows.get_mut(tuple) else { return false };
        flow.capture(segment);
        true
    }

    pub(crate) fn data(&self, tuple: &FourTuple) -> &[u8] {
        self.flows.get(tuple).map_or(&[], |flow| &flow.data)
    }

    /// Stops keeping, and tells how the flow stands.
    pub(crate) fn end(&mut self, tuple: &FourTuple) -> Ending {
        let Some(mut flow) = self.flows.remove(tuple) else { return Ending::default() };
        let ending = Ending { bytes: flow.data.len(), first: flow.first, fin: flow.fin, reset: flow.reset };
        if self.spare.len() < Young::SPARE {
            flow.data.clear();
            self.spare.push(flow.data);
        }
        ending
    }
}

/// What had come on a flow by the time its socket stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Bytes in sequence.
    pub bytes: usize,
    /// The handshake's last segment.
    pub first: Option<Header>,
    /// The client's FIN behind them.
    pub fin: Option<Header>,
    /// The client's RST.
    pub reset: Option<Header>,
}

impl Header {
    fn of(segment: &Segment<'_>, seq: SeqNum) -> Header {
        let timestamps = segment.options().timestamps;
        Header { seq, ack: segment.ack, window: segment.window, timestamps }
    }
}

impl Flow {
    fn capture(&mut self, segment: &Segment<'_>) {
        use wire::Flags;
        if segment.flags.contains(Flags::RST) {
            // RFC 5961 §3.2: only a RST with exactly the next sequence number resets.
            if segment.seq == self.next {
                self.reset = Some(Header::of(segment, segment.seq));
            }
            return;
        }
        self.first.get_or_insert_with(|| Header::of(segment, segment.seq));
        let already = self.next.distance_from(segment.seq);
        let Ok(already) = usize::try_from(already) else { return };
        let new = segment.payload.get(already..).unwrap_or(&[]);
        let room = EARLY_DATA_MAX_BYTES - self.data.len();
        let kept = new.len().min(room);
        self.data.extend_from_slice(&new[..kept]);
        self.next += kept as u32;
        let complete = self.next == segment.seq + segment.payload_len as u32;
        if segment.flags.contains(Flags::FIN) && complete && self.fin.is_none() {
            self.fin = Some(Header::of(segment, self.next));
        }
    }
}
