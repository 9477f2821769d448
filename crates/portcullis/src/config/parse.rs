//! The values that are written as strings, in the file and on the command line alike.

use connection::parse_prefix;
use connection::upstream::{Server, ServerParseError};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An address and port to guard, wildcard included.
pub fn guarded_address(text: &str) -> Result<SocketAddr, String> {
    address(text, false)
}

/// The address and port of an upstream.
pub fn upstream_address(text: &str) -> Result<SocketAddr, String> {
    let addr = address(text, false)?;
    if addr.ip().is_unspecified() || addr.ip().is_multicast() {
        return Err("an upstream needs the address of one host".to_owned());
    }
    Ok(addr)
}

/// A server to pass connections on to: as [`upstream_address`], or `unix:/PATH`.
pub fn upstream_server(text: &str) -> Result<Server, String> {
    match text.strip_prefix("unix:") {
        Some(_) => text.parse().map_err(|error: ServerParseError| error.to_string()),
        None => upstream_address(text).map(Server::Tcp),
    }
}

/// An address, or a prefix in CIDR notation.
pub fn prefix(text: &str) -> Result<IpNet, &'static str> {
    parse_prefix(text).ok_or("it is none, or has bits set behind its length")
}

/// The address and port of the admin server; `none` for no server, port 0 for any free port.
pub fn admin_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" { Ok(None) } else { address(text, true).map(Some) }
}

/// The path of a control socket.
pub fn socket_path(text: &str) -> Result<PathBuf, String> {
    /// `sun_path` of unix(7) less the byte that ends it.
    const BYTES_MAX: usize = 107;
    let why = match text.len() {
        0 => "empty",
        1..=BYTES_MAX => return Ok(PathBuf::from(text)),
        _ => "too long",
    };
    Err(format!("it is {why}: the path of a Unix socket has 1 to {BYTES_MAX} bytes"))
}

/// A network interface's name.
pub fn interface_name(text: &str) -> Result<String, String> {
    /// IFNAMSIZ without the terminating zero.
    const BYTES_MAX: usize = 15;
    let legal = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    if text.is_empty() || text.len() > BYTES_MAX || !text.chars().all(legal) || text == "." || text == ".." {
        return Err(format!("an interface name is 1 to {BYTES_MAX} printable characters without '/', ':' and spaces"));
    }
    Ok(text.to_owned())
}

/// The name of a listener, which becomes a label of its metrics.
pub fn listener_name(text: &str) -> Result<String, String> {
    const CHARS_MAX: usize = 64;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.is_empty() || text.len() > CHARS_MAX || !text.chars().all(legal) {
        return Err(format!("a name is 1 to {CHARS_MAX} letters, digits, '_', '-' and '.'"));
    }
    Ok(text.to_owned())
}

fn address(text: &str, port_zero: bool) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text.parse().map_err(|_| hint(text))?;
    if addr.port() == 0 && !port_zero {
        return Err("port 0 names no port: give one from 1 to 65535".to_owned());
    }
    if addr.ip().is_multicast() {
        return Err("TCP has no multicast".to_owned());
    }
    // `::ffff:192.0.2.1` is the IPv4 address it stands for: all sockets here are of one family.
    Ok(SocketAddr::new(addr.ip().to_canonical(), addr.port()).with_scope_of(addr))
}

fn hint(text: &str) -> String {
    match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_err() && host.parse::<std::net::IpAddr>().is_ok() => {
            format!("'{port}' is no port from 1 to 65535")
        }
        _ if text.parse::<std::net::Ipv6Addr>().is_ok() => format!("the port is missing: [{text}]:PORT"),
        _ if text.parse::<std::net::Ipv4Addr>().is_ok() => format!("the port is missing: {text}:PORT"),
        _ => "no numeric address with a port".to_owned(),
    }
}

trait WithScope {
    fn with_scope_of(self, other: SocketAddr) -> SocketAddr;
}

impl WithScope for SocketAddr {
    /// Keeps the scope of a link-local IPv6 address, which means nothing without one.
    fn with_scope_of(self, other: SocketAddr) -> SocketAddr {
        if other.ip() == self.ip() { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_and_wildcards_are_legal() {
        for text in ["127.0.0.1:80", "0.0.0.0:65535", "[::]:1", "[2001:db8::1]:443"] {
            assert_eq!(guarded_address(text).unwrap().to_string(), text);
        }
        assert_eq!(guarded_address("[::ffff:192.0.2.1]:80").unwrap().to_string(), "192.0.2.1:80");
        assert_eq!(guarded_address("[fe80::1%3]:80").unwrap().to_string(), "[fe80::1%3]:80");
    }

    #[test]
    fn bad_addresses_are_refused_with_the_reason() {
        for (text, reason) in [
            ("127.0.0.1", "the port is missing: 127.0.0.1:PORT"),
            ("::1", "the port is missing: [::1]:PORT"),
            ("127.0.0.1:0", "port 0"),
            ("127.0.0.1:65536", "'65536' is no port from 1 to 65535"),
            ("localhost:80", "no numeric address"),
            ("224.0.0.1:80", "no multicast"),
            ("", "no numeric address"),
        ] {
            let error = guarded_address(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(upstream_address("0.0.0.0:80").is_err());
    }

    #[test]
    fn the_admin_server_can_be_switched_off_or_take_any_port() {
        assert_eq!(admin_address("none").unwrap(), None);
        assert_eq!(admin_address("127.0.0.1:0").unwrap().unwrap().port(), 0);
    }

    #[test]
    fn interface_and_listener_names_are_bounded() {
        assert!(interface_name("eth0.100").is_ok());
        assert!(listener_name("web-1").is_ok());
        for bad in ["", "a b", "0123456789abcdef", "a/b", ".."] {
            assert!(interface_name(bad).is_err(), "{bad}");
        }
        for bad in ["", "a b", "ä", "{}"] {
            assert!(listener_name(bad).is_err(), "{bad}");
        }
    }
}
