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
        if let Some(entry) = self.half_open.get(tuple)
            && segment.ack == entry.iss + 1
        {
            return self.on_half_open_ack(tuple, &entry, segment, arrival, now);
        }
        match self.check_cookie(tuple, segment, now) {
            Ok(data) => self.on_cookie_ack(tuple, segment, &data, arrival, host, now),
            Err(why) => self.on_unknown_ack(tuple, segment, why, host, now),
        }
    }

    /// RFC 9293 §3.10.7.4 in SYN-RECEIVED: first the sequence number, then the acknowledgment number.
    fn on_half_open_ack(
        &mut self,
        tuple: &FourTuple,
        entry: &Entry,
        segment: &Segment<'_>,
        arrival: &Arrival,
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
        if !segment.seq.in_window(entry.irs + 1, u32::from(WINDOW)) || !echoes {
            return self.challenge(tuple, entry, segment, now);
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

    fn on_cookie_ack<H: KernelSockets>(
        &mut self,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        data: &CookieData,
        arrival: &Arrival,
        host: &mut H,
        now: Time,
    ) -> Disposition {
        let (irs, iss) = (segment.seq - 1, segment.ack - 1);
        if !self.may_replace(tuple, iss, data.form, host, now) {
            return Disposition::Drop(DropReason::KernelOwns);
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

    /// Whether a cookie that validated may become a connection, though there is or was one on this 4-tuple.
    ///
    /// The third segment of that very connection, once more, proves nothing new. Another handshake that was completed
    /// proves that the peer has moved on; but an old socket is destroyed for it on the strength of form A alone, because
    /// a form B is worth no more than 25 bits, which somebody could guess, and which the ordinary ACKs of a long transfer
    /// could hit by accident.
    fn may_replace<H: KernelSockets>(
        &mut self,
        tuple: &FourTuple,
        iss: SeqNum,
        form: Form,
        host: &mut H,
        now: Time,
    ) -> bool {
        let Some(held) = self.held.get(tuple, now) else { return true };
        if held.iss == Some(iss) {
            return false;
        }
        if self.ask_kernel(tuple, host, now) == Some(false) {
            self.held.forget(tuple);
            return true;
        }
        if held.iss.is_none() || form != Form::A {
            return false;
        }
        if host.destroy(tuple) {
            self.stats.count(Counter::OldSocketsDestroyed);
        }
        self.held.forget(tuple);
        true
    }

    fn check_cookie(&mut self, tuple: &FourTuple, segment: &Segment<'_>, now: Time) -> Result<CookieData, Unchecked> {
        let timestamps = segment.options().timestamps;
        let expected = timestamps.is_some()
            || self.config.accept_cookies == AcceptCookies::Always
            || self.shared.pressure.cookies_outstanding(now);
        if !expected {
            return Err(Unchecked::NotExpected);
        }
        if !self.bad_cookies.has_left(tuple.peer.addr, now) {
            return Err(Unchecked::OverBudget);
        }
        let (irs, isn) = (segment.seq - 1, segment.ack - 1);
        self.cookies.check(tuple, irs, isn, timestamps, now).map_err(Unchecked::Bad)
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
        self.bad_cookies.take(tuple.peer.addr, now);
        self.stats.count(match why {
            Unchecked::NotExpected => Counter::CookiesNotExpected,
            Unchecked::OverBudget => Counter::CookiesOverBudget,
            Unchecked::Bad(BadCookie::Expired) => Counter::CookiesExpired,
            Unchecked::Bad(BadCookie::Mac) => Counter::CookiesBadMac,
        });
        match (self.shared.mode(), held) {
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
