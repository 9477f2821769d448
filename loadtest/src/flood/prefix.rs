//! Ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    network: IpAddr,
    len: u32,
}

impl Prefix {
    /// The prefix of this length that the address is in.
    ///
    /// A length beyond the family's means all of its bits.
    pub fn of(address: IpAddr, len: u32) -> Prefix {
        let len = len.min(bits(address));
        Prefix { network: masked(address, len), len }
    }

    /// The address whose host bits are zero.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits are left for hosts.
    pub fn host_bits(&self) -> u32 {
        bits(self.network) - self.len
    }

    /// Whether all addresses of the other prefix are in this one.
    pub fn covers(&self, other: &Prefix) -> bool {
        other.len >= self.len && self.contains(other.network)
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4() && masked(address, self.len) == self.network
    }

    /// The address with these host bits; those that it has no room for are left out.
    pub fn host(&self, number: u128) -> IpAddr {
        let host = number & !mask(128 - self.host_bits());
        match self.network {
            IpAddr::V4(network) => Ipv4Addr::from_bits(network.to_bits() | host as u32).into(),
            IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits() | host).into(),
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefix, String> {
        let no_prefix = || format!("`{text}` is no prefix such as 198.18.128.0/17");
        let (address, len) = text.split_once('/').ok_or_else(no_prefix)?;
        let address: IpAddr = address.parse().map_err(|_| no_prefix())?;
        let len: u32 = len.parse().map_err(|_| no_prefix())?;
        let prefix = Prefix::of(address, len);
        if len > bits(address) || prefix.network != address {
            return Err(no_prefix());
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.len)
    }
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// A number whose first bits are ones.
fn mask(ones: u32) -> u128 {
    u128::MAX.checked_shl(128 - ones).unwrap_or(0)
}

fn masked(address: IpAddr, len: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & (mask(len) >> 96) as u32).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & mask(len)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_reads_and_writes() {
        for text in ["198.18.128.0/17", "0.0.0.0/0", "2001:db8:ffff::/64", "::1/128"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        for text in ["198.18.0.1/17", "198.18.0.0", "198.18.0.0/33", "x/3", "2001:db8::/129"] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_stay_inside() {
        for text in ["198.18.128.0/17", "198.18.0.1/32", "2001:db8:ffff::/48"] {
            assert!(prefix(text).contains(prefix(text).host(u128::MAX)), "{text}");
        }
        assert_eq!(prefix("198.18.128.0/17").host(5).to_string(), "198.18.128.5");
        assert!(!prefix("198.18.128.0/17").contains("198.18.0.5".parse().unwrap()));
        assert!(!prefix("0.0.0.0/0").contains("::".parse().unwrap()));
    }

    #[test]
    fn a_wider_prefix_covers_a_narrower_one() {
        assert!(prefix("198.18.0.0/15").covers(&prefix("198.19.0.0/16")));
        assert!(!prefix("198.19.0.0/16").covers(&prefix("198.18.0.0/15")));
        assert!(!prefix("198.18.0.0/15").covers(&prefix("198.20.0.0/16")));
    }
}
