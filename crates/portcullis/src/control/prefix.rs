//! A range of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Addresses that begin alike, as `192.0.2.0/24` or `2001:db8::/64`; of one address alone the length may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(IpNet);

impl Prefix {
    /// The prefix that stands for one source wherever sources are bounded: /24 of IPv4, /64 of IPv6.
    pub fn of_source(source: IpAddr) -> Prefix {
        Prefix(connection::source_prefix(source))
    }

    /// Whether the address is in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains(&addr)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefix, String> {
        connection::parse_prefix(text).map(Prefix).ok_or_else(|| refusal(text))
    }
}

fn refusal(text: &str) -> String {
    match text.parse::<IpNet>() {
        // Who writes an address may not mean all its neighbours, and `kill` asks nobody back.
        Ok(net) => {
            format!(
                "\"{text}\" has bits set behind its length; legal: {}, or {} for the one address",
                net.trunc(),
                net.addr()
            )
        }
        Err(_) => format!(
            "\"{text}\" is no address or prefix; legal: ADDRESS or ADDRESS/LENGTH, as 192.0.2.0/24 or 2001:db8::/64"
        ),
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Prefix, String> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.to_string()
    }
}

impl From<Prefix> for IpNet {
    fn from(prefix: Prefix) -> IpNet {
        prefix.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_prefix_of_its_own() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown);
        }
        for text in ["", "192.0.2.1/33", "192.0.2", "a/8", "192.0.2.0/-1", "192.0.2.7/24", "2001:db8::1/64"] {
            let why = text.parse::<Prefix>().unwrap_err();
            assert!(why.contains(&format!("\"{text}\"")) && why.contains("legal: "), "{why}");
        }
    }

    #[test]
    fn a_source_stands_for_its_24_or_64() {
        let of = |addr: &str| Prefix::of_source(addr.parse().unwrap()).to_string();
        assert_eq!(
            (of("192.0.2.7"), of("2001:db8:0:1::7")),
            ("192.0.2.0/24".to_owned(), "2001:db8:0:1::/64".to_owned())
        );
        let prefix: Prefix = "192.0.2.0/24".parse().unwrap();
        assert!(prefix.contains("192.0.2.255".parse().unwrap()) && !prefix.contains("192.0.3.0".parse().unwrap()));
        assert!(!prefix.contains("::".parse().unwrap()));
    }
}
