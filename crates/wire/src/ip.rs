//! IPv4 and IPv6 headers.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::capture::Capture;
use crate::checksum::{Checksums, Sum};
use crate::error::{ChecksumOf, Malformed, ParseError};
use crate::extension;

/// A whole (unfragmented) IP packet that carries TCP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The TCP segment: from its header to the end that the IP length states.
    pub(crate) payload: Capture<'a>,
}

/// The protocol number of TCP.
pub(crate) const TCP: u8 = 6;

/// The IP version field; the first byte must be there to be judged.
#[inline]
pub(crate) fn version(packet: Capture<'_>) -> Result<u8, ParseError> {
    let [first] = packet.peek::<1>(Malformed::TooShort)?;
    Ok(first >> 4)
}

/// Reads an IPv4 packet (RFC 791 §3.1) whose version field is already known to be 4.
#[inline]
pub(crate) fn parse_v4(packet: Capture<'_>, checksums: Checksums) -> Result<Datagram<'_>, ParseError> {
    let fixed = packet.peek::<20>(Malformed::TooShort)?;
    let [first, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *fixed;
    let header_len = usize::from(first & 0x0f) * 4;
    if header_len < fixed.len() {
        return Err(ParseError::Malformed(Malformed::HeaderLength));
    }
    let total_len = stated_or_giant(u16::from_be_bytes([l0, l1]), packet.wire_len());
    let packet = packet.shorten(total_len, Malformed::IpLength)?;
    let (header, payload) = packet.split(header_len, Malformed::HeaderLength)?;
    if checksums == Checksums::Verify && !Sum::new().bytes(header).is_valid() {
        return Err(ParseError::BadChecksum(ChecksumOf::Ipv4Header));
    }
    if protocol != TCP {
        return Err(ParseError::NotTcp);
    }
    if u16::from_be_bytes([f0, f1]) & MORE_FRAGMENTS_OR_OFFSET != 0 {
        return Err(ParseError::Fragment);
    }
    if let Some((_, options)) = header.split_first_chunk::<20>() {
        check_v4_options(options)?;
    }
    Ok(Datagram {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        payload,
    })
}

/// Reads an IPv6 packet (RFC 8200 §3) whose version field is already known to be 6.
#[inline]
pub(crate) fn parse_v6(packet: Capture<'_>) -> Result<Datagram<'_>, ParseError> {
    let (&[_, _, _, _, l0, l1, next_header, _], rest) = packet.take::<8>(Malformed::TooShort)?;
    let (source, rest) = rest.take::<16>(Malformed::TooShort)?;
    let (destination, rest) = rest.take::<16>(Malformed::TooShort)?;
    if is_mapped(source) || is_mapped(destination) {
        return Err(ParseError::Malformed(Malformed::MappedAddress));
    }
    let payload_len = stated_or_giant(u16::from_be_bytes([l0, l1]), rest.wire_len());
    let payload = rest.shorten(payload_len, Malformed::IpLength)?;
    Ok(Datagram {
        source: IpAddr::V6(Ipv6Addr::from(*source)),
        destination: IpAddr::V6(Ipv6Addr::from(*destination)),
        payload: extension::skip(next_header, payload)?,
    })
}

/// The length that a length field states.
///
/// A receive or send offload may join segments to a packet that 16 bits cannot measure. The kernel then writes 0 into the
/// field (BIG TCP) and only the frame knows its length. A zero in a packet that 16 bits can measure means what it says.
#[inline]
fn stated_or_giant(stated: u16, wire_len: usize) -> usize {
    if stated == 0 && wire_len > usize::from(u16::MAX) { wire_len } else { stated.into() }
}

/// Walks the options of an IPv4 header (RFC 791 §3.1): all are skipped, source routes are refused.
///
/// Here we do not obey RFC 1122 §3.2.1.8 (c) and RFC 9293 §3.9.2.1, which want the recorded route reversed for the answer:
/// the sender may have made it up. Linux refuses such packets too unless `accept_source_route` is set.
#[inline]
fn check_v4_options(mut options: &[u8]) -> Result<(), ParseError> {
    while let [kind, behind @ ..] = options {
        match *kind {
            IPV4_OPTION_END => break,
            IPV4_OPTION_NOP => options = behind,
            IPV4_OPTION_LSRR | IPV4_OPTION_SSRR => return Err(ParseError::SourceRoute),
            _ => options = behind_v4_option(options).ok_or(ParseError::Malformed(Malformed::IpOption))?,
        }
    }
    Ok(())
}

fn behind_v4_option(options: &[u8]) -> Option<&[u8]> {
    let len = usize::from(*options.get(1)?);
    if len < 2 { None } else { options.get(len..) }
}

/// Whether this is an IPv4-mapped address: [`Endpoint`](crate::Endpoint) never holds those, else one host would have two
/// names.
#[inline]
fn is_mapped(octets: &[u8; 16]) -> bool {
    u128::from_be_bytes(*octets) >> 32 == 0xffff
}

const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;

const IPV4_OPTION_END: u8 = 0;
const IPV4_OPTION_NOP: u8 = 1;
const IPV4_OPTION_LSRR: u8 = 131;
const IPV4_OPTION_SSRR: u8 = 137;
