//! Ethernet headers and in-band VLAN tags.

use crate::capture::Capture;
use crate::error::{Malformed, ParseError};

/// Who sent a frame to whom, and on which VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EthernetHeader {
    /// MAC address the frame was sent to.
    pub destination: [u8; 6],
    /// MAC address the frame came from.
    pub source: [u8; 6],
    /// Tag control information (priority, DEI, VLAN id) of the outermost tag in the frame (IEEE 802.1Q §9.6). A tag that the
    /// kernel stripped is not in the frame; it comes beside it.
    pub vlan: Option<u16>,
}

/// The IP version that an EtherType announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    Ipv4,
    Ipv6,
}

/// Reads the header, walks at most [`TAGS_MAX`] VLAN tags, and returns what lies behind.
#[inline]
pub(crate) fn parse(frame: Capture<'_>) -> Result<(EthernetHeader, Announced, Capture<'_>), ParseError> {
    let (fixed, mut rest) = frame.take::<14>(Malformed::TooShort)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *fixed;
    let mut ether_type = u16::from_be_bytes([t0, t1]);
    let mut vlan = None;
    for _ in 0..TAGS_MAX {
        if ether_type != TAG_8021Q && ether_type != TAG_8021AD {
            break;
        }
        let (&[c0, c1, t0, t1], behind) = rest.take::<4>(Malformed::TooShort)?;
        vlan = vlan.or(Some(u16::from_be_bytes([c0, c1])));
        ether_type = u16::from_be_bytes([t0, t1]);
        rest = behind;
    }
    let header = EthernetHeader { destination: [d0, d1, d2, d3, d4, d5], source: [s0, s1, s2, s3, s4, s5], vlan };
    match ether_type {
        IPV4 => Ok((header, Announced::Ipv4, rest)),
        IPV6 => Ok((header, Announced::Ipv6, rest)),
        _ => Err(ParseError::NotIp),
    }
}

/// A customer tag inside a service tag (IEEE 802.1ad) is the most that a host meets.
const TAGS_MAX: usize = 2;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAG_8021Q: u16 = 0x8100;
const TAG_8021AD: u16 = 0x88a8;
