//! Lists of address prefixes, from files.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};

/// A set of addresses, given as prefixes in CIDR notation.
///
/// An address of IPv4 is also meant by its IPv6-mapped form. A look-up is a binary search; a prefix takes 17 bytes, and a copy of the list
/// none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixList {
    /// None of them contains another or touches it; sorted.
    prefixes: Arc<[Ipv6Net]>,
}

/// A line that is no prefix. Which file it is in, its reader knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixListError {
    /// Its number, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

impl fmt::Display for PrefixListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no prefix; legal: an address of IPv4 or IPv6, alone or with /LENGTH and no bit set behind it, \
             such as 192.0.2.0/24, 192.0.2.7 or 2001:db8::/32",
            self.text
        )
    }
}

impl std::error::Error for PrefixListError {}

impl PrefixList {
    /// Reads a list: a prefix or an address in each line, what follows a `#` is a comment, empty lines mean nothing.
    ///
    /// # Errors
    /// Every line that is no prefix.
    pub fn parse(text: &str) -> Result<PrefixList, Vec<PrefixListError>> {
        let (mut prefixes, mut errors) = (Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            match parse_prefix(line) {
                _ if line.is_empty() => {}
                Some(prefix) => prefixes.push(prefix),
                None => errors.push(PrefixListError { line: index + 1, text: line.to_owned() }),
            }
        }
        if errors.is_empty() { Ok(prefixes.into_iter().collect()) } else { Err(errors) }
    }

    /// Whether the address is in one of the prefixes.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = match addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        self.around(addr).is_some_and(|prefix| prefix.contains(&addr))
    }

    /// Whether every address of this prefix is in one of them.
    pub(crate) fn covers(&self, prefix: &Ipv6Net) -> bool {
        self.around(prefix.addr()).is_some_and(|ours| ours.contains(prefix))
    }

    /// The only one that may have this address.
    fn around(&self, addr: Ipv6Addr) -> Option<&Ipv6Net> {
        // Without bits behind their lengths, as all here are, a prefix's address is its first.
        let after = self.prefixes.partition_point(|prefix| prefix.addr() <= addr);
        after.checked_sub(1).map(|at| &self.prefixes[at])
    }

    /// How many [`iter`](PrefixList::iter) gives.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether there is no address in it.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// The fewest prefixes that mean the same; those of IPv4 in their IPv6-mapped form.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.as_ipv6().iter().copied().map(IpNet::V6)
    }

    pub(crate) fn as_ipv6(&self) -> &[Ipv6Net] {
        &self.prefixes
    }
}

impl FromIterator<IpNet> for PrefixList {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> PrefixList {
        let all: Vec<Ipv6Net> = prefixes.into_iter().map(as_ipv6).collect();
        PrefixList { prefixes: Ipv6Net::aggregate(&all).into() }
    }
}

/// A prefix, or an address as the prefix of itself alone. One with bits behind its length is a mistake: nobody can tell which.
pub fn parse_prefix(text: &str) -> Option<IpNet> {
    let prefix = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    (prefix == prefix.trunc()).then_some(prefix)
}

fn as_ipv6(prefix: IpNet) -> Ipv6Net {
    match prefix {
        IpNet::V6(prefix) => prefix,
        IpNet::V4(prefix) => Ipv6Net::new_assert(prefix.network().to_ipv6_mapped(), prefix.prefix_len() + 96),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> PrefixList {
        PrefixList::parse(text).unwrap()
    }

    fn has(list: &PrefixList, addr: &str) -> bool {
        list.contains(addr.parse().unwrap())
    }

    #[test]
    fn first_and_last_address_are_in_and_their_neighbours_are_not() {
        let list = list("198.18.4.0/22\n2001:db8:1::/48\n203.0.113.7 # one alone\n");
        for (addr, expected) in [
            ("198.18.3.255", false),
            ("198.18.4.0", true),
            ("198.18.7.255", true),
            ("198.18.8.0", false),
            ("::ffff:198.18.4.1", true),
            ("203.0.113.6", false),
            ("203.0.113.7", true),
            ("203.0.113.8", false),
            ("2001:db8:0:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8:1::", true),
            ("2001:db8:1:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db8:2::", false),
            ("::198.18.4.1", false),
        ] {
            assert_eq!(has(&list, addr), expected, "{addr}");
        }
    }

    #[test]
    fn a_prefix_within_another_hides_nothing() {
        let list = list("10.0.0.0/8\n10.1.2.0/24\n10.1.2.3\n");
        assert!(has(&list, "10.1.2.4") && has(&list, "10.1.3.0") && has(&list, "10.255.255.255"));
        assert!(!has(&list, "11.0.0.0"));
    }

    #[test]
    fn everything_and_nothing() {
        assert!(has(&list("0.0.0.0/0"), "255.255.255.255"));
        assert!(!has(&list("0.0.0.0/0"), "2001:db8::1"));
        assert!(has(&list("::/0"), "2001:db8::1") && has(&list("::/0"), "198.18.0.1"));
        let empty = list("\n  # nobody\n\n");
        assert!(empty.is_empty() && !has(&empty, "198.18.0.1"));
    }

    #[test]
    fn every_line_that_is_no_prefix_is_told_by_its_number() {
        let errors = PrefixList::parse("198.18.0.0/15\n198.18.0.1/24\n\n2001:db8::/129\nlocalhost # no\n").unwrap_err();
        let told: Vec<_> = errors.iter().map(|error| (error.line, error.text.as_str())).collect();
        assert_eq!(told, [(2, "198.18.0.1/24"), (4, "2001:db8::/129"), (5, "localhost")]);
        assert!(errors[0].to_string().contains("no bit set behind it"), "{}", errors[0]);
    }
}
