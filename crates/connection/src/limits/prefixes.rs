//! How many connections each source prefix has, and which.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Bound;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::connection::ConnectionHandle;

/// The prefix that stands for one source wherever sources are bounded: /24 of IPv4, /64 of IPv6.
///
/// An IPv4 address that an IPv6 socket shows as `::ffff:192.0.2.1` is taken as what it is.
pub fn source_prefix(source: IpAddr) -> IpNet {
    match source.to_canonical() {
        IpAddr::V4(addr) => Ipv4Net::new_assert(Ipv4Addr::from_bits(addr.to_bits() & !0xff), 24).into(),
        IpAddr::V6(addr) => Ipv6Net::new_assert(Ipv6Addr::from_bits(addr.to_bits() & !u128::from(u64::MAX)), 64).into(),
    }
}

/// Who is inside, by [`source_prefix`]. A prefix without a connection has no entry.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    inside: HashMap<IpNet, Prefix>,
    /// The same prefixes by how many each has, so that the largest are found without a look at the others.
    by_count: BTreeSet<(u32, IpNet)>,
    /// The connections that are known, those of a prefix side by side.
    handles: BTreeMap<(IpNet, u64), ConnectionHandle>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Prefix {
    count: u32,
    /// The connection that was looked at last as one that might go.
    looked_at: u64,
}

/// A connection that is inside, and can be looked at.
#[derive(Debug)]
pub(super) struct Known {
    /// An address of its prefix.
    pub(super) peer: IpAddr,
    pub(super) number: u64,
    pub(super) handle: ConnectionHandle,
}

impl Prefixes {
    pub(super) fn enter(&mut self, peer: IpAddr) {
        self.change(source_prefix(peer), |count| count + 1);
    }

    /// The connection that entered under this number.
    pub(super) fn know(&mut self, peer: IpAddr, number: u64, handle: ConnectionHandle) {
        self.handles.insert((source_prefix(peer), number), handle);
    }

    /// Whether that one is known, and inside.
    pub(super) fn knows(&self, peer: IpAddr, number: u64) -> bool {
        self.handles.contains_key(&(source_prefix(peer), number))
    }

    /// One that entered leaves.
    pub(super) fn leave(&mut self, peer: IpAddr, number: u64) {
        let prefix = source_prefix(peer);
        self.handles.remove(&(prefix, number));
        self.change(prefix, |count| count.saturating_sub(1));
    }

    pub(super) fn count(&self, peer: IpAddr) -> u32 {
        self.inside.get(&source_prefix(peer)).map_or(0, |prefix| prefix.count)
    }

    /// Up to `prefixes_max` prefixes with more than `count` connections, the one with the most first, and up to `each_max` of the
    /// connections of each: the next in turn, so that all of them are looked at sooner or later.
    pub(super) fn largest(&mut self, count: u32, prefixes_max: usize, each_max: usize) -> Vec<Vec<Known>> {
        let largest: Vec<IpNet> = self
            .by_count
            .iter()
            .rev()
            .take(prefixes_max)
            .take_while(|(has, _)| *has > count)
            .map(|(_, prefix)| *prefix)
            .collect();
        largest.into_iter().map(|prefix| self.next_of(prefix, each_max)).collect()
    }

    fn next_of(&mut self, prefix: IpNet, max: usize) -> Vec<Known> {
        let Some(known) = self.inside.get_mut(&prefix) else { return Vec::new() };
        let behind = (Bound::Excluded((prefix, known.looked_at)), Bound::Included((prefix, u64::MAX)));
        let before = (prefix, 0)..=(prefix, known.looked_at);
        let next = self.handles.range(behind).chain(self.handles.range(before)).take(max);
        let next: Vec<Known> = next
            .map(|((prefix, number), handle)| Known { peer: prefix.addr(), number: *number, handle: handle.clone() })
            .collect();
        known.looked_at = next.last().map_or(0, |last| last.number);
        next
    }

    fn change(&mut self, prefix: IpNet, change: impl FnOnce(u32) -> u32) {
        let known = self.inside.entry(prefix).or_default();
        let before = known.count;
        let now = change(before);
        known.count = now;
        self.by_count.remove(&(before, prefix));
        if now > 0 {
            self.by_count.insert((now, prefix));
        } else {
            self.inside.remove(&prefix);
        }
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
        assert_eq!((prefixes.inside.len(), prefixes.by_count.len()), (3, 3));
        assert_eq!(prefixes.by_count.last(), Some(&(2, source_prefix(sources[0]))));
        assert_eq!(sources.map(|source| prefixes.count(source)), [2, 2, 1, 1]);
        sources.iter().for_each(|source| prefixes.leave(*source, 1));
        assert!(prefixes.inside.is_empty() && prefixes.by_count.is_empty() && prefixes.handles.is_empty());
    }
}
