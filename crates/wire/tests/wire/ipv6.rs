use wire::{Checksums, Flags, Malformed, Packet, ParseError, SeqNum};

use crate::support::*;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Next header, length 0, PadN over 6 bytes.
const PADDED: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];

fn with(extensions: &[(u8, &[u8])]) -> Vec<u8> {
    ipv6(extensions, syn(LINUX_SYN, b""))
}

#[test]
fn plain_syn_gives_every_field() {
    let packet = ipv6(&[], syn(LINUX_SYN, b"early"));
    let Packet { tuple, segment } = parse(&packet).unwrap();
    assert_eq!(tuple, tuple_v6());
    assert_eq!((segment.seq, segment.ack), (SeqNum::new(0x1234_5678), SeqNum::new(0)));
    assert_eq!((segment.flags, segment.window), (Flags::SYN, 64240));
    assert_eq!((segment.payload, segment.payload_len), (&b"early"[..], 5));
}

#[test]
fn headers_in_any_order_are_walked() {
    let routing_done: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0];
    let atomic: &[u8] = &[0, 0, 0, 0, 1, 2, 3, 4];
    let long: &[u8] = &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for extensions in [
        &[(HOP_BY_HOP, PADDED)][..],
        &[(DESTINATION, PADDED)],
        &[(ROUTING, routing_done)],
        &[(FRAGMENT, atomic)],
        &[
            (HOP_BY_HOP, PADDED),
            (DESTINATION, long),
            (ROUTING, routing_done),
            (FRAGMENT, atomic),
            (DESTINATION, PADDED),
        ],
        &[(FRAGMENT, atomic), (DESTINATION, PADDED), (ROUTING, routing_done), (DESTINATION, long)],
    ] {
        assert_eq!(parse(&with(extensions)).map(|packet| packet.tuple), Ok(tuple_v6()), "{extensions:?}");
    }
}

#[test]
fn eight_headers_are_walked_and_nine_are_not() {
    assert!(parse(&with(&[(DESTINATION, PADDED); 8])).is_ok());
    assert_eq!(parse(&with(&[(DESTINATION, PADDED); 9])), Err(ParseError::ExtensionHeader));
    let mut chain = [(DESTINATION, PADDED); 9];
    chain[0].0 = HOP_BY_HOP;
    assert!(parse(&with(&chain[..8])).is_ok());
    assert_eq!(parse(&with(&chain)), Err(ParseError::ExtensionHeader));
}

#[test]
fn hop_by_hop_anywhere_but_first_is_refused() {
    let packet = with(&[(DESTINATION, PADDED), (HOP_BY_HOP, PADDED)]);
    assert_eq!(parse(&packet), Err(ParseError::ExtensionHeader));
    let packet = with(&[(HOP_BY_HOP, PADDED), (HOP_BY_HOP, PADDED)]);
    assert_eq!(parse(&packet), Err(ParseError::ExtensionHeader));
}

#[test]
fn esp_ah_and_unknown_headers_are_not_walked() {
    for kind in [50, 51, 135, 139, 140, 253, 254] {
        assert_eq!(parse(&with(&[(kind, PADDED)])), Err(ParseError::ExtensionHeader), "header {kind}");
        let behind = with(&[(DESTINATION, PADDED), (kind, PADDED)]);
        assert_eq!(parse(&behind), Err(ParseError::ExtensionHeader), "header {kind}");
    }
}

#[test]
fn other_protocols_are_not_tcp() {
    for protocol in [4, 17, 41, 58, 59, 132] {
        let packet = ipv6_ending_in(protocol, &[], syn(LINUX_SYN, b""));
        assert_eq!(parse(&packet), Err(ParseError::NotTcp), "protocol {protocol}");
        let packet = ipv6_ending_in(protocol, &[(HOP_BY_HOP, PADDED)], syn(LINUX_SYN, b""));
        assert_eq!(parse(&packet), Err(ParseError::NotTcp), "protocol {protocol}");
    }
}

#[test]
fn routing_header_with_segments_left_is_a_source_route() {
    for kind in [0, 2, 3, 4, 200] {
        let mut routing = [0; 24];
        (routing[1], routing[2], routing[3]) = (2, kind, 1);
        assert_eq!(parse(&with(&[(ROUTING, &routing)])), Err(ParseError::SourceRoute), "type {kind}");
        routing[3] = 0;
        assert!(parse(&with(&[(ROUTING, &routing)])).is_ok(), "type {kind} used up");
    }
}

#[test]
fn every_real_fragment_is_refused() {
    // The first fragment (offset 0, M = 1), one in the middle, the last.
    for field in [0x0001u16, 0x0009, 0x0008, 0xfff8, 0xfff9] {
        let [high, low] = field.to_be_bytes();
        let header = [0, 0, high, low, 1, 2, 3, 4];
        assert_eq!(parse(&with(&[(FRAGMENT, &header)])), Err(ParseError::Fragment), "{field:#06x}");
    }
}

#[test]
fn atomic_fragment_is_whole() {
    // RFC 6946: offset 0, M = 0; the reserved bits do not count.
    for low in [0, 2, 4, 6] {
        let header = [0, 0xff, 0, low, 1, 2, 3, 4];
        assert!(parse(&with(&[(FRAGMENT, &header)])).is_ok(), "reserved bits {low}");
    }
}

#[test]
fn option_is_skipped_or_refused_as_its_two_high_bits_say() {
    for kind in 2..=255u8 {
        let header = [0, 0, kind, 4, 0, 0, 0, 0];
        let expected = if kind < 0x40 { Ok(tuple_v6()) } else { Err(ParseError::ExtensionHeader) };
        for extension in [HOP_BY_HOP, DESTINATION] {
            let packet = with(&[(extension, &header)]);
            assert_eq!(parse(&packet).map(|packet| packet.tuple), expected, "option {kind} in header {extension}");
        }
    }
}

#[test]
fn single_bytes_of_padding_are_skipped() {
    assert!(parse(&with(&[(DESTINATION, &[0; 8])])).is_ok());
    let mut mixed = [0; 16];
    (mixed[1], mixed[3], mixed[4]) = (1, 5, 2);
    assert!(parse(&with(&[(DESTINATION, &mixed)])).is_ok());
}

#[test]
fn more_than_sixteen_options_are_refused() {
    // 22 bytes of options: Pad1 as often as `pad1_count` says, then one PadN to the end.
    let header = |pad1_count: usize| {
        let mut header = [0; 24];
        header[1] = 2;
        header[2 + pad1_count] = 1;
        header[3 + pad1_count] = 20 - pad1_count as u8;
        header
    };
    assert!(parse(&with(&[(DESTINATION, &header(15))])).is_ok());
    assert_eq!(parse(&with(&[(DESTINATION, &header(16))])), Err(ParseError::ExtensionHeader));
}

#[test]
fn option_beyond_its_header_is_malformed() {
    for options in [[1, 5, 0, 0, 0, 0], [5, 255, 0, 0, 0, 0], [1, 3, 0, 0, 0, 1]] {
        let header = [&[0, 0], &options[..]].concat();
        let packet = with(&[(DESTINATION, &header)]);
        assert_eq!(parse(&packet), malformed(Malformed::ExtensionLength), "{options:?}");
    }
}

#[test]
fn extension_header_beyond_the_packet_is_malformed() {
    for kind in [HOP_BY_HOP, DESTINATION, ROUTING] {
        let packet = with(&[(kind, &[0, 255, 1, 4, 0, 0, 0, 0])]);
        assert_eq!(parse(&packet), malformed(Malformed::ExtensionLength), "header {kind}");
    }
    for kind in [HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT] {
        let packet = ipv6_ending_in(kind, &[], vec![6]);
        assert_eq!(parse(&packet), malformed(Malformed::ExtensionLength), "header {kind}");
    }
}

#[test]
fn extension_header_beyond_the_capture_is_truncated() {
    let packet = with(&[(HOP_BY_HOP, PADDED), (FRAGMENT, &[0; 8])]);
    for len in 40..76 {
        let parsed = Packet::parse_ip(&packet[..len], packet.len(), Checksums::Trust);
        assert_eq!(parsed, Err(ParseError::Truncated), "{len} bytes");
    }
}

#[test]
fn payload_length_beyond_the_wire_is_malformed() {
    let mut packet = with(&[]);
    packet[5] += 1;
    assert_eq!(parse(&packet), malformed(Malformed::IpLength));
}

#[test]
fn payload_length_below_a_tcp_header_is_malformed() {
    for len in [0, 1, 19] {
        let mut packet = with(&[]);
        packet[5] = len;
        assert_eq!(parse(&packet), malformed(Malformed::TcpLength), "{len} bytes");
    }
}

#[test]
fn padding_is_no_data() {
    let mut packet = with(&[]);
    packet.extend([0xee; 9]);
    assert_eq!(parse(&packet).unwrap().segment.payload_len, 0);
}

#[test]
fn zero_payload_length_of_a_giant_takes_the_wire_length() {
    let mut packet = with(&[]);
    packet[4..6].fill(0);
    packet.resize(100_000, 7);
    let parsed = Packet::parse_ip(&packet, packet.len(), Checksums::Trust).unwrap();
    assert_eq!(parsed.segment.payload_len, 100_000 - 80);
}

/// A packet of 100,000 bytes with this jumbo payload length in this header.
fn jumbogram(kind: u8, stated: u32) -> Vec<u8> {
    let [l0, l1, l2, l3] = stated.to_be_bytes();
    let mut packet = with(&[(kind, &[0, 0, 0xc2, 4, l0, l1, l2, l3])]);
    packet[4..6].fill(0);
    packet.resize(100_000, 7);
    packet
}

#[test]
fn jumbogram_is_accepted_when_it_states_the_wire_length() {
    let parse = |packet: &[u8]| {
        Packet::parse_ip(packet, packet.len(), Checksums::Trust).map(|packet| packet.segment.payload_len)
    };
    assert_eq!(parse(&jumbogram(HOP_BY_HOP, 100_000 - 40)), Ok(100_000 - 88));
    assert_eq!(parse(&jumbogram(HOP_BY_HOP, 100_000)), Err(ParseError::ExtensionHeader));
    assert_eq!(parse(&jumbogram(DESTINATION, 100_000 - 40)), Err(ParseError::ExtensionHeader));
}

#[test]
fn jumbo_option_of_a_small_packet_is_refused() {
    // RFC 2675 §3: a jumbo payload length must be beyond what the IPv6 header can say.
    let len = (8 + 20 + LINUX_SYN.len()) as u8;
    let packet = with(&[(HOP_BY_HOP, &[0, 0, 0xc2, 4, 0, 0, 0, len])]);
    assert_eq!(parse(&packet), Err(ParseError::ExtensionHeader));
}

#[test]
fn mapped_addresses_are_malformed() {
    for at in [8, 24] {
        let mut packet = with(&[]);
        packet[at..at + 16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(parse(&packet), malformed(Malformed::MappedAddress));
    }
}

#[test]
fn traffic_class_and_flow_label_say_nothing_to_us() {
    let mut packet = with(&[]);
    packet[..4].copy_from_slice(&[0x6f, 0xff, 0xff, 0xff]);
    assert_eq!(parse(&packet).map(|packet| packet.tuple), Ok(tuple_v6()));
}

#[test]
fn header_missing_on_the_wire_is_malformed_and_in_the_capture_truncated() {
    let packet = with(&[]);
    for len in 1..40 {
        assert_eq!(parse(&packet[..len]), malformed(Malformed::TooShort), "{len} bytes");
        let cut = Packet::parse_ip(&packet[..len], packet.len(), Checksums::Trust);
        assert_eq!(cut, Err(ParseError::Truncated), "{len} bytes");
    }
}
