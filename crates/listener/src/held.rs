//! What the kernel is known to hold: the 4-tuples that are none of our business any more.

use std::net::Ipv4Addr;
use std::time::Duration;

use wire::{Endpoint, FourTuple, SeqNum};

use crate::time::Time;

/// The kernel's table of sockets, as far as the core asks about it.
pub trait KernelSockets {
    /// Whether the kernel holds a socket for exactly this 4-tuple: in any state, TIME-WAIT too, except LISTEN.
    fn holds(&mut self, tuple: &FourTuple) -> bool;

    /// Destroys the socket for this 4-tuple; `true` if there was one and it is gone.
    fn destroy(&mut self, tuple: &FourTuple) -> bool;
}

/// A cache of connections that were adopted, or that the kernel was found to hold.
///
/// It saves asking the kernel for each ACK of an established connection, and remembers our ISN, which tells a repeated
/// third ACK from a new handshake on the same 4-tuple. Of fixed size: each 4-tuple has four places, and a newer
/// connection takes that of the oldest, which then costs one question to the kernel again.
pub(crate) struct Held {
    /// Of each slot a part of the 4-tuple's hash. A flood's 4-tuples are told apart by these few bytes, which stay in the core's cache.
    tags: Box<[[u16; WAYS]]>,
    sets: Box<[[Slot; WAYS]]>,
}

/// Where a 4-tuple is looked for.
#[derive(Clone, Copy)]
struct Key {
    set: usize,
    tag: u16,
}

/// The tag of a slot that is empty.
const EMPTY: u16 = 0;

const WAYS: usize = 4;

#[derive(Clone, Copy)]
struct Slot {
    tuple: FourTuple,
    /// Our ISN on that connection, if it was we who accepted it.
    iss: Option<SeqNum>,
    since: Time,
    /// When the kernel was first found not to hold it any more.
    gone: Option<Time>,
}

/// What is remembered of a 4-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldBy {
    /// Our ISN on that connection, if it was we who accepted it.
    pub iss: Option<SeqNum>,
    /// Whether the kernel was asked, or the connection adopted, within the last seconds.
    pub fresh: bool,
}

/// How long an answer of the kernel is believed.
const FRESH: Duration = Duration::from_secs(1);

/// How long a connection's last ACKs may still come, once the kernel is done with it.
const LINGER: Duration = Duration::from_secs(1);

impl Held {
    /// A cache for `capacity` connections, 74 bytes each.
    pub(crate) fn new(capacity: usize) -> Held {
        let nowhere = Endpoint { addr: Ipv4Addr::UNSPECIFIED.into(), port: 0 };
        let empty =
            Slot { tuple: FourTuple { local: nowhere, peer: nowhere }, iss: None, since: Time::default(), gone: None };
        let sets = (capacity / WAYS).next_power_of_two();
        let tags = vec![[EMPTY; WAYS]; sets].into_boxed_slice();
        Held { tags, sets: vec![[empty; WAYS]; sets].into_boxed_slice() }
    }

    pub(crate) fn get(&self, tuple: &FourTuple, now: Time) -> Option<HeldBy> {
        let key = self.key(tuple);
        let slot = &self.sets[key.set][self.way_of(key, tuple)?];
        Some(HeldBy { iss: slot.iss, fresh: now.since(slot.since) <= FRESH })
    }

    /// Remembers a connection we accepted.
    pub(crate) fn adopted(&mut self, tuple: &FourTuple, iss: SeqNum, now: Time) {
        self.remember(tuple, Some(iss), now);
    }

    /// Remembers that the kernel holds this 4-tuple.
    pub(crate) fn confirmed(&mut self, tuple: &FourTuple, now: Time) {
        let iss = self.get(tuple, now).and_then(|held| held.iss);
        self.remember(tuple, iss, now);
    }

    /// The kernel does not hold this 4-tuple. Whether it did until a moment ago: then this may be the ACK of the last FIN,
    /// which the kernel had before we had it, and a RST would only disturb the peer's TIME-WAIT (RFC 1337).
    pub(crate) fn lingers(&mut self, tuple: &FourTuple, now: Time) -> bool {
        let key = self.key(tuple);
        let Some(way) = self.way_of(key, tuple) else { return false };
        now.since(*self.sets[key.set][way].gone.get_or_insert(now)) <= LINGER
    }

    /// Forgets a 4-tuple that the kernel does not hold any more.
    pub(crate) fn forget(&mut self, tuple: &FourTuple) {
        let key = self.key(tuple);
        if let Some(way) = self.way_of(key, tuple) {
            self.tags[key.set][way] = EMPTY;
            self.sets[key.set][way].since = Time::default();
        }
    }

    /// In the 4-tuple's own place, or in that of the connection heard of longest ago.
    fn remember(&mut self, tuple: &FourTuple, iss: Option<SeqNum>, now: Time) {
        let key = self.key(tuple);
        let set = &mut self.sets[key.set];
        let oldest = || (0..WAYS).min_by_key(|&way| set[way].since).unwrap_or(0);
        let way = way_of(&self.tags[key.set], set, key, tuple).unwrap_or_else(oldest);
        set[way] = Slot { tuple: *tuple, iss, since: now, gone: None };
        self.tags[key.set][way] = key.tag;
    }

    fn way_of(&self, key: Key, tuple: &FourTuple) -> Option<usize> {
        way_of(&self.tags[key.set], &self.sets[key.set], key, tuple)
    }

    /// Not keyed: who crowds a slot of a cache by choosing ports gains one question to the kernel, which is rationed.
    fn key(&self, tuple: &FourTuple) -> Key {
        let addr = match tuple.peer.addr {
            std::net::IpAddr::V4(addr) => u64::from(addr.to_bits()),
            std::net::IpAddr::V6(addr) => (addr.to_bits() >> 64) as u64 ^ (addr.to_bits() as u64).rotate_left(29),
        };
        let ports = u64::from(tuple.peer.port) << 16 | u64::from(tuple.local.port);
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (addr ^ ports.wrapping_mul(ODD)).wrapping_mul(ODD);
        Key { set: (mixed >> 40) as usize & (self.sets.len() - 1), tag: (mixed >> 24) as u16 | 1 }
    }
}

fn way_of(tags: &[u16; WAYS], set: &[Slot; WAYS], key: Key, tuple: &FourTuple) -> Option<usize> {
    (0..WAYS).find(|&way| tags[way] == key.tag && set[way].tuple == *tuple)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> FourTuple {
        let end = |d, port| Endpoint { addr: Ipv4Addr::new(198, 18, 0, d).into(), port };
        FourTuple { local: end(1, 80), peer: end(2, port) }
    }

    #[test]
    fn an_adopted_connection_is_known_with_its_isn_until_forgotten() {
        let mut held = Held::new(1024);
        let (now, later) = (Time::from_secs(1), Time::from_secs(100));
        assert_eq!(held.get(&tuple(1), now), None);
        held.adopted(&tuple(1), SeqNum::new(7), now);
        assert_eq!(held.get(&tuple(1), now), Some(HeldBy { iss: Some(SeqNum::new(7)), fresh: true }));
        assert_eq!(held.get(&tuple(1), later), Some(HeldBy { iss: Some(SeqNum::new(7)), fresh: false }));
        held.confirmed(&tuple(1), later);
        assert_eq!(held.get(&tuple(1), later), Some(HeldBy { iss: Some(SeqNum::new(7)), fresh: true }));
        held.forget(&tuple(1));
        assert_eq!(held.get(&tuple(1), later), None);
    }

    #[test]
    fn connections_of_one_client_do_not_crowd_one_slot() {
        let mut held = Held::new(32 * 1024);
        let now = Time::from_secs(1);
        for port in 1..1000 {
            held.adopted(&tuple(port), SeqNum::new(u32::from(port)), now);
        }
        let known = (1..1000).filter(|&port| held.get(&tuple(port), now).is_some()).count();
        assert!(known > 990, "{known}");
    }

    #[test]
    fn a_connection_that_ended_lingers_for_a_second() {
        let mut held = Held::new(1024);
        let now = Time::from_secs(1);
        assert!(!held.lingers(&tuple(1), now), "never known");
        held.adopted(&tuple(1), SeqNum::new(7), now);
        assert!(held.lingers(&tuple(1), now + LINGER));
        assert!(held.lingers(&tuple(1), now + 2 * LINGER));
        assert!(!held.lingers(&tuple(1), now + 3 * LINGER));
    }

    #[test]
    fn a_full_cache_forgets_instead_of_growing() {
        let mut held = Held::new(16);
        let now = Time::from_secs(1);
        for port in 1..1000 {
            held.adopted(&tuple(port), SeqNum::new(u32::from(port)), now);
        }
        let known = (1..1000).filter(|&port| held.get(&tuple(port), now).is_some()).count();
        assert!(known <= 16);
    }
}
