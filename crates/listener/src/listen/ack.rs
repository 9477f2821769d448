//! ACK: the third segment of a handshake, by entry or by cookie, or none of ours.

use std::time::Duration;

use wire::{Flags, FourTuple, Segment, SeqNum};

use super::{Disposition, Listen};
use crate::accepted::{Negotiated, Timestamps, Via};
use crate::admission::Arrival;
use crate::config::AcceptCookies;
use crate::cookie::{BadCookie, CookieData, Form};
use crate::half_open::Entry;
use crate::held::KernelSockets;
use crate::pressure::Mode;
use crate::replies::WINDOW;
use crate::stats::{Counter, DropReason};
use crate::time::Time;

impl Listen {
    pub(super) fn on_ack<H: KernelSockets>(
        &mut self,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        arrival: &Arrival,
        host: &mut H,
        now: Time,
    ) -> Disposition {
        if self.young.capture(tuple, segment) {
            return Disposition::Captured;
        }
        let entry = self.half_open.get(tuple);
        if let Some(entry) = entry.filter(Entry::is_open)
            && segment.ack == entry.iss + 1
        {
            return self.on_half_open_ack(tuple, &entry, segment, arrival, host, now);
        }
        match self.check_cookie(tuple, segment, now) {
            Ok((data, irs)) => self.on_cookie_ack(tuple, segment, &data, irs, arrival, host, now),
            Err(why) => {
                if entry.is_some() && self.half_open.guessed(tuple) {
                    // From here on its SYN-ACK is worth what one without an entry is.
                    self.shared.pressure.cookie_sent(now);
                }
                self.on_unknown_ack(tuple, segment, why, host, now)
            }
        }
    }

    /// RFC 9293 §3.10.7.4 in SYN-RECEIVED: first the sequence number, then the acknowledgment number.
    fn on_half_open_ack<H: KernelSockets>(
        &mut self,
        tuple: &FourTuple,
        entry: &Entry,
        segment: &Segment<'_>,
        arrival: &Arrival,
        host: &mut H,
        now: Time,
    ) -> Disposition {
        let cookie = self.cookie_of(tuple, entry);
        let timestamps = segment.options().timestamps;
        // A TSecr that echoes nothing we sent is no answer to our SYN-ACK. A missing option is tolerated: there are
        // clients that leave it out of the third segment.
        let echoes = match (cookie.tsval, timestamps) {
            (Some(ours), Some(ts)) => ts.tsecr == ours,
            _ => true,
        };
        if !echoes && let Ok((data, irs)) = self.check_cookie(tuple, segment, now) {
            // It answers another SYN-ACK of ours with the same ISN: one that was sent before there was an entry.
            return self.on_cookie_ack(tuple, segment, &data, irs, arrival, host, now);
        }
        if !segment.seq.in_window(entry.irs + 1, u32::from(WINDOW)) || !echoes {
            return self.challenge(tuple, entry, now);
        }
        let elapsed = entry.arrived.until(now);
        let options = Negotiated {
            peer_mss: entry.offer.mss,
            peer_wscale: entry.offer.wscale,
            local_wscale: entry.offer.wscale.map(|_| self.config.window_scale),
            sack: entry.offer.sack,
            timestamps: cookie.tsval.zip(entry.offer.tsval).map(|(ours, theirs)| Timestamps {
                local: ours.wrapping_add(millis(elapsed)),
                peer: timestamps.map_or(theirs, |ts| ts.tsval),
            }),
        };
        let (irs, iss) = (entry.irs, entry.iss);
        let accepted = self.accepted(tuple, irs, iss, options, segment, arrival, Via::Queue, Some(elapsed));
        self.accept(accepted, segment)
    }

    #[allow(clippy::too_many_arguments)] // One more than the others' six: the ISN that validated.
    fn on_cookie_ack<H: KernelSockets>(
        &mut self,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        data: &CookieData,
        irs: SeqNum,
        arrival: &Arrival,
        host: &mut H,
        now: Time,
    ) -> Disposition {
        let iss = segment.ack - 1;
        match self.standing(tuple, iss, data.form, host, now) {
            Standing::Free => {}
            Standing::Held => return Disposition::Drop(DropReason::KernelOwns),
            Standing::Busy => {
                self.stats.count(Counter::RefusedTupleBusy);
                return Disposition::Drop(DropReason::KernelOwns);
            }
            Standing::Ended => return self.on_ended(tuple, segment, now),
        }
        let options = Negotiated {
            peer_mss: data.offer.mss,
            peer_wscale: data.offer.wscale,
            local_wscale: data.offer.wscale.map(|_| self.config.window_scale),
            sack: data.offer.sack,
            timestamps: segment.options().timestamps.map(|ts| Timestamps {
                local: ts.tsecr.wrapping_add(millis(data.age.unwrap_or_default())),
                peer: ts.tsval,
            }),
        };
        self.stats.count(Counter::CookiesValid);
        let accepted = self.accepted(tuple, irs, iss, options, segment, arrival, Via::Cookie, data.age);
        self.accept(accepted, segment)
    }

    /// How things stand with the 4-tuple of a cookie that validated.
    ///
    /// The third segment of that very connection, once more, proves nothing new. Another handshake that was completed
    /// proves that the peer has moved on; but an old socket is destroyed for it on the strength of form A alone, because
    /// a form B is worth no more than 25 bits, which somebody could guess, and which the ordinary ACKs of a long transfer
    /// could hit by accident.
    fn standing<H: KernelSockets>(
        &mut self,
        tuple: &FourTuple,
        iss: SeqNum,
        form: Form,
        host: &mut H,
        now: Time,
    ) -> Standing {
        let Some(held) = self.held.get(tuple, now) else { return Standing::Free };
        let same = held.iss == Some(iss);
        if same && held.fresh {
            return Standing::Held;
        }
        match (self.ask_kernel(tuple, host, now), same) {
            (Some(false), true) => Standing::Ended,
            (_, true) => Standing::Held,
            (Some(false), false) => {
                self.held.forget(tuple);
                Standing::Free
            }
            (None, false) => Standing::Held,
            // Whose it is, nobody here knows: it may be the client's very own, from before a restart.
            (Some(true), false) if held.iss.is_none() => Standing::Held,
            (Some(true), false) if form != Form::A => Standing::Busy,
            (Some(true), false) => {
                if host.destroy(tuple) {
                    self.stats.count(Counter::OldSocketsDestroyed);
                }
                self.held.forget(tuple);
                Standing::Free
            }
        }
    }

    /// A segment of a connection that was ours, and is over.
    fn on_ended(&mut self, tuple: &FourTuple, segment: &Segment<'_>, now: Time) -> Disposition {
        let last_ack = segment.payload_len == 0 && self.held.lingers(tuple, now);
        match self.shared.mode() {
            _ if last_ack => Disposition::Drop(DropReason::KernelOwns),
            Mode::Queue => self.reset(tuple, segment, now),
            Mode::Cookies => Disposition::Drop(DropReason::UnknownFlow),
        }
    }

    /// What the ACK's cookie says, and the client's ISN that it says it of.
    fn check_cookie(
        &mut self,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        now: Time,
    ) -> Result<(CookieData, SeqNum), Unchecked> {
        let timestamps = segment.options().timestamps;
        // Form A is too strong to be guessed at, so nobody's guesses shut it.
        if timestamps.is_none() {
            let expected =
                self.config.accept_cookies == AcceptCookies::Always || self.shared.pressure.cookies_outstanding(now);
            if !expected {
                return Err(Unchecked::NotExpected);
            }
            if !self.bad_cookies.has_left(tuple.peer.addr, now) {
                return Err(Unchecked::OverBudget);
            }
        }
        let isn = segment.ack - 1;
        let mut check = |irs| self.cookies.check(tuple, irs, isn, timestamps, now).map(|data| (data, irs));
        let verdict = check(segment.seq - 1);
        // A keepalive lies one before the next sequence number (RFC 9293 §3.8.4). Form A can afford a second try.
        if verdict.is_err() && timestamps.is_some() && segment.payload_len <= 1 {
            return check(segment.seq).or(verdict).map_err(Unchecked::Bad);
        }
        verdict.map_err(Unchecked::Bad)
    }

    /// An ACK that completes nothing. Most of them belong to connections of the kernel.
    ///
    /// RFC 9293 §3.10.7.2: "Any acknowledgment is bad if it arrives on a connection still in the LISTEN state. An
    /// acceptable reset segment should be formed for any arriving ACK-bearing segment." So it is while calm; under
    /// pressure a bad ACK is most likely a guess, and is dropped in silence.
    fn on_unknown_ack<H: KernelSockets>(
        &mut self,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        why: Unchecked,
        host: &mut H,
        now: Time,
    ) -> Disposition {
        let known = self.held.get(tuple, now);
        if known.is_some_and(|known| known.fresh) {
            return Disposition::Drop(DropReason::KernelOwns);
        }
        let held = self.ask_kernel(tuple, host, now);
        let last_ack = segment.payload_len == 0 && held == Some(false) && self.held.lingers(tuple, now);
        // Without an answer, a connection that was the kernel's a while ago gets the benefit of the doubt.
        if held == Some(true) || last_ack || (held.is_none() && known.is_some()) {
            return Disposition::Drop(DropReason::KernelOwns);
        }
        if held.is_some() {
            self.bad_cookies.take(tuple.peer.addr, now);
        }
        self.stats.count(match why {
            Unchecked::NotExpected => Counter::CookiesNotExpected,
            Unchecked::OverBudget => Counter::CookiesOverBudget,
            Unchecked::Bad(BadCookie::Expired) => Counter::CookiesExpired,
            Unchecked::Bad(BadCookie::Mac) => Counter::CookiesBadMac,
        });
        match (self.shared.mode(), held) {
            // It may well be good: nobody has looked.
            _ if why == Unchecked::OverBudget => Disposition::Drop(DropReason::OverBudget),
            (Mode::Queue, Some(_)) => self.reset(tuple, segment, now),
            (Mode::Queue, None) => Disposition::Drop(DropReason::UnknownFlow),
            (Mode::Cookies, _) => Disposition::Drop(DropReason::BadCookie),
        }
    }

    /// SYN+ACK to a port that never sent a SYN: refused as any bad ACK, but without a look at the cookie.
    pub(super) fn on_stray<H: KernelSockets>(
        &mut self,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        host: &mut H,
        now: Time,
    ) -> Disposition {
        if segment.flags.contains(Flags::FIN) {
            return Disposition::Drop(DropReason::BadFlags);
        }
        match (self.shared.mode(), self.ask_kernel(tuple, host, now)) {
            (_, Some(true)) => Disposition::Drop(DropReason::KernelOwns),
            (Mode::Queue, Some(false)) => self.reset(tuple, segment, now),
            _ => Disposition::Drop(DropReason::UnknownFlow),
        }
    }
}

/// How things stand with a 4-tuple on which a handshake was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nobody has it.
    Free,
    /// It is the kernel's.
    Held,
    /// It is another connection's, which does not give way.
    Busy,
    /// This very handshake became a connection, which the kernel does not hold any more.
    Ended,
}

/// Why an ACK's cookie counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unchecked {
    /// No cookie of that form can be outstanding.
    NotExpected,
    /// Its prefix has sent too many bad ones this second.
    OverBudget,
    /// It was checked.
    Bad(BadCookie),
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}
