//! What happens to a segment: LISTEN and SYN-RECEIVED of RFC 9293 §3.10.7, with SYN cookies.
//!
//! ```text
//! SYN ──► admission ──► does the kernel hold the 4-tuple? ──► reply budget ──► SYN-ACK, ISN = cookie
//!                                                                               (+ half-open entry while calm)
//! ACK ──► admission ──► half-open entry? ──► cookie? ──► Accept
//!                                                └─────► the kernel's? leave it : RST while calm, silence under pressure
//! RST ──► admission ──► half-open entry? ──► RFC 5961
//! ```

use std::sync::Arc;
use std::time::Duration;

use wire::{Flags, FourTuple, Packet, ParseError, Reply, Segment, SeqNum, TimestampOption};

use crate::accepted::{Accepted, Negotiated, Refusal, Timestamps, Via};
use crate::admission::{Admission, Arrival, LocalAddresses};
use crate::budget::Budget;
use crate::config::{AcceptCookies, ListenConfig};
use crate::cookie::{BadCookie, Cookie, CookieData, CookieJar, Epoch, Family, MasterKey, Offer};
use crate::half_open::{Entry, Full, HalfOpen, Swept};
use crate::held::{Held, KernelSockets};
use crate::pressure::{Mode, Pressure};
use crate::ration::Ration;
use crate::replies::{self, WINDOW};
use crate::stats::{Counter, DropReason, Stats};
use crate::time::Time;
use crate::young::Young;

/// What the core decided about a segment.
#[derive(Debug)]
#[must_use]
pub enum Disposition {
    /// Send this back where the segment came from.
    Reply(Reply),
    /// The handshake is complete. The caller makes a connection of it, then calls [`Listen::established`] or
    /// [`Listen::refused`]; until then the core keeps what the client sends.
    Accept(Accepted),
    /// The segment belongs to a connection being made; its bytes were kept.
    Captured,
    /// No answer.
    Drop(DropReason),
}

/// What is left to do when a connection stands.
#[derive(Debug, Default)]
pub struct Aftermath {
    /// To the client: an ACK for the bytes that came before the socket did.
    pub ack: Option<Reply>,
    /// To this host's own stack, in the client's name: its FIN, which came before the socket did.
    pub repeated_fin: Option<Reply>,
}

/// State that the workers of one listener share: its mode and the gates that depend on all of them.
#[derive(Debug)]
pub struct ListenShared {
    pressure: Pressure,
}

impl ListenShared {
    /// Shared state for listeners with this configuration, begun at `now`.
    pub fn new(config: &ListenConfig, now: Time) -> ListenShared {
        let (high, low) = (config.share(config.high_watermark_percent), config.share(config.low_watermark_percent));
        ListenShared { pressure: Pressure::new(high, low, config.entry_lifetime(), now) }
    }

    /// Whether half-open entries are kept now.
    pub fn mode(&self) -> Mode {
        self.pressure.mode()
    }

    /// Half-open entries of all workers.
    pub fn half_open(&self) -> u64 {
        self.pressure.half_open()
    }
}

/// One worker's part of a listener: a function of segments, time and what it has seen before. No I/O, no clock.
pub struct Listen {
    config: ListenConfig,
    admission: Admission,
    shared: Arc<ListenShared>,
    cookies: CookieJar,
    half_open: HalfOpen,
    held: Held,
    young: Young,
    replies: Budget,
    bad_cookies: Budget,
    questions: Ration,
    stats: Stats,
    switched: Option<Mode>,
    draining: bool,
    /// SYNs answered less handshakes completed since the last [`tick`](Listen::tick).
    unanswered: i64,
}

/// Connections remembered as the kernel's, 64 bytes each: 2 MiB per worker, touched as they are used.
const HELD_CAPACITY: usize = 32 * 1024;

/// Questions to the kernel per second and worker, about 2 µs each: at most 2 % of a core.
const QUESTIONS_PER_SECOND: u32 = 10_000;

/// A worker's place among the workers of one listener, and its secrets.
pub struct WorkerSeat {
    /// Workers of this listener; each gets an equal part of the half-open queue.
    pub workers: usize,
    /// Key of the tables that attackers must not be able to crowd: fresh randomness.
    pub seed: [u8; 16],
}

impl Listen {
    /// A worker's listener. `config` must have passed [`ListenConfig::validate`].
    pub fn new(
        config: ListenConfig,
        shared: Arc<ListenShared>,
        master: MasterKey,
        seat: WorkerSeat,
        epoch: Epoch,
        now: Time,
    ) -> Listen {
        let entries = (config.half_open_max / seat.workers).max(1);
        let share = config.share(config.prefix_share_percent).div_ceil(seat.workers);
        Listen {
            admission: Admission::new(&config.bind),
            shared,
            cookies: CookieJar::new(master, epoch),
            half_open: HalfOpen::new(entries, share, seat.seed),
            held: Held::new(HELD_CAPACITY),
            young: Young::default(),
            replies: Budget::new(config.replies_per_prefix, seat.seed),
            bad_cookies: Budget::new(config.bad_cookies_per_prefix, seat.seed),
            questions: Ration::new(QUESTIONS_PER_SECOND, now),
            stats: Stats::default(),
            switched: None,
            draining: false,
            unanswered: 0,
            config,
        }
    }

    /// Judges one packet: what the wire crate made of it, and where it came in.
    pub fn on_packet<H: LocalAddresses + KernelSockets>(
        &mut self,
        packet: Result<Packet<'_>, ParseError>,
        arrival: &Arrival,
        host: &mut H,
        now: Time,
    ) -> Disposition {
        let disposition = match packet {
            Ok(packet) => match self.admission.check(&packet.tuple, arrival, host) {
                Ok(()) => self.on_segment(&packet.tuple, &packet.segment, arrival, host, now),
                Err(reason) => Disposition::Drop(reason),
            },
            Err(error) => Disposition::Drop(unreadable(&error)),
        };
        self.account(&disposition);
        disposition
    }

    fn on_segment<H: LocalAddresses + KernelSockets>(
        &mut self,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        arrival: &Arrival,
        host: &mut H,
        now: Time,
    ) -> Disposition {
        let flags = segment.flags;
        if flags.contains(Flags::RST) {
            return self.on_rst(tuple, segment, now);
        }
        match (flags.contains(Flags::SYN), flags.contains(Flags::ACK)) {
            (true, false) => self.on_syn(tuple, segment, arrival, host, now),
            (true, true) => self.on_stray(tuple, segment, host, now),
            (false, true) => self.on_ack(tuple, segment, arrival, host, now),
            (false, false) => Disposition::Drop(DropReason::BadFlags),
        }
    }

    // ------------------------------------------------------------------------------------------------ SYN

    /// RFC 9293 §3.10.7.2, third: a SYN in LISTEN. Data in it is not acknowledged, so the client sends it again.
    fn on_syn<H: KernelSockets>(
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
            Some(entry) if entry.irs == segment.seq => self.cookie_of(tuple, &entry),
            // Another ISN: a new incarnation of the client, or somebody who wants to undo the old one. The entry stays
            // for the first; the cookie alone serves the second.
            Some(_) => self.cookie_without_entry(tuple, segment.seq, &offer, now),
            None => self.cookie_with_entry(tuple, segment.seq, &offer, now),
        };
        self.stats.count(Counter::SynAcksSent);
        Disposition::Reply(replies::syn_ack(tuple, segment.seq, &cookie, &offer, self.config.window_scale, arrival.mtu))
    }

    /// RFC 5961 §4.2 and RFC 6191: a SYN for a connection the kernel holds is the kernel's, be it for a challenge ACK or
    /// for the rules of TIME-WAIT. Asked for each SYN while calm, and under pressure for those that are in the cache.
    fn kernel_answers_syn<H: KernelSockets>(&mut self, tuple: &FourTuple, host: &mut H, now: Time) -> bool {
        let known = self.held.get(tuple, now).is_some();
        if self.shared.mode() == Mode::Cookies && !known {
            return false;
        }
        self.ask_kernel(tuple, host, now).unwrap_or(false)
    }

    /// The ISN for a new handshake, with an entry while the listener is calm and has room.
    fn cookie_with_entry(&mut self, tuple: &FourTuple, irs: SeqNum, offer: &Offer, now: Time) -> Cookie {
        self.unanswered += 1;
        if self.shared.mode() == Mode::Cookies {
            return self.cookie_without_entry(tuple, irs, offer, now);
        }
        let cookie = self.cookies.mint(tuple, irs, offer, now);
        let entry =
            Entry { irs, iss: cookie.isn, offer: *offer, arrived: now.stamp(), retransmissions: 0, parked: false };
        if let Err(full) = self.keep(tuple, &entry) {
            self.stats.count(match full {
                Full::Queue => Counter::HalfOpenFull,
                Full::Prefix => Counter::HalfOpenPrefixFull,
            });
            self.note_cookie_sent(now);
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
    fn cookie_of(&mut self, tuple: &FourTuple, entry: &Entry) -> Cookie {
        let cookie = self.cookies.remint(tuple, entry.irs, entry.iss, &entry.offer, entry.arrived);
        Cookie { isn: entry.iss, tsval: cookie.tsval }
    }

    // ------------------------------------------------------------------------------------------------ RST

    /// RFC 5961 §3.2 in SYN-RECEIVED; in LISTEN a RST is ignored (RFC 9293 §3.10.7.2, first).
    fn on_rst(&mut self, tuple: &FourTuple, segment: &Segment<'_>, now: Time) -> Disposition {
        if self.young.capture(tuple, segment) {
            return Disposition::Captured;
        }
        let Some(entry) = self.half_open.get(tuple) else { return Disposition::Drop(DropReason::Reset) };
        if segment.seq == entry.irs + 1 {
            self.forget(tuple, Counter::HalfOpenReset);
            return Disposition::Drop(DropReason::Reset);
        }
        if segment.seq.in_window(entry.irs + 1, u32::from(WINDOW)) {
            return self.challenge(tuple, &entry, segment, now);
        }
        Disposition::Drop(DropReason::Reset)
    }

    // ------------------------------------------------------------------------------------------------ ACK

    fn on_ack<H: KernelSockets>(
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
        if let Some(held) = self.held.get(tuple, now) {
            match held.iss {
                // The third ACK of the very connection we made, once more: proves nothing new.
                Some(ours) if ours == iss => return Disposition::Drop(DropReason::KernelOwns),
                // Another handshake on this 4-tuple was completed: its peer has moved on.
                Some(_) => {
                    if host.destroy(tuple) {
                        self.stats.count(Counter::OldSocketsDestroyed);
                    }
                    self.held.forget(tuple);
                }
                None if self.ask_kernel(tuple, host, now) == Some(true) => {
                    return Disposition::Drop(DropReason::KernelOwns);
                }
                None => {}
            }
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
        if self.held.get(tuple, now).is_some_and(|held| held.fresh) {
            return Disposition::Drop(DropReason::KernelOwns);
        }
        let held = self.ask_kernel(tuple, host, now);
        if held == Some(true) {
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
    fn on_stray<H: KernelSockets>(
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

    // ------------------------------------------------------------------------------------------------ accepting

    #[allow(clippy::too_many_arguments)] // Each is a field; a struct in between would be `Accepted` again.
    fn accepted(
        &self,
        tuple: &FourTuple,
        irs: SeqNum,
        iss: SeqNum,
        options: Negotiated,
        segment: &Segment<'_>,
        arrival: &Arrival,
        via: Via,
        handshake: Option<Duration>,
    ) -> Accepted {
        Accepted {
            tuple: *tuple,
            scope_id: scope_of(tuple, arrival),
            iss,
            irs,
            options,
            peer_window: u32::from(segment.window) << options.peer_wscale.unwrap_or(0),
            local_window: u32::from(WINDOW),
            via,
            handshake,
        }
    }

    /// The handshake is complete. A half-open entry stays until the connection stands.
    fn accept(&mut self, accepted: Accepted, segment: &Segment<'_>) -> Disposition {
        if self.young.is_full() {
            return Disposition::Drop(DropReason::NoRoom);
        }
        self.young.begin(accepted.tuple, accepted.irs + 1);
        let captured = self.young.capture(&accepted.tuple, segment);
        debug_assert!(captured, "the flow was begun one line above");
        Disposition::Accept(accepted)
    }

    /// The bytes a connection's client has sent behind the handshake so far, from `irs + 1` on.
    pub fn early_data(&self, tuple: &FourTuple) -> &[u8] {
        self.young.data(tuple)
    }

    /// The connection stands; `early_bytes` of early data are in its receive queue.
    pub fn established<H: KernelSockets>(
        &mut self,
        accepted: &Accepted,
        early_bytes: u32,
        host: &mut H,
        now: Time,
    ) -> Aftermath {
        let tuple = &accepted.tuple;
        let ending = self.young.end(tuple);
        self.forget(tuple, Counter::HalfOpenCompleted);
        self.held.adopted(tuple, accepted.iss, now);
        self.replies.refund(tuple.peer.addr);
        self.unanswered -= 1;
        self.stats.add(Counter::EarlyDataBytes, u64::from(early_bytes));
        self.stats.count(match accepted.via {
            Via::Queue => Counter::HandshakesByQueue,
            Via::Cookie | Via::Kernel => Counter::HandshakesByCookie,
        });
        if let Some(took) = accepted.handshake {
            self.stats.record_handshake(took);
        }
        if ending.reset {
            // The RST met the socket's closed filter: it is repeated here, because the client will not.
            host.destroy(tuple);
            return Aftermath::default();
        }
        // The FIN makes the kernel acknowledge everything; alone, data needs an ACK of ours.
        let complete = ending.bytes as u32 == early_bytes;
        let fin = ending.fin.filter(|_| complete).map(|fin| replies::repeated_fin(tuple, &fin));
        let ack = (early_bytes > 0 && fin.is_none()).then(|| replies::early_ack(accepted, early_bytes));
        Aftermath { ack, repeated_fin: fin }
    }

    /// No connection could be made. The client, which believes in one, is not left hanging: where there may be room
    /// later its handshake is kept half-open, so that the repeated SYN-ACK makes it ask again; else it gets a RST.
    pub fn refused(&mut self, accepted: &Accepted, refusal: Refusal, now: Time) -> Option<Reply> {
        self.young.end(&accepted.tuple);
        self.stats.count(match refusal {
            Refusal::AcceptQueueFull => Counter::AcceptQueueOverflows,
            Refusal::NoDescriptors => Counter::RefusedNoDescriptors,
            Refusal::NoMemory => Counter::RefusedNoMemory,
            Refusal::TupleBusy => Counter::RefusedTupleBusy,
            Refusal::Closed | Refusal::System(_) => Counter::RefusedOther,
        });
        let hopeless = match refusal {
            Refusal::AcceptQueueFull | Refusal::NoDescriptors | Refusal::NoMemory => {
                self.stats.count_drop(DropReason::NoRoom);
                self.park(accepted, now).is_err()
            }
            // A RST would hit the connection that the kernel holds.
            Refusal::TupleBusy => {
                self.held.confirmed(&accepted.tuple, now);
                false
            }
            Refusal::Closed | Refusal::System(_) => true,
        };
        hopeless.then(|| {
            self.stats.count(Counter::ResetsSent);
            replies::reset(&accepted.tuple, accepted.iss + 1)
        })
    }

    /// Keeps a finished handshake half-open: its own entry, or a new one made from what the cookie told.
    fn park(&mut self, accepted: &Accepted, now: Time) -> Result<(), Full> {
        if self.half_open.park(&accepted.tuple) {
            return Ok(());
        }
        let options = &accepted.options;
        // Dated back to the SYN-ACK, so that its TSval can be made again.
        let age = accepted.handshake.unwrap_or_default().as_nanos() as u64;
        let entry = Entry {
            irs: accepted.irs,
            iss: accepted.iss,
            offer: Offer {
                mss: options.peer_mss,
                wscale: options.peer_wscale,
                sack: options.sack,
                tsval: options.timestamps.map(|ts| ts.peer),
            },
            arrived: Time::from_nanos(now.as_nanos().saturating_sub(age)).stamp(),
            retransmissions: 0,
            parked: true,
        };
        self.keep(&accepted.tuple, &entry)
    }

    // ------------------------------------------------------------------------------------------------ time

    /// What time brings: SYN-ACKs sent again, entries given up, key epochs, the mode. `elapsed` since the last call.
    ///
    /// The replies take the way that routing gives them: an entry does not know its frame's.
    pub fn tick(&mut self, now: Time, epoch: Epoch, elapsed: Duration, mut send: impl FnMut(Reply)) {
        self.cookies.advance(epoch, now);
        let answered = std::mem::take(&mut self.unanswered);
        self.shared.pressure.report_unanswered(u64::try_from(answered).unwrap_or(0));
        let mut due = Vec::new();
        let retries = self.config.synack_retries;
        let (stats, pressure) = (&mut self.stats, &self.shared.pressure);
        self.half_open.sweep(elapsed, |tuple, mut entry| {
            if !entry.is_due(now) {
                return Swept::Keep;
            }
            due.push((tuple, entry));
            if entry.retransmissions >= retries {
                stats.count(Counter::HalfOpenTimedOut);
                pressure.left(1);
                return Swept::Remove;
            }
            entry.retransmissions += 1;
            Swept::Update(entry)
        });
        for (tuple, entry) in due {
            if let Some(reply) = self.on_due(&tuple, &entry, now) {
                send(reply);
            }
        }
    }

    /// A timer ran out for `entry`, as it was before: once more the SYN-ACK, or the end.
    fn on_due(&mut self, tuple: &FourTuple, entry: &Entry, now: Time) -> Option<Reply> {
        if entry.retransmissions >= self.config.synack_retries {
            // A client whose handshake was complete learns that nobody took its connection.
            return entry.parked.then(|| {
                self.stats.count(Counter::ResetsSent);
                replies::reset(tuple, entry.iss + 1)
            });
        }
        if !self.replies.take(tuple.peer.addr, now) {
            self.stats.count(Counter::RepliesOverBudget);
            return None;
        }
        self.stats.count(Counter::SynAcksSent);
        self.stats.count(Counter::SynAcksRetransmitted);
        let cookie = self.cookie_of(tuple, entry);
        let path_mtu = u32::from(Family::of(tuple.peer.addr).header_len()) + 1460;
        Some(replies::syn_ack(tuple, entry.irs, &cookie, &entry.offer, self.config.window_scale, path_mtu))
    }

    /// Turns the mode back to [`Mode::Queue`] if all is calm. One of the workers calls this, about once a second.
    pub fn review(&mut self, since_last: Duration) {
        if let Some(mode) = self.shared.pressure.review(since_last) {
            self.switch(mode);
        }
    }

    /// Whether there are timers to wait for.
    pub fn has_timers(&self) -> bool {
        self.half_open.len() > 0
    }

    /// From now on SYNs are not answered; handshakes that were answered may still complete.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    // ------------------------------------------------------------------------------------------------ accounts

    /// The mode this worker turned the listener to since the last call: for one line in the log.
    pub fn take_switch(&mut self) -> Option<Mode> {
        self.switched.take()
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// For what only the caller can count: ring drops, transmit errors.
    pub fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn account(&mut self, disposition: &Disposition) {
        if let Disposition::Drop(reason) = disposition {
            self.stats.count_drop(*reason);
        }
    }

    fn keep(&mut self, tuple: &FourTuple, entry: &Entry) -> Result<(), Full> {
        self.half_open.insert(tuple, entry)?;
        self.stats.count(Counter::HalfOpenInserted);
        if let Some(mode) = self.shared.pressure.entered() {
            self.switch(mode);
        }
        Ok(())
    }

    fn forget(&mut self, tuple: &FourTuple, why: Counter) {
        if self.half_open.remove(tuple).is_some() {
            self.stats.count(why);
            self.shared.pressure.left(1);
        }
    }

    fn switch(&mut self, mode: Mode) {
        self.switched = Some(mode);
        self.stats.count(match mode {
            Mode::Cookies => Counter::SwitchesToCookies,
            Mode::Queue => Counter::SwitchesToQueue,
        });
    }

    /// Whether the kernel holds this 4-tuple; `None` when the second's questions are used up.
    fn ask_kernel<H: KernelSockets>(&mut self, tuple: &FourTuple, host: &mut H, now: Time) -> Option<bool> {
        if !self.questions.take(now) {
            return None;
        }
        let holds = host.holds(tuple);
        if holds {
            self.held.confirmed(tuple, now);
        } else {
            self.held.forget(tuple);
        }
        Some(holds)
    }

    fn challenge(&mut self, tuple: &FourTuple, entry: &Entry, segment: &Segment<'_>, now: Time) -> Disposition {
        if !self.replies.take(tuple.peer.addr, now) {
            self.stats.count(Counter::RepliesOverBudget);
            return Disposition::Drop(DropReason::OverBudget);
        }
        self.stats.count(Counter::ChallengeAcksSent);
        let tsecr = segment.options().timestamps.map_or(entry.offer.tsval.unwrap_or(0), |ts| ts.tsval);
        let timestamps = self.cookie_of(tuple, entry).tsval.map(|tsval| TimestampOption { tsval, tsecr });
        Disposition::Reply(replies::challenge_ack(tuple, entry.iss, entry.irs, timestamps))
    }

    fn reset(&mut self, tuple: &FourTuple, segment: &Segment<'_>, now: Time) -> Disposition {
        if !self.replies.take(tuple.peer.addr, now) {
            self.stats.count(Counter::RepliesOverBudget);
            return Disposition::Drop(DropReason::OverBudget);
        }
        self.stats.count(Counter::ResetsSent);
        Disposition::Reply(replies::reset(tuple, segment.ack))
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

fn unreadable(error: &ParseError) -> DropReason {
    match error {
        ParseError::BadChecksum(_) => DropReason::BadChecksum,
        ParseError::Malformed(_) | ParseError::SourceRoute => DropReason::Malformed,
        ParseError::NotIp
        | ParseError::NotTcp
        | ParseError::Fragment
        | ParseError::ExtensionHeader
        | ParseError::Truncated => DropReason::NotForUs,
    }
}

/// A link-local peer is reached over the interface it was heard on.
fn scope_of(tuple: &FourTuple, arrival: &Arrival) -> u32 {
    match tuple.peer.addr {
        std::net::IpAddr::V6(addr) if addr.is_unicast_link_local() => arrival.interface,
        _ => 0,
    }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
