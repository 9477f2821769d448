//! Whose SYNs are answered: the operator's lists.

use std::net::IpAddr;

use crate::config::ConfigError;
use crate::prefix_list::PrefixList;

/// How a client is told that the lists keep it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denial {
    /// By RST in answer to its SYN, within the reply budget of its prefix: it knows at once. A client without lists against it meets the same
    /// where nobody listens.
    #[default]
    Reset,
    /// Not at all: it learns of it when its SYN's repetitions have not been answered either, after two minutes as a rule.
    Silent,
}

/// Whose SYNs are answered. The default: everybody's.
///
/// A copy costs nothing, and without lists neither does a look-up; with them it is two binary searches at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    allow: PrefixList,
    deny: PrefixList,
    denial: Denial,
}

impl Sources {
    /// Prefixes of both lists together, after what is next to each other was put together: 1,048,576.
    ///
    /// One takes 17 bytes here, and in the `bpf` tier two nodes of a trie in the kernel's memory at most, some 130 bytes. Where lists are put
    /// in the place of others, both are there for a moment.
    pub const PREFIXES_MAX: usize = 1 << 20;

    /// Those on `deny` are denied, and if `allow` is not empty, those who are not on it.
    ///
    /// # Errors
    /// More than [`PREFIXES_MAX`](Sources::PREFIXES_MAX).
    pub fn new(allow: PrefixList, deny: PrefixList, denial: Denial) -> Result<Sources, ConfigError> {
        match allow.len() + deny.len() {
            0..=Sources::PREFIXES_MAX => Ok(Sources { allow, deny, denial }),
            count => Err(ConfigError {
                key: "prefixes allowed and denied",
                value: count.to_string(),
                legal: "at most 1048576 together",
            }),
        }
    }

    /// Whether this one's SYNs get no SYN-ACK.
    pub fn denies(&self, source: IpAddr) -> bool {
        (!self.deny.is_empty() && self.deny.contains(source))
            || (!self.allow.is_empty() && !self.allow.contains(source))
    }

    /// How the denied are told.
    pub fn denial(&self) -> Denial {
        self.denial
    }

    /// Who is on it is served, unless he is on the other; empty: everybody is on it.
    pub(crate) fn allow(&self) -> &PrefixList {
        &self.allow
    }

    pub(crate) fn deny(&self) -> &PrefixList {
        &self.deny
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{IpNet, Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> PrefixList {
        PrefixList::parse(text).unwrap()
    }

    fn sources(allow: &str, deny: &str) -> Sources {
        Sources::new(list(allow), list(deny), Denial::Reset).unwrap()
    }

    #[test]
    fn without_lists_nobody_is_denied() {
        for source in ["198.18.0.1", "2001:db8::1", "0.0.0.0", "::"] {
            assert!(!Sources::default().denies(source.parse().unwrap()), "{source}");
        }
    }

    #[test]
    fn who_is_on_both_lists_is_denied() {
        let sources = sources("198.18.0.0/16\n2001:db8::/32", "198.18.7.0/24\n2001:db8:7::/48");
        for (source, denied) in [
            ("198.18.6.255", false),
            ("198.18.7.0", true),
            ("198.18.7.255", true),
            ("198.18.8.0", false),
            ("198.19.0.0", true),
            ("2001:db8:6::1", false),
            ("2001:db8:7::1", true),
            ("2001:db9::1", true),
        ] {
            assert_eq!(sources.denies(source.parse().unwrap()), denied, "{source}");
        }
    }

    #[test]
    fn an_allow_list_of_one_family_denies_the_other() {
        let sources = sources("198.18.0.0/16", "");
        assert!(!sources.denies("198.18.0.1".parse().unwrap()));
        assert!(sources.denies("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn more_prefixes_than_there_may_be_are_refused_with_the_bound() {
        // Every other address, so that none can be put together.
        let addr = |n: usize| IpNet::from(IpAddr::from(Ipv4Addr::from_bits(2 * n as u32)));
        let some = |count| (0..count).map(addr).collect::<PrefixList>();
        let half = some(Sources::PREFIXES_MAX / 2);
        assert!(Sources::new(half.clone(), half.clone(), Denial::Reset).is_ok());
        let error = Sources::new(half, some(Sources::PREFIXES_MAX / 2 + 1), Denial::Reset).unwrap_err().to_string();
        assert_eq!(error, "prefixes allowed and denied = 1048577: must be at most 1048576 together");
    }

    /// Prefixes of a small part of both families, so that they meet; and now and then of everything.
    fn prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u16>(), prop_oneof![9 => 16u8..=32, 1 => 0u8..=16]);
        let v6 = (any::<u16>(), prop_oneof![9 => 112u8..=128, 1 => 0u8..=112]);
        prop_oneof![
            v4.prop_map(|(low, len)| Ipv4Net::new_assert(near_v4(low), len).trunc().into()),
            v6.prop_map(|(low, len)| Ipv6Net::new_assert(near_v6(low), len).trunc().into()),
        ]
    }

    fn near_v4(low: u16) -> Ipv4Addr {
        Ipv4Addr::from_bits(0xc612_0000 | u32::from(low))
    }

    fn near_v6(low: u16) -> Ipv6Addr {
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(low))
    }

    /// What the lists mean, said the long way.
    fn naive(prefixes: &[IpNet], source: IpAddr) -> bool {
        let mapped = match source {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        prefixes.iter().any(|prefix| prefix.contains(&source) || prefix.contains(&IpAddr::V6(mapped)))
    }

    proptest! {
        #[test]
        fn denied_is_whom_a_look_at_every_prefix_denies(
            allow in proptest::collection::vec(prefix(), 0..12),
            deny in proptest::collection::vec(prefix(), 0..12),
            lows: [u16; 16],
        ) {
            let sources =
                Sources::new(allow.iter().copied().collect(), deny.iter().copied().collect(), Denial::Silent).unwrap();
            let edges = allow.iter().chain(&deny).flat_map(|prefix| [prefix.network(), prefix.broadcast()]);
            let near = lows.iter().flat_map(|&low| [near_v4(low).into(), near_v6(low).into()]);
            for source in edges.chain(near) {
                let denied = naive(&deny, source) || (!allow.is_empty() && !naive(&allow, source));
                prop_assert_eq!(sources.denies(source), denied, "{}", source);
            }
        }
    }
}
