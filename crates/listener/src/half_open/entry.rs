//! One half-open connection in 32 bytes (IPv4) or 56 (IPv6), its key included.

use std::net::IpAddr;
use std::time::Duration;

use wire::{Endpoint, FourTuple, SeqNum};

use crate::cookie::Offer;
use crate::time::{Stamp, Time};

/// An address as it is stored: four or sixteen bytes.
pub(super) trait Addr: Copy + Eq + Default {
    fn of(addr: IpAddr) -> Self;
    fn ip(self) -> IpAddr;
    fn octets(&self) -> &[u8];
    /// From as many octets as the type has; else nowhere's address.
    fn read(octets: &[u8]) -> Self;
}

impl Addr for [u8; 4] {
    /// Only ever called for IPv4 addresses: [`super::HalfOpen`] picks the table by family.
    fn of(addr: IpAddr) -> [u8; 4] {
        match addr {
            IpAddr::V4(addr) => addr.octets(),
            IpAddr::V6(_) => [0; 4],
        }
    }

    fn ip(self) -> IpAddr {
        IpAddr::from(self)
    }

    fn octets(&self) -> &[u8] {
        self
    }

    fn read(octets: &[u8]) -> Self {
        octets.try_into().unwrap_or_default()
    }
}

impl Addr for [u8; 16] {
    fn of(addr: IpAddr) -> [u8; 16] {
        match addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
            IpAddr::V6(addr) => addr.octets(),
        }
    }

    fn ip(self) -> IpAddr {
        IpAddr::from(self)
    }

    fn octets(&self) -> &[u8] {
        self
    }

    fn read(octets: &[u8]) -> Self {
        octets.try_into().unwrap_or_default()
    }
}

/// A slot of the table. All zeros: free.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Slot<A> {
    peer: A,
    local: A,
    irs: u32,
    iss: u32,
    tsval: u32,
    arrived: Stamp,
    peer_port: u16,
    local_port: u16,
    mss: u16,
    bits: Bits,
}

const _: () = assert!(size_of::<Slot<[u8; 4]>>() <= 32, "an IPv4 entry is at most 32 bytes");
const _: () = assert!(size_of::<Slot<[u8; 16]>>() <= 64, "an IPv6 entry is at most 64 bytes");

/// Window scale (4 bits, 15: none), SACK, timestamps, retransmissions (3), parked, occupied, wrong guesses (3).
#[derive(Clone, Copy, Default)]
struct Bits(u16);

impl Bits {
    const WSCALE: u16 = 0xf;
    const WSCALE_NONE: u16 = 0xf;
    const SACK: u16 = 1 << 4;
    const TIMESTAMPS: u16 = 1 << 5;
    const SENT_SHIFT: u32 = 6;
    const SENT: u16 = 7 << Bits::SENT_SHIFT;
    const PARKED: u16 = 1 << 9;
    const OCCUPIED: u16 = 1 << 10;
    const GUESSES_SHIFT: u32 = 11;
    const GUESSES: u16 = 7 << Bits::GUESSES_SHIFT;

    fn new(entry: &Entry) -> Bits {
        let flag = |on: bool, bit: u16| if on { bit } else { 0 };
        Bits(
            entry.offer.wscale.map_or(Bits::WSCALE_NONE, u16::from)
                | flag(entry.offer.sack, Bits::SACK)
                | flag(entry.offer.tsval.is_some(), Bits::TIMESTAMPS)
                | u16::from(entry.retransmissions) << Bits::SENT_SHIFT
                | flag(entry.parked, Bits::PARKED)
                | u16::from(entry.guesses) << Bits::GUESSES_SHIFT
                | Bits::OCCUPIED,
        )
    }

    fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }
}

/// What is known of a half-open connection, besides its 4-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The client's ISN.
    pub irs: SeqNum,
    /// Ours: the cookie in the SYN-ACK.
    pub iss: SeqNum,
    /// The client's options, exact.
    pub offer: Offer,
    /// When the SYN came; the timers count from here.
    pub arrived: Stamp,
    /// SYN-ACKs sent again so far, 0 to 7.
    pub retransmissions: u8,
    /// The handshake is complete, but there was no room for the connection.
    pub parked: bool,
    /// Wrong acknowledgment numbers it has seen, 0 to [`GUESSES_MAX`](Entry::GUESSES_MAX).
    pub guesses: u8,
}

/// Initial retransmission timeout (RFC 6298 §2.1).
pub(crate) const RTO: Duration = Duration::from_secs(1);

impl Entry {
    /// With so many wrong guesses an entry opens to no ACK any more: that is left to the cookie, whose budget is limited.
    pub(crate) const GUESSES_MAX: u8 = 7;

    /// Whether an ACK may complete the handshake by this entry.
    pub(crate) fn is_open(&self) -> bool {
        self.guesses < Entry::GUESSES_MAX
    }

    /// When, counted from the SYN, the next retransmission or the end is due: 1 s, then 2, 4, 8... later.
    pub(crate) fn due_after(&self) -> Duration {
        RTO * ((2u32 << self.retransmissions) - 1)
    }

    /// Whether that time has come.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.arrived.until(now) >= self.due_after()
    }
}

impl<A: Addr> Slot<A> {
    pub(super) fn new(tuple: &FourTuple, entry: &Entry) -> Slot<A> {
        Slot {
            peer: A::of(tuple.peer.addr),
            local: A::of(tuple.local.addr),
            irs: entry.irs.value(),
            iss: entry.iss.value(),
            tsval: entry.offer.tsval.unwrap_or(0),
            arrived: entry.arrived,
            peer_port: tuple.peer.port,
            local_port: tuple.local.port,
            mss: entry.offer.mss,
            bits: Bits::new(entry),
        }
    }

    /// Appends this to a message for another process: the addresses, then numbers in network order.
    pub(super) fn write(&self, message: &mut Vec<u8>) {
        message.extend_from_slice(self.peer.octets());
        message.extend_from_slice(self.local.octets());
        for word in [self.irs, self.iss, self.tsval, self.arrived.units()] {
            message.extend_from_slice(&word.to_be_bytes());
        }
        for half in [self.peer_port, self.local_port, self.mss, self.bits.0] {
            message.extend_from_slice(&half.to_be_bytes());
        }
    }

    /// Takes what [`write`](Slot::write) wrote off the front of a message; `None` where it ends too early.
    pub(super) fn read(message: &mut &[u8]) -> Option<Slot<A>> {
        let octets = size_of::<A>();
        let mut addr = || Some(A::read(message.split_off(..octets)?));
        let (peer, local) = (addr()?, addr()?);
        let mut word = || Some(u32::from_be_bytes(message.split_off(..4)?.try_into().ok()?));
        let [irs, iss, tsval, arrived] = [word()?, word()?, word()?, word()?];
        let mut half = || Some(u16::from_be_bytes(message.split_off(..2)?.try_into().ok()?));
        let [peer_port, local_port, mss, bits] = [half()?, half()?, half()?, half()?];
        let arrived = Stamp::from_units(arrived);
        Some(Slot { peer, local, irs, iss, tsval, arrived, peer_port, local_port, mss, bits: Bits(bits) })
    }

    pub(super) fn is_free(&self) -> bool {
        !self.bits.has(Bits::OCCUPIED)
    }

    pub(super) fn holds(&self, tuple: &FourTuple) -> bool {
        self.peer_port == tuple.peer.port
            && self.peer == A::of(tuple.peer.addr)
            && self.local_port == tuple.local.port
            && self.local == A::of(tuple.local.addr)
            && !self.is_free()
    }

    pub(super) fn tuple(&self) -> FourTuple {
        FourTuple {
            local: Endpoint { addr: self.local.ip(), port: self.local_port },
            peer: Endpoint { addr: self.peer.ip(), port: self.peer_port },
        }
    }

    pub(super) fn entry(&self) -> Entry {
        let wscale = self.bits.0 & Bits::WSCALE;
        Entry {
            irs: SeqNum::new(self.irs),
            iss: SeqNum::new(self.iss),
            offer: Offer {
                mss: self.mss,
                wscale: (wscale != Bits::WSCALE_NONE).then_some(wscale as u8),
                sack: self.bits.has(Bits::SACK),
                tsval: self.bits.has(Bits::TIMESTAMPS).then_some(self.tsval),
            },
            arrived: self.arrived,
            retransmissions: ((self.bits.0 & Bits::SENT) >> Bits::SENT_SHIFT) as u8,
            parked: self.bits.has(Bits::PARKED),
            guesses: ((self.bits.0 & Bits::GUESSES) >> Bits::GUESSES_SHIFT) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(local: &str, peer: &str) -> FourTuple {
        let end = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        FourTuple { local: end(local), peer: end(peer) }
    }

    #[test]
    fn a_slot_gives_back_what_it_was_made_from() {
        let v4 = tuple("198.18.0.1:80", "198.18.0.2:40000");
        let v6 = tuple("[2001:db8::1]:80", "[2001:db8::2]:40000");
        for (wscale, tsval, parked) in
            [(None, None, false), (Some(0), Some(7), true), (Some(14), Some(u32::MAX), false)]
        {
            let entry = Entry {
                irs: SeqNum::new(1),
                iss: SeqNum::new(u32::MAX),
                offer: Offer { mss: 1460, wscale, sack: parked, tsval },
                arrived: Time::from_secs(5).stamp(),
                retransmissions: 7,
                parked,
                guesses: if parked { 0 } else { Entry::GUESSES_MAX },
            };
            let slot = Slot::<[u8; 4]>::new(&v4, &entry);
            assert_eq!((slot.tuple(), slot.entry()), (v4, entry));
            let mut message = Vec::new();
            slot.write(&mut message);
            let read = Slot::<[u8; 4]>::read(&mut &message[..]).unwrap();
            assert_eq!((read.tuple(), read.entry()), (v4, entry));
            assert!(Slot::<[u8; 4]>::read(&mut &message[1..]).is_none());
            assert!(slot.holds(&v4) && !slot.holds(&tuple("198.18.0.1:80", "198.18.0.2:40001")));
            let slot = Slot::<[u8; 16]>::new(&v6, &entry);
            assert_eq!((slot.tuple(), slot.entry()), (v6, entry));
        }
        assert!(Slot::<[u8; 4]>::default().is_free());
    }

    #[test]
    fn timers_back_off_by_doubling() {
        let mut entry = Entry {
            irs: SeqNum::new(0),
            iss: SeqNum::new(0),
            offer: Offer { mss: 536, wscale: None, sack: false, tsval: None },
            arrived: Time::from_secs(0).stamp(),
            retransmissions: 0,
            parked: false,
            guesses: 0,
        };
        let mut due = Vec::new();
        for sent in 0..4 {
            entry.retransmissions = sent;
            due.push(entry.due_after().as_secs());
        }
        assert_eq!(due, [1, 3, 7, 15]);
    }
}
