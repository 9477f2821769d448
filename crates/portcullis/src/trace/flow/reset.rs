//! RST: taken, refused, or challenged (RFC 5961 §3.2, RFC 9293 §3.10.7).

use std::time::Duration;

use wire::Flags;

use super::end::Stage;
use super::{Flow, Note, Provocation, Seg, Side};

/// What becomes of a RST at the end that it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Taken(Note),
    Challenged,
    Refused,
}

impl Flow {
    pub(super) fn on_rst(&mut self, at: Duration, from: Side, seg: &Seg) {
        let before = self.states();
        match self.judge(from, seg) {
            Verdict::Taken(note) => {
                self.reset = true;
                self.provocation = None;
                let unmade = matches!(note, Note::BadCookie { .. });
                self.client.stage = Stage::Closed;
                self.server.stage = if unmade { Stage::Listen } else { Stage::Closed };
                self.arrow(at, from, seg, before);
                self.note(at, note);
            }
            Verdict::Challenged => {
                self.arrow(at, from, seg, before);
                self.provocation = Some((from, Provocation::Rst));
                self.note(at, Note::RstInWindow(from));
            }
            Verdict::Refused => {
                self.arrow(at, from, seg, before);
                self.note(at, Note::RstRefused(from));
            }
        }
    }

    fn judge(&self, from: Side, seg: &Seg) -> Verdict {
        if from == Side::Server {
            // RFC 9293 §3.10.7.1 and §3.10.7.2: a RST in answer to an ACK takes its number from there and has no ACK of its own.
            let answers_ack = !seg.flags.contains(Flags::ACK) && self.bad_ack == Some(seg.seq);
            let never_made = !self.proven && self.via.is_none();
            if answers_ack && never_made || self.joined && !self.proven && !seg.flags.contains(Flags::ACK) {
                return Verdict::Taken(Note::BadCookie { reset: true });
            }
            if self.client.stage == Stage::SynSent && self.server.isn.is_none() {
                // RFC 9293 §3.10.7.3: in SYN-SENT it is the acknowledgment that makes a RST good.
                let good = seg.flags.contains(Flags::ACK) && self.client.isn.is_some_and(|isn| seg.ack == isn + 1);
                return if good { Verdict::Taken(Note::Refused) } else { Verdict::Refused };
            }
        }
        let taken = match self.is_shaking_hands() {
            true => Note::HandshakeReset(from),
            false if from == Side::Server && self.is_unanswered() => Note::RefusedEstablished,
            false => Note::Reset(from),
        };
        self.judge_number(from, seg, taken)
    }

    /// Whether the server has sent nothing behind the handshake.
    fn is_unanswered(&self) -> bool {
        !self.joined && self.server.isn.is_some_and(|isn| self.server.next == isn + 1)
    }

    fn judge_number(&self, from: Side, seg: &Seg, taken: Note) -> Verdict {
        let (sender, receiver) = (self.end(from), self.end(from.other()));
        if sender.isn.is_none() {
            return Verdict::Taken(taken);
        }
        // The tap is at the server, which has what came past. The client may have taken all that was sent, or what it acknowledged.
        let expected = match from {
            Side::Client => sender.next,
            Side::Server => receiver.acked.unwrap_or(sender.next),
        };
        if seg.seq == sender.next || seg.seq == expected {
            return Verdict::Taken(taken);
        }
        if seg.seq.in_window(expected, receiver.window_bytes.max(1)) { Verdict::Challenged } else { Verdict::Refused }
    }
}
