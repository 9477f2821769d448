//! What happens to a segment: LISTEN and SYN-RECEIVED of RFC 9293 §3.10.7, with SYN cookies.
//!
//! ```text
//! SYN ──► admission ──► lists ──► does the kernel hold the 4-tuple? ──► reply budget ──► SYN-ACK, ISN = cookie
//!                                                                                         (+ half-open entry while calm)
//! ACK ──► admission ──► half-open entry? ──► cookie? ──► Accept
//!                                                └─────► the kernel's? leave it : RST while calm, silence under pressure
//! RST ──► admission ──► half-open entry? ──► RFC 5961
//! ```

mod ack;
mod outcome;
mod reported;
mod rst;
mod syn;
#[cfg(test)]
mod tests;
mod timers;

use std::net::SocketAddr;
use std::sync::Arc;

use wire::{Flags, FourTuple, Packet, ParseError, Reply, Segment, TimestampOption};

use crate::accepted::Accepted;
use crate::admission::{Admission, Arrival, LocalAddresses};
use crate::budget::Budget;
use crate::config::ListenConfig;
use crate::cookie::{CookieJar, Epoch, Family, KeySchedule};
use crate::half_open::{Entry, Full, HalfOpen};
use crate::held::{Held, KernelSockets};
use crate::pressure::{Mode, Pressure, Watermarks};
use crate::ration::Ration;
use crate::replies::{self, WINDOW};
use crate::sources::Sources;
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
    /// To this host's own stack, in the client's name: the handshake's last segment, from which the kernel learns the
    /// client's clock, and the FIN or RST that came before the socket did.
    pub repeated: [Option<Reply>; 2],
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

    /// Where the mode turns.
    pub fn watermarks(&self) -> Watermarks {
        self.pressure.watermarks()
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
    sources: Sources,
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
    /// See [`spare_waiting_until`](Listen::spare_waiting_until).
    spares_until: Time,
}

/// Connections remembered as the kernel's, 72 bytes each: 2.4 MB per worker, touched as they are used.
const HELD_CAPACITY: usize = 32 * 1024;

/// Questions to the kernel per second and worker, about 2 µs each: at most a tenth of a core. A busy client that uses its ports again
/// within seconds, such as a proxy, costs one or two for each connection.
const QUESTIONS_PER_SECOND: u32 = 50_000;

/// A worker's place among the workers of one listener, and its secrets.
pub struct WorkerSeat {
    /// Workers of this listener; each gets an equal part of the half-open queue.
    pub workers: usize,
    /// Key of the tables that attackers must not be able to crowd: fresh randomness.
    pub seed: [u8; 16],
}

impl Listen {
    /// A worker's listener, with no [lists](Listen::set_sources). `config` must have passed [`ListenConfig::validate`].
    pub fn new(
        config: ListenConfig,
        shared: Arc<ListenShared>,
        masters: impl Into<KeySchedule>,
        seat: WorkerSeat,
        epoch: Epoch,
        now: Time,
    ) -> Listen {
        let entries = (config.half_open_max / seat.workers).max(1);
        let share = config.share(config.prefix_share_percent).div_ceil(seat.workers);
        // The flows of one prefix spread over the workers; together they have what the configuration says.
        let part = |budget: u32| budget.div_ceil(seat.workers as u32);
        Listen {
            admission: Admission::new(&config.bind),
            shared,
            sources: Sources::default(),
            cookies: CookieJar::new(masters, epoch),
            half_open: HalfOpen::new(entries, share, seat.seed, &families(&config.bind)),
            held: Held::new(HELD_CAPACITY),
            young: Young::default(),
            replies: Budget::new(part(config.replies_per_prefix), seat.seed),
            bad_cookies: Budget::new(part(config.bad_cookies_per_prefix), seat.seed),
            questions: Ration::new(QUESTIONS_PER_SECOND, now),
            stats: Stats::default(),
            switched: None,
            draining: false,
            unanswered: 0,
            spares_until: Time::default(),
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

    /// From now on these master keys: see [`CookieJar::set_masters`].
    pub fn set_masters(&mut self, masters: KeySchedule) {
        self.cookies.set_masters(masters);
    }

    /// From now on these lists. Handshakes that were answered before may still complete; SYN-ACKs are sent again to none of the denied.
    pub fn set_sources(&mut self, sources: Sources) {
        self.sources = sources;
    }

    /// The mode this worker turned the listener to since the last call: for one line in the log.
    pub fn take_switch(&mut self) -> Option<Mode> {
        self.switched.take()
    }

    /// Whether half-open entries are kept now.
    pub fn mode(&self) -> Mode {
        self.shared.mode()
    }

    /// What was counted so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// For what only the caller can count: ring drops, transmit errors.
    pub fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// The half-open entries, for a listener that goes on in place of this one, in another process of this host: see
    /// [`take_entries`](Listen::take_entries).
    pub fn entries(&self) -> Vec<u8> {
        self.half_open.write()
    }

    /// Takes the half-open entries of a predecessor that judged the same flows, with the times their SYNs came. Those that find no room
    /// are left to their cookies, as every entry may be; so is what another version wrote.
    pub fn take_entries(&mut self, entries: &[u8]) {
        for (tuple, entry) in HalfOpen::read(entries) {
            if self.half_open.get(&tuple).is_none() {
                let _ = self.keep(&tuple, &entry);
            }
        }
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
        self.stats.record_occupancy(self.shared.half_open(), self.config.half_open_max);
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
        }
        Some(holds)
    }

    fn challenge(&mut self, tuple: &FourTuple, entry: &Entry, now: Time) -> Disposition {
        if !self.replies.take(tuple.peer.addr, now) {
            self.stats.count(Counter::RepliesOverBudget);
            return Disposition::Drop(DropReason::OverBudget);
        }
        self.stats.count(Counter::ChallengeAcksSent);
        // RFC 7323 §4.3: TS.Recent, which a segment that is not acceptable does not change.
        let timestamps = self.cookie_of(tuple, entry).tsval.zip(entry.offer.tsval);
        let timestamps = timestamps.map(|(tsval, tsecr)| TimestampOption { tsval, tsecr });
        let shift = entry.offer.wscale.map_or(0, |_| self.config.window_scale);
        Disposition::Reply(replies::challenge_ack(tuple, entry.iss, entry.irs, WINDOW >> shift, timestamps))
    }

    fn reset(&mut self, tuple: &FourTuple, segment: &Segment<'_>, now: Time) -> Disposition {
        self.reset_with(tuple, replies::reset(tuple, segment.ack), now)
    }

    /// This RST, if there is something left of its prefix's budget.
    fn reset_with(&mut self, tuple: &FourTuple, reset: Reply, now: Time) -> Disposition {
        if !self.replies.take(tuple.peer.addr, now) {
            self.stats.count(Counter::RepliesOverBudget);
            return Disposition::Drop(DropReason::OverBudget);
        }
        self.stats.count(Counter::ResetsSent);
        Disposition::Reply(reset)
    }
}

/// Those of the guarded addresses.
fn families(guarded: &[SocketAddr]) -> Vec<Family> {
    guarded.iter().map(|addr| Family::of(addr.ip())).collect()
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
