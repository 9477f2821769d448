//! Budgets per source prefix, in fixed memory whatever the number of sources.

use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::time::Time;

/// A budget of events per second for each source prefix: /24 of IPv4, /64 of IPv6.
///
/// A sketch, not a map: a keyed hash of the prefix picks one of 4096 counters, another of the full address one of 4096
/// more; both rows are cleared ten times a second, so that a client that was refused does not meet the same end of a
/// period again when it repeats itself after whole seconds. It takes 16 KiB and never grows. Two prefixes that share a counter share
/// its budget, which only matters when one of them is attacked.
///
/// A prefix that has used up its budget gets as much again, but only for addresses of which little was seen this period:
/// a host that shares a prefix with one flooding source is still served.
pub(crate) struct Budget {
    limit: u16,
    key: [u8; 16],
    prefixes: Box<[u16; CELLS]>,
    addresses: Box<[u16; CELLS]>,
    clears_at: Time,
}

const CELLS: usize = 4096;

/// Events in a period up to which an address counts as quiet.
const QUIET_MAX: u16 = 16;

const PERIODS_PER_SECOND: u32 = 10;
const PERIOD: Duration = Duration::from_millis(100);

impl Budget {
    /// Largest limit in events per second: twice a period's part must fit a counter.
    pub(crate) const LIMIT_MAX: u32 = PERIODS_PER_SECOND * (u16::MAX / 2) as u32;

    /// A budget of `limit` events per second, at most [`Budget::LIMIT_MAX`]; `key` must be secret.
    pub(crate) fn new(limit: u32, key: [u8; 16]) -> Budget {
        Budget {
            limit: (limit.min(Budget::LIMIT_MAX) / PERIODS_PER_SECOND).max(1) as u16,
            key,
            prefixes: Box::new([0; CELLS]),
            addresses: Box::new([0; CELLS]),
            clears_at: Time::default(),
        }
    }

    /// Takes one event out of the budget of `source`'s prefix; `false` when there is none left.
    pub(crate) fn take(&mut self, source: IpAddr, now: Time) -> bool {
        self.clear_if_due(now);
        let (prefix, address) = self.cells(source);
        let (spent, seen) = (&mut self.prefixes[prefix], &mut self.addresses[address]);
        *seen = seen.saturating_add(1);
        let allowed = *spent < self.limit || (*seen <= QUIET_MAX && *spent < 2 * self.limit);
        *spent += u16::from(allowed);
        allowed
    }

    /// Whether `source` has budget left, taking nothing.
    pub(crate) fn has_left(&mut self, source: IpAddr, now: Time) -> bool {
        self.clear_if_due(now);
        let (prefix, address) = self.cells(source);
        let spent = self.prefixes[prefix];
        spent < self.limit || (self.addresses[address] <= QUIET_MAX && spent < 2 * self.limit)
    }

    /// Gives one event back: what it was spent on turned out well.
    pub(crate) fn refund(&mut self, source: IpAddr) {
        let (prefix, address) = self.cells(source);
        self.prefixes[prefix] = self.prefixes[prefix].saturating_sub(1);
        self.addresses[address] = self.addresses[address].saturating_sub(1);
    }

    fn clear_if_due(&mut self, now: Time) {
        if now >= self.clears_at {
            self.prefixes.fill(0);
            self.addresses.fill(0);
            self.clears_at = now + PERIOD;
        }
    }

    fn cells(&self, source: IpAddr) -> (usize, usize) {
        let (hash, host) = prefix_hash(&self.key, source);
        let address = (hash >> 32) ^ host.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (hash as usize % CELLS, address as usize % CELLS)
    }
}

/// A keyed hash of the prefix of `source`, and the rest of the address.
pub(crate) fn prefix_hash(key: &[u8; 16], source: IpAddr) -> (u64, u64) {
    let (prefix, host) = match source {
        // A /24 never equals a /64's number: the latter's high bits are those of a routable prefix.
        IpAddr::V4(addr) => (u64::from(addr.to_bits() >> 8), u64::from(addr.to_bits() & 0xff)),
        IpAddr::V6(addr) => ((addr.to_bits() >> 64) as u64, addr.to_bits() as u64),
    };
    let mut hash = SipHasher13::new_with_key(key);
    hash.write(&prefix.to_le_bytes());
    (hash.finish(), host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(10);

    /// `limit` events in a period.
    fn budget(limit: u32) -> Budget {
        Budget::new(limit * PERIODS_PER_SECOND, [3; 16])
    }

    fn v4(d: u8) -> IpAddr {
        IpAddr::from([198, 18, 0, d])
    }

    #[test]
    fn one_address_gets_its_limit_and_no_more() {
        let mut budget = budget(100);
        assert_eq!((0..500).filter(|_| budget.take(v4(1), NOW)).count(), 100);
    }

    #[test]
    fn a_quiet_neighbour_of_a_flooding_address_is_still_served() {
        let mut budget = budget(100);
        while budget.take(v4(1), NOW) {}
        assert!(budget.take(v4(2), NOW));
        assert!(!budget.take(v4(1), NOW));
    }

    #[test]
    fn a_whole_prefix_gets_twice_the_limit_at_most() {
        let mut budget = budget(100);
        let granted = (0..10_000).filter(|n| budget.take(v4((n % 251) as u8), NOW)).count();
        assert!((100..=200).contains(&granted), "{granted}");
    }

    #[test]
    fn prefixes_do_not_share_and_a_period_clears() {
        let mut budget = budget(10);
        while budget.take(v4(1), NOW) {}
        assert!(budget.take(IpAddr::from([198, 18, 1, 1]), NOW));
        assert!(budget.take("2001:db8::1".parse().unwrap(), NOW));
        assert!(budget.take(v4(1), NOW + PERIOD));
    }

    #[test]
    fn a_refund_lets_completed_handshakes_go_on_for_ever() {
        let mut budget = budget(10);
        for _ in 0..1000 {
            assert!(budget.take(v4(1), NOW));
            budget.refund(v4(1));
        }
    }
}
