//! From ESTABLISHED on: data, ACKs, and the FINs of both ends.

use std::time::Duration;

use listener::TcpState;
use wire::Flags;

use super::end::Stage;
use super::{Flow, Note, Provocation, Seg, Side, States};

impl Flow {
    /// Data, ACKs and FINs of a connection that stands.
    pub(super) fn on_synchronized(&mut self, at: Duration, from: Side, seg: &Seg) {
        let before = self.states();
        if !seg.flags.contains(Flags::ACK) {
            self.arrow(at, from, seg, before);
            return;
        }
        let answered = self.is_answer(from, seg);
        let [news, acked] = self.take_numbers(from, seg);
        let again = seg.is_fin() && self.end(from).fin.is_some();
        let crossed = self.take_fin(at, from, seg);
        let after = self.states();
        if let Some(provocation) = answered {
            self.arrow(at, from, seg, before);
            match provocation {
                Provocation::Fin if self.end(from).state() == Some(TcpState::TimeWait) => {
                    self.note(at, Note::TimeWaitAnswers);
                }
                Provocation::Fin => {}
                Provocation::Syn | Provocation::Rst => self.note(at, Note::ChallengeAck),
            }
        } else if seg.is_fin() || before != after || self.events.len() == 1 {
            self.arrow(at, from, seg, before);
            self.note_close(at, from, again, crossed, before, after);
        } else {
            self.data(at, from, seg, news, acked);
        }
    }

    /// Moves both ends' numbers on; returns the bytes that are new of the sender's, and of the other's that were only acknowledged.
    pub(super) fn take_numbers(&mut self, from: Side, seg: &Seg) -> [u32; 2] {
        if self.end(from).isn.is_none() {
            self.end_mut(from).count_from(seg.seq - 1);
        }
        if self.end(from.other()).isn.is_none() {
            self.end_mut(from.other()).count_from(seg.ack - 1);
        }
        let news = self.end_mut(from).advance(seg.seq + seg.len);
        let other = self.end_mut(from.other());
        let fin_acked = other.fin.is_some_and(|(fin, _)| seg.ack.after(fin));
        let acked = if fin_acked { 0 } else { other.advance(seg.ack) };
        other.fin_acked |= fin_acked;
        self.end_mut(from).acknowledge(seg.ack);
        [news, acked]
    }

    /// Notes a FIN; whether it crossed the other's.
    pub(super) fn take_fin(&mut self, at: Duration, from: Side, seg: &Seg) -> bool {
        if !seg.is_fin() {
            return false;
        }
        self.stand();
        let other_fin = self.end(from.other()).fin;
        let had_other = other_fin.is_some_and(|(fin, _)| seg.ack.after(fin));
        let sender = self.end_mut(from);
        if sender.fin.is_some() {
            return false;
        }
        sender.fin = Some((seg.seq + seg.len, at));
        sender.closed_first = !had_other;
        sender.advance(seg.end());
        self.end_mut(from.other()).peer_fin = true;
        other_fin.is_some() && !had_other
    }

    fn note_close(&mut self, at: Duration, from: Side, again: bool, crossed: bool, before: States, after: States) {
        if again {
            let end = self.end_mut(from);
            let since = end.fin.map_or(Duration::ZERO, |(_, last)| at.saturating_sub(last));
            end.fin = end.fin.map(|(fin, _)| (fin, at));
            self.provocation = Some((from, Provocation::Fin));
            let handed_on = from == Side::Client && since < FIN_TIMER_MIN;
            self.note(at, if handed_on { Note::FinHandedOn(since) } else { Note::FinAgain(from, since) });
        } else if crossed {
            self.note(at, Note::SimultaneousClose);
        } else if after.client == Some(TcpState::FinWait2) && before.client != after.client {
            self.note(at, Note::HalfClosed(Side::Client));
        } else if after.server == Some(TcpState::FinWait2) && before.server != after.server {
            self.note(at, Note::HalfClosed(Side::Server));
        }
    }

    /// Of a connection that was joined, a FIN or a socket's segment tells that it stood.
    pub(super) fn stand(&mut self) {
        for side in [Side::Client, Side::Server] {
            let end = self.end_mut(side);
            if end.stage == Stage::Unknown {
                end.stage = Stage::Synchronized;
            }
        }
    }

    /// Whether this ACK answers what the other end did last.
    fn is_answer(&mut self, from: Side, seg: &Seg) -> Option<Provocation> {
        let (side, provocation) = self.provocation?;
        let tells_nothing_new = seg.is_pure_ack() && self.end(from).acked.is_none_or(|acked| !seg.ack.after(acked));
        if side != from.other() {
            return None;
        }
        self.provocation = None;
        tells_nothing_new.then_some(provocation)
    }
}

/// No timer repeats a FIN sooner: Linux waits 200 ms, or for a tail loss probe, two round trips and some milliseconds.
const FIN_TIMER_MIN: Duration = Duration::from_millis(10);
