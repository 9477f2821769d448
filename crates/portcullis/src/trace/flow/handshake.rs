//! SYN, SYN-ACK, and the ACK that ends the handshake.

use std::time::Duration;

use wire::{Flags, Options, SeqNum};

use super::end::Stage;
use super::{Arrow, Event, Flow, Note, Provocation, Seg, Side, TIMER_MIN};

impl Flow {
    pub(super) fn on_syn(&mut self, at: Duration, seg: &Seg) {
        let before = self.states();
        let since = at.saturating_sub(self.last_syn);
        match self.client.stage {
            Stage::Closed if self.client.isn.is_none() => {
                self.client.count_from(seg.seq);
                self.client.stage = Stage::SynSent;
                self.server.stage = Stage::SynReceived;
                self.client.wscale = seg.options.wscale.unwrap_or(0);
                self.last_syn = at;
                self.arrow(at, Side::Client, seg, before);
            }
            _ if self.is_shaking_hands() && self.client.isn == Some(seg.seq) => {
                self.last_syn = at;
                self.client.stage = Stage::SynSent;
                self.server.stage = Stage::SynReceived;
                self.arrow(at, Side::Client, seg, before);
                self.note(at, Note::SynAgain(since));
            }
            _ => {
                self.arrow(at, Side::Client, seg, before);
                self.provocation = Some((Side::Client, Provocation::Syn));
                self.note(at, Note::SynInside);
            }
        }
    }

    pub(super) fn on_syn_ack(&mut self, at: Duration, seg: &Seg) {
        let before = self.states();
        let answers = self.client.isn.is_some_and(|isn| seg.ack == isn + 1);
        if !answers {
            if self.server.isn.is_none() {
                self.server.count_from(seg.seq);
            }
            self.arrow(at, Side::Server, seg, before);
            self.note(at, Note::OldSynAck);
            return;
        }
        let again = self.last_syn_ack.filter(|_| self.server.isn == Some(seg.seq));
        let late = at.saturating_sub(self.last_syn);
        self.last_syn_ack = Some(at);
        if self.client.stage == Stage::SynSent || self.server.stage == Stage::SynReceived {
            self.server.count_from(seg.seq);
            self.server.acknowledge(seg.ack);
            self.server.stage = Stage::SynReceived;
            self.agree_on_scale(seg.options.wscale);
            // A repetition says that the client has not answered: then it may not have had the first.
            let first = again.is_none() && late < TIMER_MIN;
            self.client.stage = if first { Stage::Synchronized } else { Stage::SynSent };
        }
        self.arrow(at, Side::Server, seg, before);
        match again {
            Some(last) => self.note(at, Note::SynAckAgain(at.saturating_sub(last))),
            None if late >= TIMER_MIN => self.note(at, Note::SynAckLate(late)),
            None => {}
        }
    }

    /// RFC 7323 §2.2: both ends must have sent the option, else neither scales.
    fn agree_on_scale(&mut self, server: Option<u8>) {
        match server {
            Some(shift) => self.server.wscale = shift,
            None => self.client.wscale = 0,
        }
    }

    /// A segment without SYN or RST, while the handshake is not complete.
    pub(super) fn on_handshake(&mut self, at: Duration, from: Side, seg: &Seg) {
        let before = self.states();
        if from == Side::Server || !seg.flags.contains(Flags::ACK) {
            // A socket of the server's answers although the client's ACK was not seen; or a segment without meaning.
            if from == Side::Server && seg.flags.contains(Flags::ACK) {
                self.establish();
                self.on_synchronized(at, from, seg);
            } else {
                self.arrow(at, from, seg, before);
            }
            return;
        }
        let Some(isn) = self.server.isn else {
            self.infer_syn_ack(at, seg.ack - 1);
            self.complete(at, seg);
            return;
        };
        if seg.ack == isn + 1 || seg.ack.after(isn) && !seg.ack.after(self.server.next) {
            self.proven = true;
            self.complete(at, seg);
        } else {
            let (acked, wanted) = (self.server.relative(seg.ack), self.server.relative(isn + 1));
            self.bad_ack = Some(seg.ack);
            self.arrow(at, from, seg, before);
            self.note(at, Note::BadAck { acked, wanted });
        }
    }

    fn complete(&mut self, at: Duration, seg: &Seg) {
        let before = self.states();
        self.establish();
        self.take_numbers(Side::Client, seg);
        self.take_fin(at, Side::Client, seg);
        self.arrow(at, Side::Client, seg, before);
        self.made_at = self.events.len();
    }

    fn establish(&mut self) {
        self.client.stage = Stage::Synchronized;
        self.server.stage = Stage::Synchronized;
    }

    /// The client acknowledges a SYN-ACK that did not come past the tap. Whether there was one, what follows shows.
    fn infer_syn_ack(&mut self, at: Duration, isn: SeqNum) {
        let before = self.states();
        self.unconfirmed = true;
        self.bad_ack = Some(isn + 1);
        self.server.count_from(isn);
        // Its options are unknown; a window that may be scaled must not be taken for a small one.
        self.server.wscale = WSCALE_MAX;
        self.client.stage = Stage::Synchronized;
        self.push(Event::Segment(Arrow {
            at,
            from: Side::Server,
            flags: Flags::SYN | Flags::ACK,
            seq: 0,
            ack: Some(1),
            window: None,
            options: None::<Options>,
            len: 0,
            inferred: true,
            before,
            after: self.states(),
        }));
        self.note(at, Note::BelowTap);
    }
}

/// RFC 7323 §2.3.
const WSCALE_MAX: u8 = 14;
