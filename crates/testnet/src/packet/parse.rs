//! Reading frames, far enough to judge them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::build::pseudo_header;
use super::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Flags, Mac, PROTOCOL_TCP};
use crate::checksum;

/// The verdict on a TCP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// The sum is right.
    Right,
    /// The sum is wrong.
    Wrong,
    /// The sender's kernel left the sum to the device, and a veth has none: right by definition.
    Unfinished,
}

/// A TCP segment that came in.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)] // The headers' own names.
pub struct Frame {
    pub src_mac: Mac,
    pub dst_mac: Mac,
    /// Tag control information, wherever the kernel put the tag.
    pub vlan: Option<u16>,
    pub ttl: u8,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: Flags,
    /// As it stands in the header: not scaled.
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    /// The TCP checksum's; a wrong IPv4 header checksum counts as wrong too.
    pub sum: Sum,
    /// Bytes of the frame without its link-layer header.
    pub ip_len: usize,
}

impl Frame {
    /// Reads an Ethernet frame; `None` when it is not TCP, a fragment, or cut short.
    ///
    /// `vlan` is the tag the kernel took out of the frame, `checksum_unfinished` what it says of the sum.
    pub fn parse(frame: &[u8], vlan: Option<u16>, checksum_unfinished: bool) -> Option<Frame> {
        let mac = |at: usize| Some(Mac(frame.get(at..at + 6)?.try_into().ok()?));
        let (mut vlan, mut at) = (vlan, 12);
        if be16(frame, at)? == ETHERTYPE_VLAN {
            vlan = Some(be16(frame, at + 2)?);
            at += 4;
        }
        let packet = frame.get(at + 2..)?;
        matches!(be16(frame, at)?, ETHERTYPE_IPV4 | ETHERTYPE_IPV6).then_some(())?;
        let segment = Frame::parse_ip(packet, checksum_unfinished)?;
        Some(Frame { src_mac: mac(6)?, dst_mac: mac(0)?, vlan, ..segment })
    }

    /// Reads an IP packet, as [`parse`](Frame::parse) reads a frame. The Ethernet addresses of the result are zero.
    pub fn parse_packet(packet: &[u8]) -> Option<Frame> {
        Frame::parse_ip(packet, false)
    }

    fn parse_ip(packet: &[u8], checksum_unfinished: bool) -> Option<Frame> {
        let ip = match packet.first()? >> 4 {
            4 => Ip::v4(packet)?,
            6 => Ip::v6(packet)?,
            _ => return None,
        };
        let tcp = ip.body;
        let header_len = usize::from(tcp.get(12)? >> 4) * 4;
        let right = checksum::finish(checksum::add(pseudo_header(ip.src, ip.dst, tcp.len()), tcp)) == 0;
        let sum = match (ip.header_sum_is_right, checksum_unfinished, right) {
            (true, true, _) => Sum::Unfinished,
            (true, false, true) => Sum::Right,
            _ => Sum::Wrong,
        };
        Some(Frame {
            src_mac: Mac([0; 6]),
            dst_mac: Mac([0; 6]),
            vlan: None,
            ttl: ip.ttl,
            src: SocketAddr::new(ip.src, be16(tcp, 0)?),
            dst: SocketAddr::new(ip.dst, be16(tcp, 2)?),
            seq: be32(tcp, 4)?,
            ack: be32(tcp, 8)?,
            flags: Flags(*tcp.get(13)?),
            window: be16(tcp, 14)?,
            options: tcp.get(20..header_len)?.to_vec(),
            payload: tcp.get(header_len..)?.to_vec(),
            sum,
            ip_len: ip.len,
        })
    }

    /// The body of the first option of this kind.
    pub fn option(&self, kind: u8) -> Option<&[u8]> {
        let mut rest = &self.options[..];
        loop {
            match *rest {
                [1, ref after @ ..] => rest = after,
                [found, len, ..] if len >= 2 && found != 0 => {
                    let body = rest.get(2..usize::from(len))?;
                    if found == kind {
                        return Some(body);
                    }
                    rest = &rest[usize::from(len)..];
                }
                _ => return None,
            }
        }
    }

    /// The maximum segment size option, in bytes.
    pub fn mss(&self) -> Option<u16> {
        be16(self.option(2)?, 0)
    }

    /// The window scale option.
    pub fn wscale(&self) -> Option<u8> {
        self.option(3)?.first().copied()
    }

    /// Whether SACK-permitted is there.
    pub fn sack_permitted(&self) -> bool {
        self.option(4).is_some()
    }

    /// The timestamps option: (TSval, TSecr).
    pub fn timestamps(&self) -> Option<(u32, u32)> {
        let body = self.option(8)?;
        Some((be32(body, 0)?, be32(body, 4)?))
    }
}

impl fmt::Debug for Frame {
    /// One line, as tcpdump would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frame { src, dst, flags, seq, ack, window, .. } = self;
        write!(f, "{src} > {dst} {flags:?} seq {seq} ack {ack} win {window} len {}", self.payload.len())?;
        write!(f, " options {:02x?} sum {:?} vlan {:?}", self.options, self.sum, self.vlan)
    }
}

struct Ip<'a> {
    src: IpAddr,
    dst: IpAddr,
    ttl: u8,
    header_sum_is_right: bool,
    len: usize,
    body: &'a [u8],
}

impl<'a> Ip<'a> {
    fn v4(packet: &'a [u8]) -> Option<Ip<'a>> {
        let header_len = usize::from(packet.first()? & 15) * 4;
        let len = usize::from(be16(packet, 2)?);
        let is_fragment = be16(packet, 6)? & 0x3fff != 0;
        if *packet.get(9)? != PROTOCOL_TCP || is_fragment {
            return None;
        }
        let address = |at: usize| Some(Ipv4Addr::from(be32(packet, at)?).into());
        Some(Ip {
            src: address(12)?,
            dst: address(16)?,
            ttl: packet[8],
            header_sum_is_right: checksum::finish(checksum::add(0, packet.get(..header_len)?)) == 0,
            len,
            body: packet.get(header_len..len)?,
        })
    }

    /// Walks hop-by-hop (0), routing (43) and destination options (60).
    fn v6(packet: &'a [u8]) -> Option<Ip<'a>> {
        let len = 40 + usize::from(be16(packet, 4)?);
        let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?).into());
        let (mut next, mut at) = (packet[6], 40);
        while matches!(next, 0 | 43 | 60) {
            next = *packet.get(at)?;
            at += (usize::from(*packet.get(at + 1)?) + 1) * 8;
        }
        let body = packet.get(at..len)?;
        (next == PROTOCOL_TCP).then_some(())?;
        Some(Ip { src: address(8)?, dst: address(24)?, ttl: packet[7], header_sum_is_right: true, len, body })
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
