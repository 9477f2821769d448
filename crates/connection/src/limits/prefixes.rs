//! How many connections each source prefix has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The prefix that stands for one source wherever sources are bounded: /24 of IPv4, /64 of IPv6.
///
/// An IPv4 address that an IPv6 socket shows as `::ffff:192.0.2.1` is taken as what it is.
pub fn source_prefix(source: IpAddr) -> IpNet {
    match source.to_canonical() {
        IpAddr::V4(addr) => Ipv4Net::new_assert(Ipv4Addr::from_bits(addr.to_bits() & !0xff), 24).into(),
        IpAddr::V6(addr) => Ipv6Net::new_assert(Ipv6Addr::from_bits(addr.to_bits() & !u128::from(u64::MAX)), 64).into(),
    }
}

/// Counts by [`source_prefix`]. A prefix without a connection has no entry.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    counts: HashMap<IpNet, u32>,
}

impl Prefixes {
    pub(super) fn enter(&mut self, peer: IpAddr) {
        *self.counts.entry(source_prefix(peer)).or_default() += 1;
    }

    /// One that entered leaves.
    pub(super) fn leave(&mut self, peer: IpAddr) {
        if let Entry::Occupied(mut count) = self.counts.entry(source_prefix(peer)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    pub(super) fn count(&self, peer: IpAddr) -> u32 {
        self.counts.get(&source_prefix(peer)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_stands_for_its_24_or_64() {
        for (source, prefix) in [
            ("192.0.2.7", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.0/24"),
            ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
            ("255.255.255.255", "255.255.255.0/24"),
        ] {
            assert_eq!(source_prefix(peer(source)).to_string(), prefix);
        }
    }

    #[test]
    fn who_has_left_leaves_nothing_behind() {
        let mut prefixes = Prefixes::default();
        let sources = ["198.18.0.1", "198.18.0.2", "198.18.1.1", "2001:db8::1"].map(peer);
        sources.iter().for_each(|source| prefixes.enter(*source));
        assert_eq!(prefixes.counts.len(), 3);
        assert_eq!(sources.map(|source| prefixes.count(source)), [2, 2, 1, 1]);
        sources.iter().for_each(|source| prefixes.leave(*source));
        assert!(prefixes.counts.is_empty());
    }
}
