//! SYN cookies: a handshake's state, carried by the client.
//!
//! Every SYN-ACK's ISN is a cookie, whether or not a half-open entry is kept, so no lost entry loses a client. Two forms:
//!
//! ```text
//! form A, the client offers timestamps                     form B, it does not
//!   ISN    epoch(2) | MAC(30)                                ISN    epoch(2) | options(5) | MAC(25)
//!   TSval  tag(16) | wscale(4) sack(1) ecn(1) mss(3) | clock(7)
//! ```
//!
//! The form is part of the MAC's input, so an ACK without timestamps never passes for form A. A blind guess succeeds
//! with 2^-46 in form A and 2^-25 in form B; `docs/threat-model.md` does the arithmetic.

mod key;
mod keyed;
mod mac;
mod options;
mod schedule;

use std::time::Duration;

use wire::{FourTuple, SeqNum, TimestampOption};

pub use key::{Epoch, MasterKey, MasterKeyError};
pub(crate) use keyed::{KEY_SLOTS, KeySlots, KeyVersion, KeyedState};
use mac::EpochKey;
pub use options::{Family, Offer, Remembered};
use options::{decode_narrow, decode_wide, encode_narrow, encode_wide};
pub use schedule::{KeySchedule, ScheduleFull};

use crate::time::{Stamp, Time};

/// How long after it was sent a cookie can still be accepted: the epoch it was made in and the next one.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(2 * Epoch::SECONDS);

/// Which of the two layouts a cookie has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Form {
    /// With timestamps: options and 16 more bits of MAC ride in TSval.
    A = 1,
    /// Without: everything is in the ISN.
    B = 2,
}

/// The coarse clock in form A's TSval: 7 bits of 8.4 ms, once around in 1.07 s.
///
/// It dates the SYN-ACK for the handshake's duration; a hint, never trusted for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock(u16);

impl Clock {
    const BITS: u32 = 7;
    /// A unit is 2^23 ns: 128 units of a [`Stamp`].
    const STAMP_SHIFT: u32 = 7;
    const UNIT_NS: u64 = 1 << 23;

    fn at(stamp: Stamp) -> Clock {
        Clock((stamp.units() >> Clock::STAMP_SHIFT) as u16 & ((1 << Clock::BITS) - 1))
    }

    /// Time since this reading, modulo the clock's round.
    fn until(self, now: Time) -> Duration {
        let units = Clock::at(now.stamp()).0.wrapping_sub(self.0) & ((1 << Clock::BITS) - 1);
        clock_time(u64::from(units))
    }
}

/// So many units of form A's clock.
pub(crate) fn clock_time(units: u64) -> Duration {
    Duration::from_nanos(units.saturating_mul(Clock::UNIT_NS))
}

/// Time since a SYN-ACK with this TSval of form A, modulo the clock's round.
pub(crate) fn age_of(tsval: u32, now: Time) -> Duration {
    Clock(tsval as u16 & ((1 << Clock::BITS) - 1)).until(now)
}

/// What goes into a SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Our initial sequence number.
    pub isn: SeqNum,
    /// Our TSval, if the client offered timestamps.
    pub tsval: Option<u32>,
}

/// What an ACK's cookie proved. Only [`CookieJar::check`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieData {
    /// The form, and with it the strength of the proof.
    pub form: Form,
    /// The options that were in the client's SYN.
    pub offer: Remembered,
    /// Time since the SYN-ACK, modulo 1.07 s. Form A only.
    pub age: Option<Duration>,
}

/// Why a cookie was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadCookie {
    /// From an epoch whose key is not accepted.
    Expired,
    /// The MAC is wrong: forged, damaged, or not a cookie at all.
    Mac,
}

/// The keys: makes cookies with the current epoch's, accepts the previous, the current and the next (a node whose clock
/// is ahead made that one).
pub struct CookieJar {
    masters: KeySchedule,
    /// How often they were set.
    set_count: u64,
    keys: KeySet,
    /// The keys from before the wall clock jumped, and until when they are still tried.
    before_jump: Option<(KeySet, Time)>,
}

impl CookieJar {
    /// A jar whose current epoch is `epoch`.
    pub fn new(masters: impl Into<KeySchedule>, epoch: Epoch) -> CookieJar {
        let masters = masters.into();
        let keys = KeySet::around(&masters, epoch);
        CookieJar { masters, set_count: 0, keys, before_jump: None }
    }

    /// From now on these master keys. Cookies of an epoch whose master key is the same as before stay as they are: of a
    /// [rotation](KeySchedule::rotate) all those that somebody may have.
    pub fn set_masters(&mut self, masters: KeySchedule) {
        self.keys = KeySet::around(&masters, self.keys.current);
        self.masters = masters;
        self.set_count += 1;
    }

    /// Moves on to `epoch`, as the wall clock tells it. Costs nothing when that has not changed.
    ///
    /// The clock may jump, either way and any distance: no cookie that was valid is refused for it, because the keys of
    /// before are kept for a cookie's lifetime. While they are, a bad cookie costs two hashes.
    pub fn advance(&mut self, epoch: Epoch, now: Time) {
        if self.before_jump.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.before_jump = None;
        }
        if epoch == self.keys.current {
            return;
        }
        let jumped = epoch.0.abs_diff(self.keys.current.0) > 1;
        if jumped {
            let old = std::mem::replace(&mut self.keys, KeySet::around(&self.masters, epoch));
            self.before_jump = Some((old, now + COOKIE_LIFETIME));
        } else {
            self.keys.step(&self.masters, epoch);
            // Not at a jump: the clock may come back.
            self.masters.forget_before(oldest_resident(epoch));
        }
    }

    /// The cookie for a SYN with this ISN and these options, sent at `now`. One SipHash.
    pub fn mint(&mut self, tuple: &FourTuple, irs: SeqNum, offer: &Offer, now: Time) -> Cookie {
        let key = self.keys.current_key();
        make(key, tuple, irs, offer, now.stamp())
    }

    /// The cookie that [`mint`](CookieJar::mint) made at `sent` with the key that `isn` names: for sending the same
    /// SYN-ACK once more.
    pub(crate) fn remint(&mut self, tuple: &FourTuple, irs: SeqNum, isn: SeqNum, offer: &Offer, sent: Stamp) -> Cookie {
        let made = make(self.keys.slot(isn), tuple, irs, offer, sent);
        if made.isn == isn {
            return made;
        }
        match &mut self.before_jump {
            Some((keys, _)) => make(keys.slot(isn), tuple, irs, offer, sent),
            None => made,
        }
    }

    /// Judges the handshake's last segment: `irs` is its sequence number minus one, `isn` its acknowledgment number
    /// minus one, `timestamps` the option it carried. One SipHash.
    ///
    /// # Errors
    /// [`BadCookie`]: the ACK answers no SYN-ACK that anyone with the master key sent lately.
    pub fn check(
        &mut self,
        tuple: &FourTuple,
        irs: SeqNum,
        isn: SeqNum,
        timestamps: Option<TimestampOption>,
        now: Time,
    ) -> Result<CookieData, BadCookie> {
        let tsecr = timestamps.map(|ts| ts.tsecr);
        let verdict = self.keys.accepted(isn).and_then(|key| open(key, tuple, irs, isn, tsecr, now));
        match (&mut self.before_jump, verdict) {
            (Some((keys, _)), Err(_)) => keys.accepted(isn).and_then(|key| open(key, tuple, irs, isn, tsecr, now)),
            (_, verdict) => verdict,
        }
    }
}

/// Four consecutive epochs' keys, each at the index of its epoch's low bits.
struct KeySet {
    current: Epoch,
    keys: [EpochKey; 4],
}

impl KeySet {
    fn around(masters: &KeySchedule, current: Epoch) -> KeySet {
        let keys = std::array::from_fn(|index| derive(masters, resident(current, index as u32)));
        KeySet { current, keys }
    }

    /// Makes `current` the current epoch and derives what that changes.
    fn step(&mut self, masters: &KeySchedule, current: Epoch) {
        self.current = current;
        for (index, key) in self.keys.iter_mut().enumerate() {
            let epoch = resident(current, index as u32);
            if key.epoch != epoch {
                *key = derive(masters, epoch);
            }
        }
    }

    fn current_key(&mut self) -> &mut EpochKey {
        &mut self.keys[self.current.bits() as usize]
    }

    /// The key that a cookie names, accepted or not.
    fn slot(&mut self, isn: SeqNum) -> &mut EpochKey {
        &mut self.keys[(isn.value() >> 30) as usize]
    }

    /// The key that a cookie names, if its epoch is the previous, the current or the next.
    fn accepted(&mut self, isn: SeqNum) -> Result<&mut EpochKey, BadCookie> {
        let epoch = self.slot(isn).epoch;
        if self.accepts(epoch) { Ok(self.slot(isn)) } else { Err(BadCookie::Expired) }
    }

    /// Whether cookies of this epoch are accepted.
    fn accepts(&self, epoch: Epoch) -> bool {
        epoch.0.abs_diff(self.current.0) <= 1
    }
}

/// Which of the epochs `current - 2 ..= current + 1` has these low bits. The oldest accepts nothing any more; it is kept
/// so that a half-open entry can still repeat its SYN-ACK.
fn resident(current: Epoch, bits: u32) -> Epoch {
    let oldest = oldest_resident(current).0;
    let ahead = u64::from(bits).wrapping_sub(oldest) & 3;
    Epoch(oldest.wrapping_add(ahead))
}

fn oldest_resident(current: Epoch) -> Epoch {
    Epoch(current.0.wrapping_sub(2))
}

fn derive(masters: &KeySchedule, epoch: Epoch) -> EpochKey {
    EpochKey::derive(masters.master_of(epoch), epoch)
}

fn make(key: &mut EpochKey, tuple: &FourTuple, irs: SeqNum, offer: &Offer, sent: Stamp) -> Cookie {
    let family = Family::of(tuple.peer.addr);
    let epoch = key.epoch.bits() << 30;
    if offer.tsval.is_some() {
        let options = encode_wide(offer, family);
        let mac = key.mac(tuple, irs, Form::A, options);
        let clock = Clock::at(sent).0;
        let tsval = u32::from(mac.timestamp_tag(clock)) << 16 | u32::from(options) << Clock::BITS | u32::from(clock);
        Cookie { isn: SeqNum::new(epoch | mac.isn_wide()), tsval: Some(tsval) }
    } else {
        let options = encode_narrow(offer, family);
        let mac = key.mac(tuple, irs, Form::B, options);
        Cookie { isn: SeqNum::new(epoch | u32::from(options) << 25 | mac.isn_narrow()), tsval: None }
    }
}

fn open(
    key: &mut EpochKey,
    tuple: &FourTuple,
    irs: SeqNum,
    isn: SeqNum,
    tsecr: Option<u32>,
    now: Time,
) -> Result<CookieData, BadCookie> {
    let family = Family::of(tuple.peer.addr);
    match tsecr {
        Some(tsecr) => {
            let clock = Clock(tsecr as u16 & ((1 << Clock::BITS) - 1));
            let options = tsecr as u16 >> Clock::BITS;
            let mac = key.mac(tuple, irs, Form::A, options);
            let wrong = (mac.isn_wide() ^ isn.value()) & 0x3fff_ffff
                | u32::from(mac.timestamp_tag(clock.0) ^ (tsecr >> 16) as u16);
            let data = CookieData { form: Form::A, offer: decode_wide(options, family), age: Some(clock.until(now)) };
            if wrong == 0 { Ok(data) } else { Err(BadCookie::Mac) }
        }
        None => {
            let options = (isn.value() >> 25 & 31) as u16;
            let mac = key.mac(tuple, irs, Form::B, options);
            let data = CookieData { form: Form::B, offer: decode_narrow(options, family), age: None };
            if (mac.isn_narrow() ^ isn.value()) & 0x01ff_ffff == 0 { Ok(data) } else { Err(BadCookie::Mac) }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
