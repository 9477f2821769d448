//! What the programs and user space share, byte for byte as `bpf/guard/maps.h` has it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use wire::{Endpoint, FourTuple, SeqNum};

use crate::cookie::{KEY_SLOTS, KeyedState, Offer};
use crate::time::Time;

/// Keys of four epochs, and those of before the wall clock jumped.
pub(super) const KEYS: usize = KEY_SLOTS;

/// `struct target`: one guarded address and port.
pub(super) const TARGET_WORDS: usize = 3 + 4 * KEYS;
pub(super) type RawTarget = [u64; TARGET_WORDS];

/// A guarded address and port of this host, for the table of targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub local: SocketAddr,
    pub mss: u16,
    pub listener: u8,
}

impl Target {
    pub(super) fn to_raw(&self, keys: &[KeyedState; KEYS]) -> RawTarget {
        let mut raw = [0; TARGET_WORDS];
        let [first, second] = address_words(self.local.ip());
        let family: u8 = if self.local.is_ipv4() { 4 } else { 6 };
        let [p0, p1] = self.local.port().to_be_bytes();
        let [m0, m1] = self.mss.to_ne_bytes();
        raw[0] = first;
        raw[1] = second;
        raw[2] = u64::from_ne_bytes([p0, p1, m0, m1, family, self.listener, 0, 0]);
        for (words, key) in raw[3..].chunks_exact_mut(4).zip(keys) {
            words.copy_from_slice(&key.0);
        }
        raw
    }

    /// The two places in a table of `2^bits` where the programs look for it.
    pub(super) fn places(&self, factors: [u64; 2], bits: u32) -> [usize; 2] {
        let [first, second] = address_words(self.local.ip());
        let port = u64::from(u16::from_ne_bytes(self.local.port().to_be_bytes()));
        let key = match self.local {
            SocketAddr::V4(_) => first ^ port << 40,
            SocketAddr::V6(_) => (first ^ port).wrapping_add(second.rotate_left(31)),
        };
        let hash = key.wrapping_mul(factors[0]);
        let hash = (hash ^ hash >> 32).wrapping_mul(factors[1]);
        let mask = (1 << bits) - 1;
        [(hash >> (64 - bits)) as usize, (hash >> (64 - 2 * bits)) as usize & mask]
    }
}

/// An address as the programs hold it: in network order, IPv4 in the first four bytes.
fn address_words(addr: IpAddr) -> [u64; 2] {
    let mut bytes = [0; 16];
    match addr {
        IpAddr::V4(addr) => bytes[..4].copy_from_slice(&addr.octets()),
        IpAddr::V6(addr) => bytes.copy_from_slice(&addr.octets()),
    }
    [&bytes[..8], &bytes[8..]].map(|half| u64::from_ne_bytes(half.try_into().unwrap_or_default()))
}

/// What a listener does with SYNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// The kernel's listening socket does not stand yet.
    Silent = 0,
    Answers = 1,
    Draining = 2,
    /// The kernel takes no cookies: all is left to it.
    Resting = 3,
    /// SYNs are answered; handshakes' ends wait for the listening socket of the next process.
    HandsOn = 4,
}

/// TCP options that the kernel's settings allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grants {
    pub timestamps: bool,
    pub sack: bool,
    pub wscale: bool,
}

/// `struct listener`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenerWords {
    pub state: State,
    /// Calm: SYNs are reported.
    pub reports: bool,
    pub window_scale: u8,
    pub form_b_always: bool,
    pub grants: Grants,
    /// Segments of no connection are dropped.
    pub looks_up: bool,
    /// Half-open entries are kept.
    pub has_entries: bool,
    /// The programs stay when this process goes.
    pub outlives: bool,
    /// Replies to one prefix in a period of 134 ms, per CPU.
    pub replies_max: u32,
    pub bad_cookies_max: u32,
}

pub(super) type RawListener = [u64; 2];

impl ListenerWords {
    pub(super) fn to_raw(self) -> RawListener {
        let Grants { timestamps, sack, wscale } = self.grants;
        let grants = u8::from(timestamps) | u8::from(sack) << 1 | u8::from(wscale) << 2;
        let flags = [
            self.state as u8,
            u8::from(self.reports),
            self.window_scale,
            u8::from(self.form_b_always),
            grants,
            u8::from(self.looks_up),
            u8::from(self.has_entries),
            u8::from(self.outlives),
        ];
        let [r, b] = [self.replies_max.to_ne_bytes(), self.bad_cookies_max.to_ne_bytes()];
        [u64::from_ne_bytes(flags), u64::from_ne_bytes([r[0], r[1], r[2], r[3], b[0], b[1], b[2], b[3]])]
    }
}

/// `struct clockwork`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Clockwork {
    /// Slot of the key that makes cookies.
    pub current: u8,
    pub accepted: [bool; KEYS],
    /// Link-layer addresses of the devices with a program in their driver, at most eight.
    pub macs: Vec<[u8; 6]>,
    /// What to add to the kernel's jiffies, as nanoseconds, for our clock.
    pub offset_ns: u64,
    /// When we were last here; `None` for programs that go with us.
    pub kept: Option<Time>,
}

/// So long after we were last here the programs report no more, and so long after it they do nothing more.
pub(super) const ALONE: Duration = Duration::from_secs(3);
#[cfg(test)]
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// So long after its handshake was kept waiting a client may still believe in a connection that it has not got.
pub(super) const WAITS: Duration = Duration::from_secs(60);

pub(super) const MACS_MAX: usize = 8;
const CLOCKWORK_WORDS: usize = 6 + 2 * MACS_MAX + 4;
pub(super) type RawClockwork = [u32; CLOCKWORK_WORDS];

impl Clockwork {
    pub(super) fn to_raw(&self) -> RawClockwork {
        let mut raw = [0; CLOCKWORK_WORDS];
        let half = |range: std::ops::Range<usize>| {
            let bytes: Vec<u8> = self.accepted[range].iter().map(|&accepted| u8::from(accepted)).collect();
            u32::from_ne_bytes(bytes.try_into().unwrap_or_default())
        };
        raw[0] = u32::from(self.current);
        raw[1] = half(0..4);
        raw[2] = half(4..8);
        raw[3] = u32::from(self.accepted[4..].contains(&true));
        raw[4] = self.macs.len().min(MACS_MAX) as u32;
        // Never, by a signed difference.
        let kept = self.kept.map_or(i64::MAX as u64, Time::as_nanos);
        raw[6 + 2 * MACS_MAX] = self.offset_ns as u32;
        raw[7 + 2 * MACS_MAX] = (self.offset_ns >> 32) as u32;
        raw[8 + 2 * MACS_MAX] = kept as u32;
        raw[9 + 2 * MACS_MAX] = (kept >> 32) as u32;
        for (words, mac) in raw[6..].chunks_exact_mut(2).take(MACS_MAX).zip(&self.macs) {
            words[0] = u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]);
            words[1] = u32::from(u16::from_ne_bytes([mac[4], mac[5]]));
        }
        raw
    }
}

/// `enum counter`: the names of what the programs count, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, dead_code)] // Some are for tests and for looking at the map by hand.
#[repr(usize)]
pub(super) enum Counted {
    SynsReceived,
    SynAcksSent,
    CookiesSent,
    CookiesValid,
    CookiesExpired,
    CookiesBadMac,
    CookiesNotExpected,
    CookiesOverBudget,
    RepliesOverBudget,
    AcceptQueueFull,
    AssignRefused,
    TupleBusy,
    ReportsLost,
    NoListener,
    LeftToKernel,
    BadChecksum,
    Martian,
    Land,
    PortZero,
    BadFlags,
    Reset,
    BadCookie,
    Draining,
    Malformed,
    NotUnderstood,
    UnknownFlow,
    UnknownPassed,
    SampledBogus,
    SynsDenied,
    ResetsSent,
    Denied,
    /// Handshakes without an entry, by how long they took; as many places as [`TOOK`] has.
    Took,
    /// How long all of those took, in units of the cookies' clock.
    TookUnits = Counted::Took as usize + TOOK.len(),
}

/// How long the handshakes counted at [`Counted::Took`] and behind it took at least, in units of the cookies' clock. Within a step all lie in one
/// bucket of [`HANDSHAKE_BUCKETS`](crate::stats::HANDSHAKE_BUCKETS).
pub(super) const TOOK: [u64; 8] = [0, 1, 2, 3, 6, 12, 30, 120];

pub(super) const COUNTED: usize = 40;
pub(super) type RawCounters = [u64; COUNTED];

/// `struct report`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub kind: Kind,
    pub listener: u8,
    pub tuple: FourTuple,
    pub irs: SeqNum,
    pub iss: SeqNum,
    pub offer: Offer,
    /// When, by our clock.
    pub at: Time,
}

/// `enum kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Syn,
    Accepted,
    Reset,
    Full,
    Held,
    Bogus,
}

pub(super) const REPORT_LEN: usize = 64;

impl Report {
    /// `None` for what no program of ours has written.
    pub(super) fn parse(bytes: &[u8]) -> Option<Report> {
        let bytes: &[u8; REPORT_LEN] = bytes.get(..REPORT_LEN)?.try_into().ok()?;
        let u16_at = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let port_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let ns = u64::from(u32_at(56)) | u64::from(u32_at(60)) << 32;
        let addr_at = |at: usize| {
            let octets: [u8; 16] = bytes[at..at + 16].try_into().ok()?;
            match bytes[1] {
                4 => Some(IpAddr::from([octets[0], octets[1], octets[2], octets[3]])),
                6 => Some(IpAddr::from(Ipv6Addr::from(octets))),
                _ => None,
            }
        };
        let kind =
            [Kind::Syn, Kind::Accepted, Kind::Reset, Kind::Full, Kind::Held, Kind::Bogus].get(usize::from(bytes[0]))?;
        let timestamps = bytes[5] != 0;
        Some(Report {
            kind: *kind,
            listener: bytes[2],
            tuple: FourTuple {
                peer: Endpoint { addr: addr_at(8)?, port: port_at(40) },
                local: Endpoint { addr: addr_at(24)?, port: port_at(42) },
            },
            irs: SeqNum::new(u32_at(44)),
            iss: SeqNum::new(u32_at(48)),
            offer: Offer {
                mss: u16_at(6),
                wscale: (bytes[3] < 15).then_some(bytes[3]),
                sack: bytes[4] != 0,
                tsval: timestamps.then(|| u32_at(52)),
            },
            at: Time::from_nanos(ns),
        })
    }
}
