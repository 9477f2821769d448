//! From a captured packet to a tuple and a segment.

use crate::capture::Capture;
use crate::checksum::{Checksums, Sum};
use crate::error::{ChecksumOf, Malformed, ParseError};
use crate::ethernet::{self, Announced, EthernetHeader};
use crate::ip::{self, Datagram};
use crate::segment::Segment;
use crate::tuple::{Endpoint, FourTuple};

/// A received TCP packet: whose it is, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// `local` is the destination, `peer` the source.
    pub tuple: FourTuple,
    /// The TCP segment.
    pub segment: Segment<'a>,
}

impl<'a> Packet<'a> {
    /// Parses a packet that begins with its IP header.
    ///
    /// `captured` is what the capture holds, `wire_len` the length of the packet on the wire, both counted from the IP
    /// header. `wire_len` is the larger one when the capture was cut short; it may exceed the length in the IP header, for
    /// Ethernet pads short frames. Bytes captured beyond `wire_len` are ignored.
    ///
    /// # Errors
    ///
    /// See [`ParseError`]. The headers must have been captured whole, and with [`Checksums::Verify`] the segment too.
    #[inline]
    pub fn parse_ip(captured: &'a [u8], wire_len: usize, checksums: Checksums) -> Result<Packet<'a>, ParseError> {
        let packet = Capture::new(captured, wire_len);
        let datagram = match ip::version(packet)? {
            4 => ip::parse_v4(packet, checksums)?,
            6 => ip::parse_v6(packet)?,
            _ => return Err(ParseError::NotIp),
        };
        Packet::from_datagram(datagram, checksums)
    }

    /// Parses a frame that begins with its Ethernet header; `captured` and `wire_len` count from there.
    ///
    /// At most two VLAN tags in the frame (802.1Q, 802.1ad) are skipped; the header returned has the outermost.
    ///
    /// # Errors
    ///
    /// As [`parse_ip`](Packet::parse_ip).
    #[inline]
    pub fn parse_ethernet(
        captured: &'a [u8],
        wire_len: usize,
        checksums: Checksums,
    ) -> Result<(EthernetHeader, Packet<'a>), ParseError> {
        let (header, announced, packet) = ethernet::parse(Capture::new(captured, wire_len))?;
        let datagram = match (announced, ip::version(packet)?) {
            (Announced::Ipv4, 4) => ip::parse_v4(packet, checksums)?,
            (Announced::Ipv6, 6) => ip::parse_v6(packet)?,
            _ => return Err(ParseError::Malformed(Malformed::Version)),
        };
        Ok((header, Packet::from_datagram(datagram, checksums)?))
    }

    #[inline]
    fn from_datagram(datagram: Datagram<'a>, checksums: Checksums) -> Result<Packet<'a>, ParseError> {
        let (ports, segment) = Segment::parse(datagram.payload)?;
        if checksums == Checksums::Verify {
            verify_tcp(datagram)?;
        }
        let tuple = FourTuple {
            local: Endpoint { addr: datagram.destination, port: ports.destination },
            peer: Endpoint { addr: datagram.source, port: ports.source },
        };
        Ok(Packet { tuple, segment })
    }
}

#[inline]
fn verify_tcp(datagram: Datagram<'_>) -> Result<(), ParseError> {
    let Datagram { source, destination, payload } = datagram;
    if payload.is_cut() {
        return Err(ParseError::Truncated);
    }
    let tcp_len = u32::try_from(payload.wire_len()).unwrap_or(u32::MAX);
    if Sum::pseudo_header(source, destination, tcp_len).bytes(payload.captured()).is_valid() {
        Ok(())
    } else {
        Err(ParseError::BadChecksum(ChecksumOf::Tcp))
    }
}
