use wire::{Checksums, EthernetHeader, Malformed, Packet, ParseError};

use crate::support::*;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const C_TAG: u16 = 0x8100;
const S_TAG: u16 = 0x88a8;

fn parse(frame: &[u8]) -> Result<(EthernetHeader, Packet<'_>), ParseError> {
    Packet::parse_ethernet(frame, frame.len(), Checksums::Verify)
}

fn syn_v4() -> Vec<u8> {
    ipv4(&[], syn(LINUX_SYN, b""))
}

#[test]
fn untagged_frames_of_both_families_parse() {
    let (header, packet) = (ethernet(&[], IPV4, &syn_v4()), ethernet(&[], IPV6, &ipv6(&[], syn(LINUX_SYN, b""))));
    let expected = EthernetHeader { destination: [2, 0, 0, 0, 0, 1], source: [2, 0, 0, 0, 0, 2], vlan: None };
    assert_eq!(parse(&header).map(|(header, packet)| (header, packet.tuple)), Ok((expected, tuple_v4())));
    assert_eq!(parse(&packet).map(|(header, packet)| (header, packet.tuple)), Ok((expected, tuple_v6())));
}

#[test]
fn outermost_of_at_most_two_tags_is_reported() {
    for (tags, vlan) in [
        (&[(C_TAG, 0x6005)][..], 0x6005),
        (&[(S_TAG, 7)], 7),
        (&[(S_TAG, 7), (C_TAG, 5)], 7),
        (&[(C_TAG, 0), (C_TAG, 5)], 0),
    ] {
        let frame = ethernet(tags, IPV4, &syn_v4());
        let (header, packet) = parse(&frame).unwrap();
        assert_eq!((header.vlan, packet.tuple), (Some(vlan), tuple_v4()), "{tags:?}");
    }
}

#[test]
fn third_tag_is_not_ip() {
    let frame = ethernet(&[(S_TAG, 1), (C_TAG, 2), (C_TAG, 3)], IPV4, &syn_v4());
    assert_eq!(parse(&frame), Err(ParseError::NotIp));
}

#[test]
fn other_ether_types_and_llc_are_not_ip() {
    for ether_type in [0x0806, 0x88cc, 0x8847, 60] {
        assert_eq!(parse(&ethernet(&[], ether_type, &syn_v4())), Err(ParseError::NotIp), "{ether_type:#06x}");
        let tagged = ethernet(&[(C_TAG, 1)], ether_type, &syn_v4());
        assert_eq!(parse(&tagged), Err(ParseError::NotIp), "{ether_type:#06x}");
    }
}

#[test]
fn version_that_contradicts_the_ether_type_is_malformed() {
    let swapped = [(IPV6, syn_v4()), (IPV4, ipv6(&[], syn(LINUX_SYN, b"")))];
    for (ether_type, packet) in swapped {
        assert_eq!(parse(&ethernet(&[], ether_type, &packet)), malformed(Malformed::Version));
    }
}

#[test]
fn padding_of_a_short_frame_is_no_data() {
    let mut frame = ethernet(&[], IPV4, &ipv4(&[], syn(&[], b"")));
    assert!(frame.len() < 60);
    frame.resize(60, 0xee);
    assert_eq!(parse(&frame).unwrap().1.segment.payload_len, 0);
}

#[test]
fn header_missing_on_the_wire_is_malformed_and_in_the_capture_truncated() {
    let frame = ethernet(&[(S_TAG, 1), (C_TAG, 2)], IPV4, &syn_v4());
    for len in 0..22 {
        assert_eq!(parse(&frame[..len]), malformed(Malformed::TooShort), "{len} bytes");
        let cut = Packet::parse_ethernet(&frame[..len], frame.len(), Checksums::Trust);
        assert_eq!(cut, Err(ParseError::Truncated), "{len} bytes");
    }
}
