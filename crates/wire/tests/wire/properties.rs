//! What holds for any bytes at all.

use proptest::prelude::*;
use wire::{Checksums, Packet, ParseError};

use crate::support::*;

/// Valid packets with every kind of header, whose bytes are then spoilt.
fn spoilt_packet() -> impl Strategy<Value = Vec<u8>> {
    let routing_done: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0];
    let padded: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let seeds = vec![
        ipv4(&[], syn(LINUX_SYN, b"data")),
        ipv4(&[1, 148, 4, 0, 0, 7, 3, 4], syn(LINUX_SYN, b"")),
        ipv6(&[], syn(LINUX_SYN, b"data")),
        ipv6(&[(0, padded), (43, routing_done), (44, routing_done), (60, padded)], syn(LINUX_SYN, b"data")),
    ];
    let spoil = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (prop::sample::select(seeds), spoil).prop_map(|(mut packet, spoil)| {
        for (at, byte) in spoil {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        packet
    })
}

fn any_checksums() -> impl Strategy<Value = Checksums> {
    prop_oneof![Just(Checksums::Verify), Just(Checksums::Trust)]
}

/// Uses all that a parsed packet offers; what it offers must lie within the packet.
fn inspect(parsed: Result<Packet<'_>, ParseError>, captured_len: usize, wire_len: usize) -> Result<(), TestCaseError> {
    match parsed {
        Ok(Packet { tuple, segment }) => {
            prop_assert_eq!(tuple.local.addr.is_ipv4(), tuple.peer.addr.is_ipv4());
            prop_assert!(segment.payload.len() <= segment.payload_len && segment.payload_len + 40 <= wire_len);
            prop_assert!(segment.options().wscale.is_none_or(|shift| shift <= 14));
            prop_assert!(segment.seg_len() >= segment.payload_len as u32);
        }
        Err(ParseError::Truncated) => prop_assert!(captured_len < wire_len, "nothing was cut"),
        Err(_) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        wire_len in 0usize..300,
        checksums in any_checksums(),
    ) {
        inspect(Packet::parse_ip(&bytes, wire_len, checksums), bytes.len(), wire_len)?;
        let parsed = Packet::parse_ethernet(&bytes, wire_len, checksums).map(|(_, packet)| packet);
        inspect(parsed, bytes.len(), wire_len)?;
    }

    #[test]
    fn spoilt_packets_never_panic(
        packet in spoilt_packet(),
        cut in any::<prop::sample::Index>(),
        extra_len in 0usize..20,
        checksums in any_checksums(),
    ) {
        let wire_len = packet.len() + extra_len;
        let captured = &packet[..cut.index(packet.len() + 1)];
        inspect(Packet::parse_ip(captured, wire_len, checksums), captured.len(), wire_len)?;
        for ether_type in [0x0800, 0x86dd] {
            let frame = ethernet(&[(0x8100, 1)], ether_type, captured);
            let parsed = Packet::parse_ethernet(&frame, wire_len + 18, checksums).map(|(_, packet)| packet);
            inspect(parsed, frame.len(), wire_len + 18)?;
        }
    }

    #[test]
    fn absurd_wire_lengths_never_panic(packet in spoilt_packet(), wire_len: usize, checksums in any_checksums()) {
        let zeroed = { let mut packet = packet.clone(); packet[2..6].fill(0); packet };
        for packet in [packet, zeroed] {
            for wire_len in [wire_len, usize::MAX] {
                if let Ok(packet) = Packet::parse_ip(&packet, wire_len, checksums) {
                    prop_assert!(packet.segment.payload_len <= wire_len);
                    packet.segment.seg_len();
                }
            }
        }
    }

    /// A cut capture is either too short to judge or tells the same, with less of the data.
    #[test]
    fn cut_capture_tells_the_same_or_nothing(packet in spoilt_packet()) {
        let whole = Packet::parse_ip(&packet, packet.len(), Checksums::Trust);
        for len in 0..packet.len() {
            let mut cut = Packet::parse_ip(&packet[..len], packet.len(), Checksums::Trust);
            if let (Ok(cut), Ok(whole)) = (&mut cut, &whole) {
                prop_assert!(whole.segment.payload.starts_with(cut.segment.payload));
                cut.segment.payload = whole.segment.payload;
            }
            prop_assert!(cut == whole || cut == Err(ParseError::Truncated), "{} bytes: {:?}", len, cut);
        }
    }

    #[test]
    fn verify_accepts_nothing_that_trust_refuses(packet in spoilt_packet()) {
        if let Ok(verified) = Packet::parse_ip(&packet, packet.len(), Checksums::Verify) {
            prop_assert_eq!(Packet::parse_ip(&packet, packet.len(), Checksums::Trust), Ok(verified));
        }
    }

    #[test]
    fn ethernet_and_bare_ip_agree(packet in spoilt_packet()) {
        let ether_type = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        prop_assume!([4, 6].contains(&(packet[0] >> 4)));
        let frame = ethernet(&[], ether_type, &packet);
        let framed = Packet::parse_ethernet(&frame, frame.len(), Checksums::Verify).map(|(_, packet)| packet);
        prop_assert_eq!(framed, parse(&packet));
    }
}
