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
/// third ACK from a new handshake on the same 4-tuple. Direct-mapped, of fixed size: a newer connection takes the place
/// of an older one, which then costs one question to the kernel again.
pub(crate) struct Held {
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy)]
struct Slot {
    tuple: FourTuple,
    /// Our ISN on that connection, if it was we who accepted it.
    iss: Option<SeqNum>,
    since: Time,
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
const FRESH: Duration = Duration::from_secs(4);

impl Held {
    /// A cache for `capacity` connections, 64 bytes each.
    pub(crate) fn new(capacity: usize) -> Held {
        let nowhere = Endpoint { addr: Ipv4Addr::UNSPECIFIED.into(), port: 0 };
        let empty = Slot { tuple: FourTuple { local: nowhere, peer: nowhere }, iss: None, since: Time::default() };
        Held { slots: vec![empty; capacity.next_power_of_two()].into_boxed_slice() }
    }

    pub(crate) fn get(&self, tuple: &FourTuple, now: Time) -> Option<HeldBy> {
        let slot = &self.slots[self.index(tuple)];
        let fresh = now.since(slot.since) <= FRESH;
        (slot.tuple == *tuple).then_some(HeldBy { iss: slot.iss, fresh })
    }

    /// Remembers a connection we accepted.
    pub(crate) fn adopted(&mut self, tuple: &FourTuple, iss: SeqNum, now: Time) {
        let index = self.index(tuple);
        self.slots[index] = Slot { tuple: *tuple, iss: Some(iss), since: now };
    }

    /// Remembers that the kernel holds this 4-tuple.
    pub(crate) fn confirmed(&mut self, tuple: &FourTuple, now: Time) {
        let index = self.index(tuple);
        let slot = &mut self.slots[index];
        let iss = if slot.tuple == *tuple { slot.iss } else { None };
        *slot = Slot { tuple: *tuple, iss, since: now };
    }

    /// Forgets a 4-tuple that the kernel does not hold any more.
    pub(crate) fn forget(&mut self, tuple: &FourTuple) {
        let index = self.index(tuple);
        if self.slots[index].tuple == *tuple {
            self.slots[index].tuple.peer.port = 0;
        }
    }

    /// Not keyed: who crowds a slot of a cache by choosing ports gains one question to the kernel, which is rationed.
    fn index(&self, tuple: &FourTuple) -> usize {
        let addr = match tuple.peer.addr {
            std::net::IpAddr::V4(addr) => u64::from(addr.to_bits()),
            std::net::IpAddr::V6(addr) => (addr.to_bits() >> 64) as u64 ^ (addr.to_bits() as u64).rotate_left(29),
        };
        let ports = u64::from(tuple.peer.port) << 16 | u64::from(tuple.local.port);
        let mixed = (addr ^ ports.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & (self.slots.len() - 1)
    }
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
