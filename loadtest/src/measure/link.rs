//! What went over the cable, and which part of it was the clients'.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use testnet::{Interface, Namespace};

/// Bytes of an Ethernet header, which IP's counters leave out.
pub const LINK_HEADER_LEN: u64 = 14;

/// Reads the counters of one end, from any thread.
#[derive(Debug)]
pub struct LinkClock {
    file: File,
    prefix: String,
}

/// The counters of one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Bytes and frames received.
    pub rx_bytes: u64,
    /// See `rx_bytes`.
    pub rx_frames: u64,
    /// Bytes and frames sent.
    pub tx_bytes: u64,
    /// See `tx_bytes`.
    pub tx_frames: u64,
}

impl LinkClock {
    /// Of this end.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn new(end: &Interface) -> io::Result<LinkClock> {
        // A file of /proc/net belongs to the namespace in which it was opened.
        let file = end.namespace().run(|| File::open("/proc/thread-self/net/dev"))?;
        Ok(LinkClock { file, prefix: format!("{}:", end.name()) })
    }

    /// The counters now.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn now(&self) -> io::Result<LinkCounts> {
        parse(&read_from_start(&self.file)?, &self.prefix)
            .ok_or_else(|| io::Error::other(format!("no {} in /proc/net/dev", self.prefix)))
    }
}

fn parse(text: &str, prefix: &str) -> Option<LinkCounts> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(prefix))?;
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    Some(LinkCounts {
        rx_bytes: *numbers.first()?,
        rx_frames: *numbers.get(1)?,
        tx_bytes: *numbers.get(8)?,
        tx_frames: *numbers.get(9)?,
    })
}

impl LinkCounts {
    /// What was counted between an earlier moment and this one.
    pub fn since(&self, earlier: &LinkCounts) -> LinkCounts {
        LinkCounts {
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            rx_frames: self.rx_frames - earlier.rx_frames,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
            tx_frames: self.tx_frames - earlier.tx_frames,
        }
    }

    /// Without the clients' part, as their own kernel counted it.
    pub fn without(&self, clients: &LinkCounts) -> LinkCounts {
        LinkCounts {
            rx_bytes: self.rx_bytes.saturating_sub(clients.rx_bytes),
            rx_frames: self.rx_frames.saturating_sub(clients.rx_frames),
            tx_bytes: self.tx_bytes.saturating_sub(clients.tx_bytes),
            tx_frames: self.tx_frames.saturating_sub(clients.tx_frames),
        }
    }
}

/// Reads what the clients' kernel sent and received: all that it did itself. The flood's frames go past it, and the answers to those are
/// for another link-layer address.
#[derive(Debug)]
pub struct ClientTraffic {
    netstat: File,
    snmp: File,
    snmp6: File,
}

impl ClientTraffic {
    /// Of this namespace.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn new(outside: &Namespace) -> io::Result<ClientTraffic> {
        let open = |name: &str| outside.run(|| File::open(format!("/proc/thread-self/net/{name}")));
        Ok(ClientTraffic { netstat: open("netstat")?, snmp: open("snmp")?, snmp6: open("snmp6")? })
    }

    /// The counters now, as the server's end counts them: what clients sent it received. What the cable carries in one piece, larger
    /// than the MTU, is one frame to both.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn now(&self) -> io::Result<LinkCounts> {
        let (netstat, snmp) = (read_from_start(&self.netstat)?, read_from_start(&self.snmp)?);
        let snmp6 = read_from_start(&self.snmp6)?;
        let bytes = |v4: &str, v6: &str| grouped(&netstat, "IpExt:", v4) + snmp6_value(&snmp6, v6);
        let frames = |v4: &str, v6: &str| grouped(&snmp, "Ip:", v4) + snmp6_value(&snmp6, v6);
        let rx_frames = frames("OutRequests", "Ip6OutRequests");
        let tx_frames = frames("InReceives", "Ip6InReceives");
        Ok(LinkCounts {
            rx_bytes: bytes("OutOctets", "Ip6OutOctets") + LINK_HEADER_LEN * rx_frames,
            rx_frames,
            tx_bytes: bytes("InOctets", "Ip6InOctets") + LINK_HEADER_LEN * tx_frames,
            tx_frames,
        })
    }
}

/// A value of a group of `/proc/net/netstat` or `snmp`: a line of names, and one of values.
fn grouped(text: &str, group: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(found, _)| *found == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

fn snmp6_value(text: &str, name: &str) -> u64 {
    let mut pairs = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
    pairs.find(|(found, _)| *found == name).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

fn read_from_start(file: &File) -> io::Result<String> {
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let len = file.read_at(&mut piece, text.len() as u64)?;
        if len == 0 {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        text.extend_from_slice(&piece[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_columns_of_the_right_line() {
        let text =
            "Inter-|\n face |\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  srv0: 11 12 0 0 0 0 0 0 13 14 0 0 0 0 0 0\n";
        let counts = LinkCounts { rx_bytes: 11, rx_frames: 12, tx_bytes: 13, tx_frames: 14 };
        assert_eq!(parse(text, "srv0:"), Some(counts));
        assert_eq!(parse(text, "srv1:"), None);
        assert_eq!(counts.since(&counts), LinkCounts::default());
        let more = LinkCounts { rx_bytes: 20, ..counts };
        assert_eq!(counts.without(&more).rx_bytes, 0);
    }

    #[test]
    fn values_are_found_by_name() {
        let netstat = "TcpExt: InOctets\nTcpExt: 9\nIpExt: InNoRoutes InOctets\nIpExt: 1 77\n";
        assert_eq!(grouped(netstat, "IpExt:", "InOctets"), 77);
        assert_eq!(grouped(netstat, "IpExt:", "Nothing"), 0);
        assert_eq!(snmp6_value("Ip6InOctets                     \t5\n", "Ip6InOctets"), 5);
    }
}
