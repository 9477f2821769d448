//! How many connections each source prefix has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Counts by /24 of IPv4 and /64 of IPv6. A prefix without a connection has no entry.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    counts: HashMap<IpAddr, u32>,
}

impl Prefixes {
    pub(super) fn enter(&mut self, peer: IpAddr) {
        *self.counts.entry(prefix(peer)).or_default() += 1;
    }

    /// One that entered leaves.
    pub(super) fn leave(&mut self, peer: IpAddr) {
        if let Entry::Occupied(mut count) = self.counts.entry(prefix(peer)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    pub(super) fn count(&self, peer: IpAddr) -> u32 {
        self.counts.get(&prefix(peer)).copied().unwrap_or(0)
    }

    /// Those with the most, most first; equals by address.
    pub(super) fn top(&self, count: usize) -> Vec<(IpAddr, u32)> {
        let mut all: Vec<(IpAddr, u32)> = self.counts.iter().map(|(prefix, count)| (*prefix, *count)).collect();
        all.sort_unstable_by(|(a, more), (b, less)| less.cmp(more).then(a.cmp(b)));
        all.truncate(count);
        all
    }
}

/// The first address of the prefix; of an IPv6-mapped one that of the IPv4 prefix.
fn prefix(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(addr) => Ipv4Addr::from_bits(addr.to_bits() & !0xff).into(),
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() & !u128::from(u64::MAX)).into(),
    }
}
