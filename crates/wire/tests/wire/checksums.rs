use proptest::prelude::*;
use wire::{ChecksumOf, Checksums, EthernetHeader, Packet, ParseError};

use crate::support::*;

#[test]
fn verify_accepts_right_sums_and_refuses_wrong_ones() {
    for mut packet in [ipv4(&[], syn(LINUX_SYN, b"odd")), ipv6(&[], syn(LINUX_SYN, b"odd"))] {
        assert!(parse(&packet).is_ok());
        *packet.last_mut().unwrap() ^= 0x10;
        assert_eq!(parse(&packet), Err(ParseError::BadChecksum(ChecksumOf::Tcp)));
    }
}

#[test]
fn verify_covers_the_options_of_the_ipv4_header() {
    let mut packet = ipv4(&[148, 4, 0, 0], syn(LINUX_SYN, b""));
    packet[23] = 1;
    assert_eq!(parse(&packet), Err(ParseError::BadChecksum(ChecksumOf::Ipv4Header)));
}

#[test]
fn trust_accepts_unfinished_sums() {
    for mut packet in [ipv4(&[], syn(LINUX_SYN, b"odd")), ipv6(&[], syn(LINUX_SYN, b"odd"))] {
        let tcp = packet.len() - 20 - LINUX_SYN.len() - 3;
        packet[tcp + 16] ^= 0xff;
        if packet[0] >> 4 == 4 {
            packet[10] ^= 0xff;
        }
        assert!(parse(&packet).is_err());
        assert!(Packet::parse_ip(&packet, packet.len(), Checksums::Trust).is_ok());
    }
}

#[test]
fn verify_cannot_judge_a_cut_capture() {
    for packet in [ipv4(&[], syn(LINUX_SYN, b"data")), ipv6(&[], syn(LINUX_SYN, b"data"))] {
        let cut = &packet[..packet.len() - 1];
        assert_eq!(Packet::parse_ip(cut, packet.len(), Checksums::Verify), Err(ParseError::Truncated));
        assert!(Packet::parse_ip(cut, packet.len(), Checksums::Trust).is_ok());
    }
}

#[test]
fn verify_needs_no_padding() {
    let packet = ipv4(&[], syn(&[], b""));
    assert!(Packet::parse_ip(&packet, 46, Checksums::Verify).is_ok());
}

#[test]
fn cut_capture_with_a_bad_ipv4_header_is_known_to_be_bad() {
    let mut packet = ipv4(&[], syn(LINUX_SYN, b"data"));
    packet[8] ^= 1;
    let cut = Packet::parse_ip(&packet[..60], packet.len(), Checksums::Verify);
    assert_eq!(cut, Err(ParseError::BadChecksum(ChecksumOf::Ipv4Header)));
}

/// Every packet that differs in one bit, with the number of that bit.
fn flips(packet: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..packet.len() * 8).map(|bit| {
        let mut flipped = packet.to_vec();
        flipped[bit / 8] ^= 0x80 >> (bit % 8);
        (bit, flipped)
    })
}

proptest! {
    /// Two sums cover each bit of an IPv4 packet. All but the four of IHL leave alone what is summed, and one flipped bit
    /// always changes a one's complement sum: those are certain. IHL moves the end of the header, so that both sums would
    /// have to fit by chance, 2^-32.
    #[test]
    fn no_flipped_bit_of_an_ipv4_packet_is_accepted(
        options in any_reply_options(),
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let block = crate::reply::expected_block(&options);
        let packet = ipv4(&[], syn(&block, &payload));
        prop_assert!(parse(&packet).is_ok());
        for (bit, flipped) in flips(&packet) {
            prop_assert!(parse(&flipped).is_err(), "bit {} of {:02x?}", bit, packet);
        }
    }

    /// Of an IPv6 header the sum covers addresses, payload length (less the extension headers) and the number of TCP.
    /// Traffic class, flow label and hop limit are not covered and change nothing here. A flipped bit in the payload length
    /// can also take words out of the sum: such a packet is accepted, shortened, if those words sum to what the bit is
    /// worth, about one in 2^16. All other flips are certain to be found.
    #[test]
    fn no_flipped_bit_of_an_ipv6_packet_is_accepted_unless_it_is_not_summed(
        options in any_reply_options(),
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        const UNSUMMED: [core::ops::Range<usize>; 2] = [4..32, 56..64];
        const PAYLOAD_LENGTH: core::ops::Range<usize> = 32..48;
        let block = crate::reply::expected_block(&options);
        let packet = ipv6(&[], syn(&block, &payload));
        let original = parse(&packet);
        prop_assert!(original.is_ok());
        for (bit, flipped) in flips(&packet) {
            let parsed = parse(&flipped);
            if UNSUMMED.iter().any(|range| range.contains(&bit)) {
                prop_assert_eq!(parsed, original, "bit {}", bit);
            } else if PAYLOAD_LENGTH.contains(&bit) {
                let shorter = parsed.is_ok_and(|packet| packet.segment.payload_len < payload.len());
                prop_assert!(parsed.is_err() || shorter && words_left_out_fit(&packet, &flipped), "bit {}", bit);
            } else {
                prop_assert!(parsed.is_err(), "bit {} of {:02x?}", bit, packet);
            }
        }
    }

    #[test]
    fn no_flipped_bit_of_a_frame_names_another_connection(bit in 0usize..14 * 8) {
        let mut frame = ethernet(&[], 0x0800, &ipv4(&[], syn(LINUX_SYN, b"")));
        frame[bit / 8] ^= 0x80 >> (bit % 8);
        let parsed: Result<(EthernetHeader, Packet<'_>), _> =
            Packet::parse_ethernet(&frame, frame.len(), Checksums::Verify);
        // The MAC addresses are the link's to protect; the EtherType must be right.
        let expected = if bit < 12 * 8 { Ok(tuple_v4()) } else { Err(ParseError::NotIp) };
        prop_assert_eq!(parsed.map(|(_, packet)| packet.tuple), expected);
    }
}

/// Whether the bytes that a smaller payload length leaves out sum to the difference of the lengths, negated.
fn words_left_out_fit(packet: &[u8], flipped: &[u8]) -> bool {
    let len = |packet: &[u8]| usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let (whole, shorter) = (len(packet), len(flipped));
    let left_out = &packet[40 + shorter..40 + whole];
    // Lengths differ by a power of two; a difference of one byte leaves the last word half full, in its place.
    let aligned = [&vec![0; shorter % 2][..], left_out].concat();
    let sum = u32::from(!naive_checksum(&aligned)) + (whole - shorter) as u32;
    sum.is_multiple_of(0xffff)
}

#[test]
fn ipv6_payload_length_is_only_as_safe_as_the_sum() {
    // The exception above, made on purpose: two bytes that sum to minus two can be cut off unnoticed.
    let packet = ipv6(&[], syn(&[], &[1, 2, 0xff, 0xfd]));
    let mut shorter = packet.clone();
    shorter[5] -= 2;
    assert_eq!(parse(&packet).unwrap().segment.payload_len, 4);
    assert_eq!(parse(&shorter).unwrap().segment.payload_len, 2);
    assert!(words_left_out_fit(&packet, &shorter));
}
