//! TCP segments as a test writes them, and frames as it reads them.

mod build;
mod parse;

use std::fmt;
use std::num::ParseIntError;
use std::ops::BitOr;
use std::str::FromStr;

pub use build::{Checksum, Segment, options};
pub use parse::{Frame, Sum};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of everybody.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
}

impl FromStr for Mac {
    type Err = ParseIntError;

    /// As [`Display`](fmt::Display) writes it; what is missing is 0.
    fn from_str(text: &str) -> Result<Mac, ParseIntError> {
        let mut mac = [0; 6];
        for (byte, digits) in mac.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(digits, 16)?;
        }
        Ok(Mac(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The control bits of a TCP header (RFC 9293 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

#[allow(missing_docs)] // The RFC's names are the documentation.
impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const FIN: Flags = Flags(0x01);
    pub const SYN: Flags = Flags(0x02);
    pub const RST: Flags = Flags(0x04);
    pub const PSH: Flags = Flags(0x08);
    pub const ACK: Flags = Flags(0x10);
    pub const URG: Flags = Flags(0x20);
    pub const ECE: Flags = Flags(0x40);
    pub const CWR: Flags = Flags(0x80);

    const NAMES: [&'static str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

    /// Whether every bit of `others` is set.
    pub const fn has(self, others: Flags) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether this is a SYN-ACK, whatever other bits are set.
    pub const fn is_syn_ack(self) -> bool {
        self.has(Flags(Flags::SYN.0 | Flags::ACK.0))
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<_> = (0..8).filter(|bit| self.0 >> bit & 1 == 1).map(|bit| Flags::NAMES[bit]).collect();
        f.write_str(&if set.is_empty() { "none".to_owned() } else { set.join("+") })
    }
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const PROTOCOL_TCP: u8 = 6;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const MACS: (Mac, Mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));

    fn addresses(v6: bool) -> (SocketAddr, SocketAddr) {
        let text = if v6 { ("[2001:db8::5]:1025", "[2001:db8::1]:80") } else { ("198.18.0.5:1025", "198.18.0.1:80") };
        (text.0.parse().unwrap(), text.1.parse().unwrap())
    }

    #[test]
    fn what_is_built_reads_back() {
        for v6 in [false, true] {
            let (src, dst) = addresses(v6);
            let segment = Segment::new(src, dst, Flags::SYN | Flags::PSH)
                .seq(7)
                .ack(9)
                .window(1000)
                .options(options::typical_syn(1460, 5))
                .payload(b"odd");
            let frame = Frame::parse(&segment.frame(MACS.0, MACS.1), None, false).unwrap();
            assert_eq!((frame.src, frame.dst), (src, dst));
            assert_eq!((frame.src_mac, frame.dst_mac), MACS);
            assert_eq!((frame.seq, frame.ack, frame.window), (7, 9, 1000));
            assert_eq!((frame.flags, &frame.payload[..]), (Flags::SYN | Flags::PSH, &b"odd"[..]));
            assert_eq!((frame.mss(), frame.wscale(), frame.sack_permitted()), (Some(1460), Some(7), true));
            assert_eq!(frame.timestamps(), Some((5, 0)));
            assert_eq!(frame.sum, Sum::Right);
        }
    }

    #[test]
    fn a_wrong_checksum_is_seen() {
        let (src, dst) = addresses(false);
        let segment = Segment::new(src, dst, Flags::SYN).checksum(Checksum::Wrong);
        assert_eq!(Frame::parse(&segment.frame(MACS.0, MACS.1), None, false).unwrap().sum, Sum::Wrong);
    }

    #[test]
    fn odd_headers_are_walked() {
        let (src, dst) = addresses(false);
        let v4 = Segment::new(src, dst, Flags::ACK).ip_options(vec![1, 1, 1, 0]).vlan(100).pad_to(64);
        let frame = Frame::parse(&v4.frame(MACS.0, MACS.1), None, false).unwrap();
        assert_eq!((frame.sum, frame.vlan, frame.payload.len()), (Sum::Right, Some(100), 0));

        let (src, dst) = addresses(true);
        let v6 = Segment::new(src, dst, Flags::ACK).extension(0, vec![1, 4, 0, 0, 0, 0]).extension(60, vec![0; 6]);
        let frame = Frame::parse(&v6.frame(MACS.0, MACS.1), None, false).unwrap();
        assert_eq!((frame.sum, frame.src), (Sum::Right, src));
    }

    #[test]
    fn fragments_cover_the_segment() {
        let (src, dst) = addresses(false);
        let segment = Segment::new(src, dst, Flags::ACK).payload(&[7; 100]);
        let fragments = segment.fragments(MACS.0, MACS.1, 48);
        let bodies: usize = fragments.iter().map(|fragment| fragment.len() - 34).sum();
        assert_eq!((fragments.len(), bodies), (3, 120));
        assert!(fragments.iter().all(|fragment| Frame::parse(fragment, None, false).is_none()));
    }
}
