//! The ports that the kernel chooses for connections of this host.

use std::fs;
use std::ops::RangeInclusive;

/// Where the kernel keeps the first and the last of them; of the network namespace of who reads it.
const SETTING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The ports of which the kernel may choose one for a connection of ours, as it was set when this was made.
///
/// Only a server whose port is one of them can be met by ourselves. All others need not be asked about it, which saves a call for each client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnPorts(RangeInclusive<u16>);

impl OwnPorts {
    /// As it is set now. Where that cannot be read it may be any port.
    pub(super) fn now() -> OwnPorts {
        let setting = fs::read_to_string(SETTING).unwrap_or_default();
        OwnPorts(parse(&setting).unwrap_or(0..=u16::MAX))
    }

    pub(super) fn contain(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

fn parse(setting: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = setting.split_whitespace().map(|port| port.parse().ok());
    Some(ports.next()??..=ports.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(parse("40000\t40000\n"), Some(40000..=40000));
        for unknown in ["", "32768", "32768\tx", "-1\t9"] {
            assert_eq!(parse(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn ports_that_the_kernel_gives_are_among_them() {
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(OwnPorts::now().contain(port));
    }
}
