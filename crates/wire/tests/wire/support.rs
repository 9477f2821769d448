//! Packets built byte by byte, by code that shares nothing with the crate.

use std::net::Ipv6Addr;

use proptest::prelude::*;
use wire::{Checksums, Endpoint, FourTuple, Malformed, Packet, ParseError, ReplyOptions, TimestampOption};

pub const SERVER_PORT: u16 = 443;
pub const CLIENT_PORT: u16 = 40000;
const SERVER_V4: [u8; 4] = [198, 18, 0, 1];
const CLIENT_V4: [u8; 4] = [198, 18, 0, 2];
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

pub const TCP: u8 = 6;
pub const SYN: u8 = 2;
pub const LINUX_SYN: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

/// The server's view of a connection from the client.
pub fn tuple_v4() -> FourTuple {
    FourTuple {
        local: Endpoint { addr: SERVER_V4.into(), port: SERVER_PORT },
        peer: Endpoint { addr: CLIENT_V4.into(), port: CLIENT_PORT },
    }
}

pub fn tuple_v6() -> FourTuple {
    FourTuple {
        local: Endpoint { addr: SERVER_V6.into(), port: SERVER_PORT },
        peer: Endpoint { addr: CLIENT_V6.into(), port: CLIENT_PORT },
    }
}

/// The same connection seen by the client.
pub fn reversed(tuple: FourTuple) -> FourTuple {
    FourTuple { local: tuple.peer, peer: tuple.local }
}

/// A SYN of the client, checksum 0; `options` must be whole words.
pub fn syn(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(CLIENT_PORT.to_be_bytes());
    segment.extend(SERVER_PORT.to_be_bytes());
    segment.extend(0x1234_5678u32.to_be_bytes());
    segment.extend(0u32.to_be_bytes());
    segment.push(((5 + options.len() / 4) << 4) as u8);
    segment.push(SYN);
    segment.extend(64240u16.to_be_bytes());
    segment.extend([0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(payload);
    segment
}

/// An IPv4 packet with IP options (whole words) from client to server; both checksums are filled in.
pub fn ipv4(options: &[u8], mut segment: Vec<u8>) -> Vec<u8> {
    let pseudo = [&CLIENT_V4[..], &SERVER_V4, &[0, TCP], &(segment.len() as u16).to_be_bytes()].concat();
    fill_tcp_checksum(&pseudo, &mut segment);
    let header_len = 20 + options.len();
    let mut packet = vec![0x40 | (header_len / 4) as u8, 0];
    packet.extend(((header_len + segment.len()) as u16).to_be_bytes());
    packet.extend([0xab, 0xcd, 0x40, 0, 64, TCP, 0, 0]);
    packet.extend(CLIENT_V4);
    packet.extend(SERVER_V4);
    packet.extend(options);
    packet.extend(segment);
    refresh_v4_checksum(&mut packet);
    packet
}

/// Makes the IPv4 header checksum right again after a field was changed.
pub fn refresh_v4_checksum(packet: &mut [u8]) {
    let header_len = (usize::from(packet[0] & 0x0f) * 4).min(packet.len());
    packet[10..12].fill(0);
    let checksum = naive_checksum(&packet[..header_len]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// An IPv4 packet whose header was changed and is consistent again.
pub fn ipv4_with(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = ipv4(&[], syn(LINUX_SYN, b""));
    change(&mut packet);
    refresh_v4_checksum(&mut packet);
    packet
}

/// An IPv6 packet from client to server with these extension headers: each its number and its bytes, of which the first is
/// replaced by the number of what follows.
pub fn ipv6(extensions: &[(u8, &[u8])], segment: Vec<u8>) -> Vec<u8> {
    ipv6_ending_in(TCP, extensions, segment)
}

/// As [`ipv6`], with another protocol number at the end of the chain.
pub fn ipv6_ending_in(last: u8, extensions: &[(u8, &[u8])], mut segment: Vec<u8>) -> Vec<u8> {
    let (source, destination) = (CLIENT_V6.octets(), SERVER_V6.octets());
    let len = (segment.len() as u32).to_be_bytes();
    fill_tcp_checksum(&[&source[..], &destination, &len, &[0, 0, 0, TCP]].concat(), &mut segment);
    let mut payload = Vec::new();
    for (index, (_, bytes)) in extensions.iter().enumerate() {
        payload.push(extensions.get(index + 1).map_or(last, |(kind, _)| *kind));
        payload.extend(&bytes[1..]);
    }
    payload.extend(segment);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.push(extensions.first().map_or(last, |(kind, _)| *kind));
    packet.push(64);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

/// An Ethernet frame with these VLAN tags (TPID, TCI).
pub fn ethernet(tags: &[(u16, u16)], ether_type: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for (tpid, tci) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(packet);
    frame
}

/// Parses a packet that was captured whole and checks its sums.
pub fn parse(packet: &[u8]) -> Result<Packet<'_>, ParseError> {
    Packet::parse_ip(packet, packet.len(), Checksums::Verify)
}

pub fn malformed<T>(what: Malformed) -> Result<T, ParseError> {
    Err(ParseError::Malformed(what))
}

fn fill_tcp_checksum(pseudo: &[u8], segment: &mut [u8]) {
    let checksum = naive_checksum(&[pseudo, segment].concat());
    if let Some(field) = segment.get_mut(16..18) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

/// RFC 1071 word by word.
pub fn naive_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

pub fn any_tuple() -> impl Strategy<Value = FourTuple> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into()));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into()));
    (prop_oneof![v4, v6], any::<(u16, u16)>()).prop_map(|((local, peer), (local_port, peer_port))| FourTuple {
        local: Endpoint { addr: local, port: local_port },
        peer: Endpoint { addr: peer, port: peer_port },
    })
}

pub fn any_reply_options() -> impl Strategy<Value = ReplyOptions> {
    (any::<Option<u16>>(), prop::option::of(0u8..=14), any::<bool>(), any::<Option<(u32, u32)>>()).prop_map(
        |(mss, wscale, sack_permitted, stamps)| ReplyOptions {
            mss,
            wscale,
            sack_permitted,
            timestamps: stamps.map(|(tsval, tsecr)| TimestampOption { tsval, tsecr }),
        },
    )
}
