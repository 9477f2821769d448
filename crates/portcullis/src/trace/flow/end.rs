//! One end of a connection, as far as the segments tell.

use std::time::Duration;

use listener::TcpState;
use wire::SeqNum;

/// Where an end is in its life, up to the point where FINs decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not told by what was seen.
    Unknown,
    Closed,
    Listen,
    SynSent,
    SynReceived,
    /// From ESTABLISHED on: the rest is told by who has sent FIN, and whose was acknowledged.
    Synchronized,
}

/// What is known of one end.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub stage: Stage,
    /// Its initial sequence number, from which its numbers are counted.
    pub isn: Option<SeqNum>,
    /// Behind the last number that it is known to have sent.
    pub next: SeqNum,
    /// The highest acknowledgment it has sent.
    pub acked: Option<SeqNum>,
    /// The last window it has offered, in bytes.
    pub window_bytes: u32,
    /// The shift count of its windows, once both SYNs had the option.
    pub wscale: u8,
    /// The number of its FIN, and when that was seen last.
    pub fin: Option<(SeqNum, Duration)>,
    pub fin_acked: bool,
    /// The other end's FIN has come to it.
    pub peer_fin: bool,
    /// It sent its FIN without having had the other's.
    pub closed_first: bool,
}

impl End {
    pub fn new(stage: Stage) -> End {
        End {
            stage,
            isn: None,
            next: SeqNum::new(0),
            acked: None,
            // Before the first window is known, the largest that an unscaled one can be.
            window_bytes: u32::from(u16::MAX),
            wscale: 0,
            fin: None,
            fin_acked: false,
            peer_fin: false,
            closed_first: false,
        }
    }

    /// The state, by RFC 9293 §3.3.2 and figure 5.
    pub fn state(&self) -> Option<TcpState> {
        Some(match self.stage {
            Stage::Unknown => return None,
            Stage::Closed => TcpState::Closed,
            Stage::Listen => TcpState::Listen,
            Stage::SynSent => TcpState::SynSent,
            Stage::SynReceived => TcpState::SynReceived,
            Stage::Synchronized => self.synchronized(),
        })
    }

    fn synchronized(&self) -> TcpState {
        match (self.fin.is_some(), self.fin_acked, self.peer_fin) {
            (false, _, false) => TcpState::Established,
            (false, _, true) => TcpState::CloseWait,
            (true, false, false) => TcpState::FinWait1,
            (true, true, false) => TcpState::FinWait2,
            (true, false, true) if self.closed_first => TcpState::Closing,
            (true, false, true) => TcpState::LastAck,
            (true, true, true) if self.closed_first => TcpState::TimeWait,
            (true, true, true) => TcpState::Closed,
        }
    }

    /// Takes the number that its count begins at.
    pub fn count_from(&mut self, isn: SeqNum) {
        self.isn = Some(isn);
        self.next = isn + 1;
    }

    /// A number of this end, counted from its first. What lies less than the largest window before that is negative.
    pub fn relative(&self, seq: SeqNum) -> i64 {
        let steps = seq.value().wrapping_sub(self.isn.map_or(seq.value(), SeqNum::value));
        if steps > u32::MAX - STEP_MAX.unsigned_abs() { i64::from(steps.cast_signed()) } else { i64::from(steps) }
    }

    /// It has sent up to here; returns how much of that is new. Steps that no window allows are not believed.
    pub fn advance(&mut self, to: SeqNum) -> u32 {
        let step = to.distance_from(self.next);
        if !(1..=STEP_MAX).contains(&step) {
            return 0;
        }
        self.next = to;
        step.unsigned_abs()
    }

    /// It acknowledges this much.
    pub fn acknowledge(&mut self, ack: SeqNum) {
        if self.acked.is_none_or(|acked| ack.after(acked)) {
            self.acked = Some(ack);
        }
    }
}

/// The largest window there is (RFC 7323 §2.3: 2^30), which nobody can be ahead by more than.
const STEP_MAX: i32 = 1 << 30;
