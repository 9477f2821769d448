//! SYN: answered with a cookie, and kept in the half-open queue while calm.

use wire::{Flags, FourTuple, Segment, SeqNum};

use super::{Disposition, Listen};
use crate::admission::Arrival;
use crate::cookie::{Cookie, Family, Offer};
use crate::half_open::{Entry, Full};
use crate::held::KernelSockets;
use crate::pressure::Mode;
use crate::replies;
use crate::sources::Denial;
use crate::stats::{Counter, DropReason};
use crate::time::Time;

impl Listen {
    /// RFC 9293 §3.10.7.2, third: a SYN in LISTEN. Data in it is not acknowledged, so the client sends it again.
    pub(super) fn on_syn<H: KernelSockets>(
        &mut self,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        arrival: &Arrival,
        host: &mut H,
        now: Time,
    ) -> Disposition {
        if segment.flags.contains(Flags::FIN) {
            return Disposition::Drop(DropReason::BadFlags);
        }
        self.stats.count(Counter::SynsReceived);
        if self.draining {
            return Disposition::Drop(DropReason::Draining);
        }
        // Before the kernel is asked and a budget is spent: a flood of the denied uses up nothing of others'.
        if self.sources.denies(tuple.peer.addr) {
            return self.deny(tuple, segment, now);
        }
        let entry = self.half_open.get(tuple);
        if entry.is_none() && self.kernel_answers_syn(tuple, host, now) {
            return Disposition::Drop(DropReason::KernelOwns);
        }
        if !self.replies.take(tuple.peer.addr, now) {
            self.stats.count(Counter::RepliesOverBudget);
            return Disposition::Drop(DropReason::OverBudget);
        }
        let offer = Offer::new(&segment.options(), Family::of(tuple.peer.addr));
        let cookie = match entry {
            Some(entry) if entry.irs == segment.seq && entry.offer.agrees_with(&offer) => self.cookie_of(tuple, &entry),
            // Another ISN, or other options: a new incarnation of the client, one that tries with less, or somebody who
            // wants to undo the old one. The entry stays for the first; the cookie alone serves the second.
            Some(entry) => self.cookie_beside(tuple, &entry, segment.seq, &offer, now),
            None => self.cookie_with_entry(tuple, segment.seq, &offer, now),
        };
        self.stats.count(Counter::SynAcksSent);
        Disposition::Reply(replies::syn_ack(tuple, segment.seq, &cookie, &offer, self.config.window_scale, arrival.mtu))
    }

    /// A SYN of a source that the lists deny. One for a connection from before the lists is denied too: a live client does not take the RST,
    /// whose sequence number is none of its own (RFC 5961 §3.2), and one that has begun anew is to be refused.
    fn deny(&mut self, tuple: &FourTuple, segment: &Segment<'_>, now: Time) -> Disposition {
        self.stats.count(Counter::SynsDenied);
        match self.sources.denial() {
            Denial::Silent => Disposition::Drop(DropReason::Denied),
            Denial::Reset => self.reset_with(tuple, replies::refusal(tuple, segment), now),
        }
    }

    /// RFC 5961 §4.2 and RFC 6191: a SYN for a connection the kernel holds is the kernel's, be it for a challenge ACK or
    /// for the rules of TIME-WAIT. Asked for each SYN while calm, and under pressure for those that are in the cache.
    fn kernel_answers_syn<H: KernelSockets>(&mut self, tuple: &FourTuple, host: &mut H, now: Time) -> bool {
        let known = self.held.get(tuple, now).is_some();
        if self.shared.mode() == Mode::Cookies && !known {
            return false;
        }
        match self.ask_kernel(tuple, host, now) {
            Some(true) => true,
            Some(false) => {
                self.held.forget(tuple);
                false
            }
            // Not asked: what is known is believed. The client will ask again.
            None => known,
        }
    }

    /// The ISN for a new handshake, with an entry while the listener is calm and has room.
    fn cookie_with_entry(&mut self, tuple: &FourTuple, irs: SeqNum, offer: &Offer, now: Time) -> Cookie {
        self.unanswered += 1;
        if self.shared.mode() == Mode::Cookies {
            self.stats.count(Counter::HalfOpenFull);
            return self.cookie_without_entry(tuple, irs, offer, now);
        }
        let cookie = self.cookies.mint(tuple, irs, offer, now);
        let entry = Entry {
            irs,
            iss: cookie.isn,
            offer: *offer,
            arrived: now.stamp(),
            retransmissions: 0,
            parked: false,
            guesses: 0,
        };
        if let Err(full) = self.keep(tuple, &entry) {
            self.stats.count(match full {
                Full::Queue => Counter::HalfOpenFull,
                Full::Prefix => Counter::HalfOpenPrefixFull,
            });
            self.note_cookie_sent(now);
        }
        cookie
    }

    /// The ISN for a SYN on a 4-tuple whose entry stands for another SYN.
    fn cookie_beside(&mut self, tuple: &FourTuple, entry: &Entry, irs: SeqNum, offer: &Offer, now: Time) -> Cookie {
        let cookie = self.cookie_without_entry(tuple, irs, offer, now);
        if (entry.irs, entry.iss) == (irs, cookie.isn) {
            // Options so alike that the cookie does not tell them apart: an ACK will find the entry, so that has to know.
            self.half_open.amend(tuple, offer);
        }
        cookie
    }

    fn cookie_without_entry(&mut self, tuple: &FourTuple, irs: SeqNum, offer: &Offer, now: Time) -> Cookie {
        self.note_cookie_sent(now);
        self.cookies.mint(tuple, irs, offer, now)
    }

    fn note_cookie_sent(&mut self, now: Time) {
        self.stats.count(Counter::CookiesSent);
        self.shared.pressure.cookie_sent(now);
    }

    /// The cookie in the SYN-ACK that this entry stands for.
    pub(super) fn cookie_of(&mut self, tuple: &FourTuple, entry: &Entry) -> Cookie {
        let cookie = self.cookies.remint(tuple, entry.irs, entry.iss, &entry.offer, entry.arrived);
        Cookie { isn: entry.iss, tsval: cookie.tsval }
    }
}
