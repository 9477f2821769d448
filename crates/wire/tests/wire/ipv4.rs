use wire::{ChecksumOf, Checksums, Flags, Malformed, Packet, ParseError, SeqNum};

use crate::support::*;

#[test]
fn plain_syn_gives_every_field() {
    let packet = ipv4(&[], syn(LINUX_SYN, b"early"));
    let Packet { tuple, segment } = parse(&packet).unwrap();
    assert_eq!(tuple, tuple_v4());
    assert_eq!((segment.seq, segment.ack), (SeqNum::new(0x1234_5678), SeqNum::new(0)));
    assert_eq!((segment.flags, segment.window), (Flags::SYN, 64240));
    assert_eq!((segment.payload, segment.payload_len), (&b"early"[..], 5));
}

#[test]
fn options_are_skipped() {
    for options in [
        &[148, 4, 0, 0][..],                     // router alert
        &[1, 1, 1, 0],                           // NOP, NOP, NOP, end
        &[7, 7, 4, 1, 2, 3, 4, 0],               // record route
        &[0, 131, 3, 4],                         // behind the end of the list nothing counts
        &[1, 68, 11, 5, 0, 1, 2, 3, 4, 5, 6, 7], // timestamp
        &[1; 40],
    ] {
        let packet = ipv4(options, syn(LINUX_SYN, b""));
        assert_eq!(parse(&packet).map(|packet| packet.tuple), Ok(tuple_v4()), "{options:?}");
    }
}

#[test]
fn loose_and_strict_source_routes_are_refused() {
    for kind in [131, 137] {
        for pointer in [4, 8] {
            let packet = ipv4(&[1, kind, 7, pointer, 192, 0, 2, 1], syn(LINUX_SYN, b""));
            assert_eq!(parse(&packet), Err(ParseError::SourceRoute), "kind {kind}, pointer {pointer}");
        }
    }
}

#[test]
fn option_length_that_cannot_be_is_malformed() {
    for options in [[148, 0, 0, 0], [148, 1, 0, 0], [148, 5, 0, 0], [148, 255, 0, 0], [1, 1, 1, 148]] {
        let packet = ipv4(&options, syn(LINUX_SYN, b""));
        assert_eq!(parse(&packet), malformed(Malformed::IpOption), "{options:?}");
    }
}

#[test]
fn header_length_below_five_words_is_malformed() {
    for ihl in 0..5 {
        let packet = ipv4_with(|packet| packet[0] = 0x40 | ihl);
        assert_eq!(parse(&packet), malformed(Malformed::HeaderLength), "IHL {ihl}");
    }
}

#[test]
fn header_length_beyond_total_length_is_malformed() {
    let packet = ipv4_with(|packet| {
        packet[0] = 0x46;
        packet[2..4].copy_from_slice(&20u16.to_be_bytes());
    });
    assert_eq!(parse(&packet), malformed(Malformed::HeaderLength));
}

#[test]
fn total_length_beyond_the_wire_is_malformed() {
    let packet = ipv4_with(|packet| {
        let one_more = packet.len() as u16 + 1;
        packet[2..4].copy_from_slice(&one_more.to_be_bytes());
    });
    assert_eq!(parse(&packet), malformed(Malformed::IpLength));
}

#[test]
fn total_length_below_the_header_is_malformed() {
    let packet = ipv4_with(|packet| packet[2..4].copy_from_slice(&19u16.to_be_bytes()));
    assert_eq!(parse(&packet), malformed(Malformed::HeaderLength));
}

#[test]
fn zero_total_length_of_a_small_packet_is_malformed() {
    let packet = ipv4_with(|packet| packet[2..4].fill(0));
    assert_eq!(parse(&packet), malformed(Malformed::HeaderLength));
}

#[test]
fn zero_total_length_of_a_giant_takes_the_wire_length() {
    let mut packet = ipv4(&[], syn(LINUX_SYN, b""));
    packet[2..4].fill(0);
    packet.resize(100_000, 7);
    let parsed = Packet::parse_ip(&packet, packet.len(), Checksums::Trust).unwrap();
    assert_eq!(parsed.segment.payload_len, 100_000 - 60);
    let cut = Packet::parse_ip(&packet[..128], packet.len(), Checksums::Trust).unwrap();
    assert_eq!((cut.segment.payload.len(), cut.segment.payload_len), (68, 100_000 - 60));
}

#[test]
fn joined_segments_longer_than_any_mtu_parse() {
    let packet = ipv4(&[], syn(LINUX_SYN, &[7; 60_000]));
    assert_eq!(parse(&packet).unwrap().segment.payload_len, 60_000);
}

#[test]
fn every_fragment_is_refused() {
    for field in [0x2000u16, 0x0001, 0x1fff, 0x3fff, 0x6000, 0x4001] {
        let packet = ipv4_with(|packet| packet[6..8].copy_from_slice(&field.to_be_bytes()));
        assert_eq!(parse(&packet), Err(ParseError::Fragment), "{field:#06x}");
    }
}

#[test]
fn dont_fragment_and_the_reserved_bit_make_no_fragment() {
    for field in [0x0000u16, 0x4000, 0x8000, 0xc000] {
        let packet = ipv4_with(|packet| packet[6..8].copy_from_slice(&field.to_be_bytes()));
        assert!(parse(&packet).is_ok(), "{field:#06x}");
    }
}

#[test]
fn other_protocols_are_not_tcp() {
    for protocol in [0, 1, 4, 17, 41, 58, 255] {
        let packet = ipv4_with(|packet| packet[9] = protocol);
        assert_eq!(parse(&packet), Err(ParseError::NotTcp), "protocol {protocol}");
    }
}

#[test]
fn other_versions_are_not_ip() {
    for version in (0..16).filter(|version| ![4, 6].contains(version)) {
        let packet = ipv4_with(|packet| packet[0] = version << 4 | 5);
        assert_eq!(parse(&packet), Err(ParseError::NotIp), "version {version}");
    }
}

#[test]
fn nothing_at_all_is_too_short() {
    assert_eq!(parse(&[]), malformed(Malformed::TooShort));
    assert_eq!(Packet::parse_ip(&[], 60, Checksums::Trust), Err(ParseError::Truncated));
}

#[test]
fn every_cut_of_a_packet_that_the_wire_cut_is_malformed() {
    let packet = ipv4(&[148, 4, 0, 0], syn(LINUX_SYN, b"data"));
    for len in 0..packet.len() {
        let expected = if len < 20 { Malformed::TooShort } else { Malformed::IpLength };
        assert_eq!(parse(&packet[..len]), malformed(expected), "{len} bytes");
    }
}

#[test]
fn ethernet_padding_is_no_data() {
    let mut packet = ipv4(&[], syn(&[], b""));
    packet.resize(46, 0xee);
    let segment = parse(&packet).unwrap().segment;
    assert_eq!((segment.payload, segment.payload_len), (&b""[..], 0));
}

#[test]
fn bad_header_checksum_is_found_before_the_header_is_believed() {
    let mut packet = ipv4(&[], syn(LINUX_SYN, b""));
    packet[9] = 17;
    assert_eq!(parse(&packet), Err(ParseError::BadChecksum(ChecksumOf::Ipv4Header)));
}
