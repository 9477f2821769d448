//! Endpoints and the pair of them that names a connection.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// One end of a connection: an address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// IPv4 or IPv6 address; an IPv4-mapped IPv6 address is never stored here.
    pub addr: IpAddr,
    /// Port in host order.
    pub port: u16,
}

/// The pair of endpoints that names a connection, seen from this host.
///
/// Both ends are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FourTuple {
    /// Our end: the destination of what we receive.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
}

impl From<Endpoint> for SocketAddr {
    fn from(end: Endpoint) -> SocketAddr {
        SocketAddr::new(end.addr, end.port)
    }
}

impl From<SocketAddr> for Endpoint {
    /// Drops flow label and scope; an IPv4-mapped address becomes the IPv4 address it stands for.
    fn from(addr: SocketAddr) -> Endpoint {
        Endpoint { addr: addr.ip().to_canonical(), port: addr.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

impl fmt::Display for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <- {}", self.local, self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::from(text.parse::<SocketAddr>().unwrap())
    }

    #[test]
    fn mapped_address_becomes_ipv4() {
        assert_eq!(endpoint("[::ffff:192.0.2.1]:80"), endpoint("192.0.2.1:80"));
        assert!(endpoint("[::ffff:192.0.2.1]:80").addr.is_ipv4());
        assert!(endpoint("[2001:db8::1]:80").addr.is_ipv6());
    }

    #[test]
    fn scope_and_flow_label_are_dropped() {
        let scoped = core::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 5, 7);
        let back = SocketAddr::from(Endpoint::from(SocketAddr::V6(scoped)));
        assert_eq!(back, "[fe80::1]:80".parse().unwrap());
    }

    #[test]
    fn socket_addresses_survive_the_round_trip() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:65535", "0.0.0.0:0", "[::]:0"] {
            assert_eq!(SocketAddr::from(endpoint(text)).to_string(), text);
            assert_eq!(endpoint(text).to_string(), text);
        }
    }

    #[test]
    fn tuple_shows_both_ends() {
        let tuple = FourTuple { local: endpoint("192.0.2.1:80"), peer: endpoint("198.51.100.7:40000") };
        assert_eq!(tuple.to_string(), "192.0.2.1:80 <- 198.51.100.7:40000");
    }
}
