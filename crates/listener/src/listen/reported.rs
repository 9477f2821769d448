//! Bookkeeping for a door that answers by itself, in the kernel, and tells afterwards what it did.
//!
//! What the programs answer is exactly what [`Listen::on_packet`] would: a cookie in every SYN-ACK. Kept here is what they
//! cannot keep: the half-open queue with its timers, the mode, the counts.

use std::time::Duration;

use wire::{FourTuple, Reply, SeqNum};

use super::Listen;
use crate::cookie::{KeySlots, KeyVersion, Offer, age_of};
use crate::half_open::{Entry, Full};
use crate::pressure::Mode;
use crate::replies::WINDOW;
use crate::stats::{Counter, DropReason};
use crate::time::Time;

impl Listen {
    /// A SYN was answered at `at` with a cookie for `iss`. While calm it gets an entry; a repeated one has it already.
    pub(crate) fn reported_syn(&mut self, tuple: &FourTuple, irs: SeqNum, iss: SeqNum, offer: &Offer, at: Time) {
        let entry =
            Entry { irs, iss, offer: *offer, arrived: at.stamp(), retransmissions: 0, parked: false, guesses: 0 };
        match self.half_open.get(tuple) {
            // The SYN-ACK that the client answers is most likely the latest.
            Some(known) if (known.irs, known.iss) == (irs, iss) => self.half_open.amend(tuple, offer),
            // The same SYN in another epoch: the client answers the later SYN-ACK.
            Some(known) if known.irs == irs => {
                self.half_open.replace(tuple, &entry);
            }
            // Another ISN: the entry stays for the first, as in `Listen::on_syn`.
            Some(_) => self.stats.count(Counter::CookiesSent),
            None if self.shared.mode() == Mode::Cookies => {
                self.stats.count(Counter::CookiesSent);
                self.stats.count(Counter::HalfOpenFull);
            }
            None => {
                if let Err(full) = self.keep(tuple, &entry) {
                    self.stats.count(match full {
                        Full::Queue => Counter::HalfOpenFull,
                        Full::Prefix => Counter::HalfOpenPrefixFull,
                    });
                    self.stats.count(Counter::CookiesSent);
                }
            }
        }
    }

    /// The handshake with our ISN `iss`, and our TSval `echo` if its client has timestamps, was completed at `at`, and is a connection of the
    /// kernel's.
    pub(crate) fn reported_accepted(&mut self, tuple: &FourTuple, iss: SeqNum, echo: Option<u32>, at: Time) {
        let entry = self.half_open.get(tuple);
        if let Some(entry) = entry.filter(|entry| entry.iss == iss) {
            self.stats.record_handshake(entry.arrived.until(at));
            self.stats.count(Counter::HandshakesByQueue);
        } else if let Some(tsval) = echo {
            self.stats.record_handshake(age_of(tsval, at));
        }
        if entry.is_some() {
            self.forget(tuple, Counter::HalfOpenCompleted);
        }
    }

    /// A RST came with this sequence number: RFC 5961 §3.2 in SYN-RECEIVED.
    pub(crate) fn reported_reset(&mut self, tuple: &FourTuple, seq: SeqNum, now: Time) -> Option<Reply> {
        let entry = self.half_open.get(tuple)?;
        if seq == entry.irs + 1 {
            self.forget(tuple, Counter::HalfOpenReset);
            return None;
        }
        let challenged = seq.in_window(entry.irs + 1, u32::from(WINDOW));
        match challenged.then(|| self.challenge(tuple, &entry, now)) {
            Some(super::Disposition::Reply(reply)) => Some(reply),
            _ => None,
        }
    }

    /// A handshake was complete at `at`, but the accept queue was full. Its SYN-ACK will be repeated, which makes the client
    /// ask again.
    pub(crate) fn reported_full(&mut self, tuple: &FourTuple, irs: SeqNum, iss: SeqNum, offer: &Offer, at: Time) {
        self.stats.count_drop(DropReason::NoRoom);
        let entry =
            Entry { irs, iss, offer: *offer, arrived: at.stamp(), retransmissions: 0, parked: true, guesses: 0 };
        let known = self.half_open.get(tuple).filter(|known| known.iss == iss);
        let parked = known.map_or(entry, |known| Entry { parked: true, ..known });
        if !self.half_open.replace(tuple, &parked) {
            // Without room for it, the client's own repeated data has to do.
            let _ = self.keep(tuple, &parked);
        }
    }

    /// As [`review`](Listen::review); and turns to cookies when so many SYNs are never followed up that each would keep the
    /// queue full many times over. One prefix alone cannot fill the queue, but its reports would cost as if it could.
    pub(crate) fn review_reported(&mut self, since_last: Duration) {
        if let Some(mode) = self.shared.pressure.review_or_turn(since_last) {
            self.switch(mode);
        }
    }

    /// What the programs counted since the last time: SYNs that were answered, and handshakes that were completed.
    pub(crate) fn reported_counts(&mut self, answered: u64, completed: u64) {
        self.unanswered += answered as i64 - completed as i64;
    }

    /// The keys for the programs, if they are others than those of `version`.
    pub(crate) fn keys_unless(&self, version: Option<KeyVersion>) -> Option<KeySlots> {
        (version != Some(self.cookies.version())).then(|| self.cookies.key_slots())
    }
}
