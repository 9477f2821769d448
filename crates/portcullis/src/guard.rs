//! Which addresses a list of bind addresses guards.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The addresses with what the IPv6 wildcard stands for written out.
///
/// `[::]:P` guards `0.0.0.0:P` too, as an operator expects who writes one address for "everything", unless an IPv4
/// address with that port is in the list: then the list says what to do with IPv4. Underneath, each socket is of one
/// family (`IPV6_V6ONLY`).
pub fn expand_wildcards(binds: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut guarded = binds.to_vec();
    for bind in binds.iter().filter(|bind| bind.is_ipv6() && bind.ip().is_unspecified()) {
        if !guarded.iter().any(|addr| addr.is_ipv4() && addr.port() == bind.port()) {
            guarded.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), bind.port()));
        }
    }
    guarded
}

/// Whether some packet could be for both: one family, one port, and the addresses equal or one of them a wildcard.
///
/// Port 0, which stands for any free one, overlaps with nothing.
pub fn overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
        && a.port() == b.port()
        && a.port() != 0
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_ipv6_wildcard_guards_ipv4_unless_the_list_says_otherwise() {
        assert_eq!(expand_wildcards(&addrs(&["[::]:80"])), addrs(&["[::]:80", "0.0.0.0:80"]));
        assert_eq!(expand_wildcards(&addrs(&["[::]:80", "127.0.0.1:80"])), addrs(&["[::]:80", "127.0.0.1:80"]));
        assert_eq!(
            expand_wildcards(&addrs(&["[::]:80", "127.0.0.1:81"])),
            addrs(&["[::]:80", "127.0.0.1:81", "0.0.0.0:80"])
        );
        assert_eq!(expand_wildcards(&addrs(&["[::1]:80"])), addrs(&["[::1]:80"]));
    }

    #[test]
    fn overlap_needs_one_family_one_port_and_a_shared_address() {
        for (a, b, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.2:80", "127.0.0.1:80", false),
            ("127.0.0.1:81", "127.0.0.1:80", false),
            ("[::]:80", "0.0.0.0:80", false),
            ("[::]:80", "[::1]:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (a, b): (SocketAddr, SocketAddr) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(overlap(&a, &b), expected, "{a} {b}");
            assert_eq!(overlap(&b, &a), expected, "{b} {a}");
        }
    }
}
