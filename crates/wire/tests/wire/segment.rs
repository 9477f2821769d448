use proptest::prelude::*;
use wire::{Checksums, Flags, Malformed, Options, Packet, ParseError, TimestampOption};

use crate::support::*;

/// What a SYN with this option block, filled up with end-of-list, is understood to say.
fn options_of(block: &[u8]) -> Options {
    let mut block = block.to_vec();
    block.resize(block.len().next_multiple_of(4), 0);
    let packet = ipv4(&[], syn(&block, b""));
    parse(&packet).unwrap().segment.options()
}

const MSS: &[u8] = &[2, 4, 5, 0xb4];
const WSCALE: &[u8] = &[3, 3, 7];
const SACK: &[u8] = &[4, 2];
const STAMPS: &[u8] = &[8, 10, 0, 0, 0, 9, 0, 0, 0, 8];

fn all() -> Options {
    Options {
        mss: Some(1460),
        wscale: Some(7),
        sack_permitted: true,
        timestamps: Some(TimestampOption { tsval: 9, tsecr: 8 }),
    }
}

#[test]
fn data_offset_below_five_words_is_malformed() {
    for offset in 0..5 {
        let mut segment = syn(LINUX_SYN, b"");
        segment[12] = offset << 4;
        assert_eq!(parse(&ipv4(&[], segment)), malformed(Malformed::DataOffset), "offset {offset}");
    }
}

#[test]
fn data_offset_beyond_the_segment_is_malformed() {
    let mut segment = syn(&[], b"abc");
    segment[12] = 6 << 4;
    assert_eq!(parse(&ipv4(&[], segment.clone())), malformed(Malformed::DataOffset));
    segment.push(b'd');
    assert_eq!(parse(&ipv4(&[], segment)).unwrap().segment.payload, b"");
}

#[test]
fn fewer_than_twenty_bytes_are_malformed() {
    for len in 0..20 {
        let segment = syn(&[], b"")[..len].to_vec();
        assert_eq!(parse(&ipv4(&[], segment.clone())), malformed(Malformed::TcpLength), "{len} bytes");
        assert_eq!(parse(&ipv6(&[], segment)), malformed(Malformed::TcpLength), "{len} bytes");
    }
}

#[test]
fn reserved_bits_and_urgent_pointer_are_ignored() {
    let mut segment = syn(LINUX_SYN, b"");
    segment[12] |= 0x0f;
    segment[18..20].fill(0xff);
    assert_eq!(parse(&ipv4(&[], segment)).unwrap().segment.flags, Flags::SYN);
}

#[test]
fn every_combination_of_flags_is_read() {
    for bits in 0..=255 {
        let mut segment = syn(&[], b"");
        segment[13] = bits;
        assert_eq!(parse(&ipv4(&[], segment)).unwrap().segment.flags, Flags::from_bits(bits));
    }
}

#[test]
fn sequence_length_counts_data_syn_and_fin() {
    for (flags, payload, expected) in [
        (Flags::NONE, &b""[..], 0),
        (Flags::ACK | Flags::PSH | Flags::RST, b"", 0),
        (Flags::SYN, b"", 1),
        (Flags::FIN | Flags::ACK, b"", 1),
        (Flags::SYN | Flags::FIN, b"abc", 5),
        (Flags::ACK, b"abc", 3),
    ] {
        let mut segment = syn(&[], payload);
        segment[13] = flags.bits();
        assert_eq!(parse(&ipv4(&[], segment)).unwrap().segment.seg_len(), expected, "{flags:?}");
    }
}

#[test]
fn cut_payload_keeps_its_true_length() {
    let packet = ipv4(&[], syn(&[], b"0123456789"));
    let segment = Packet::parse_ip(&packet[..44], packet.len(), Checksums::Trust).unwrap().segment;
    assert_eq!((segment.payload, segment.payload_len, segment.seg_len()), (&b"0123"[..], 10, 11));
}

#[test]
fn cut_header_is_truncated() {
    let packet = ipv4(&[], syn(LINUX_SYN, b"data"));
    for len in 0..60 {
        let cut = Packet::parse_ip(&packet[..len], packet.len(), Checksums::Trust);
        assert_eq!(cut, Err(ParseError::Truncated), "{len} bytes");
    }
}

#[test]
fn options_in_every_order_read_the_same() {
    let pieces = [MSS, WSCALE, SACK, STAMPS];
    let mut orders_count = 0;
    for a in 0..4 {
        for b in (0..4).filter(|b| *b != a) {
            for c in (0..4).filter(|c| ![a, b].contains(c)) {
                let d = 6 - a - b - c;
                let block = [pieces[a], pieces[b], pieces[c], pieces[d]].concat();
                assert_eq!(options_of(&block), all(), "{block:?}");
                orders_count += 1;
            }
        }
    }
    assert_eq!(orders_count, 24);
}

#[test]
fn layouts_of_common_systems_read_alike() {
    let linux = [MSS, SACK, STAMPS, &[1], WSCALE].concat();
    let macos = [MSS, &[1], WSCALE, &[1, 1], STAMPS, SACK, &[0, 0]].concat();
    let freebsd = [MSS, &[1], WSCALE, SACK, STAMPS].concat();
    let tight = [WSCALE, STAMPS, MSS, SACK].concat();
    for block in [linux, macos, freebsd, tight] {
        assert_eq!(options_of(&block), all(), "{block:?}");
    }
    let windows = [MSS, &[1], WSCALE, &[1, 1], SACK].concat();
    assert_eq!(options_of(&windows), Options { timestamps: None, ..all() });
    let ack = [&[1, 1], STAMPS].concat();
    assert_eq!(options_of(&ack), Options { timestamps: all().timestamps, ..Options::default() });
}

#[test]
fn nop_may_stand_anywhere() {
    let block = [&[1, 1, 1], MSS, &[1], SACK, &[1, 1], STAMPS, &[1], WSCALE, &[1, 1]].concat();
    assert_eq!(options_of(&block), all());
    assert_eq!(options_of(&[1; 40]), Options::default());
}

#[test]
fn nothing_behind_the_end_of_the_list_counts() {
    let block = [MSS, &[0], WSCALE].concat();
    assert_eq!(options_of(&block), Options { mss: Some(1460), ..Options::default() });
}

#[test]
fn unknown_options_are_skipped_by_their_length() {
    let block = [&[34, 2], MSS, &[254, 6, 2, 4, 0, 1], SACK, &[19, 3, 3], STAMPS, WSCALE].concat();
    assert_eq!(options_of(&block), all());
}

#[test]
fn impossible_length_stops_the_walk_and_keeps_what_was_read() {
    let before = Options { mss: Some(1460), ..Options::default() };
    for bad in [&[3, 0][..], &[3, 1], &[77, 0], &[77, 1], &[77, 255], &[8, 10, 0, 0], &[3, 9, 7]] {
        let block = [MSS, bad].concat();
        assert_eq!(options_of(&block), before, "{bad:?}");
        let block = [MSS, &bad[..1], &[bad[1].min(1)], SACK].concat();
        assert_eq!(options_of(&block), before, "{block:?}");
    }
    let kind_without_length = [MSS, &[1, 1, 1, 3]].concat();
    assert_eq!(options_of(&kind_without_length), before);
}

#[test]
fn known_option_of_a_wrong_length_is_skipped() {
    let behind = Options { sack_permitted: true, ..Options::default() };
    for wrong in [&[2, 3, 1][..], &[2, 5, 5, 0xb4, 0], &[3, 2], &[3, 4, 7, 0], &[8, 9, 0, 0, 0, 0, 0, 0, 0], &[8, 2]] {
        assert_eq!(options_of(&[wrong, SACK].concat()), behind, "{wrong:?}");
    }
    assert_eq!(options_of(&[4, 3, 0, 0]), Options::default());
}

#[test]
fn window_scale_above_fourteen_counts_as_fourteen() {
    for (sent, read) in [(0, 0), (13, 13), (14, 14), (15, 14), (255, 14)] {
        assert_eq!(options_of(&[3, 3, sent]).wscale, Some(read));
        let linux = [MSS, SACK, STAMPS, &[1, 3, 3, sent]].concat();
        assert_eq!(options_of(&linux).wscale, Some(read));
    }
}

#[test]
fn last_of_two_equal_options_counts() {
    assert_eq!(options_of(&[2, 4, 0, 1, 2, 4, 0, 2]).mss, Some(2));
}

/// The four options, read by index instead of by pattern.
fn reference(block: &[u8]) -> Options {
    let mut options = Options::default();
    let mut at = 0;
    while at < block.len() && block[at] != 0 {
        if block[at] == 1 {
            at += 1;
            continue;
        }
        let len = block.get(at + 1).map_or(0, |len| usize::from(*len));
        if len < 2 || at + len > block.len() {
            break;
        }
        let number = |from: usize, to: usize| block[at + from..at + to].iter().fold(0, |n, b| n << 8 | u32::from(*b));
        match (block[at], len) {
            (2, 4) => options.mss = Some(number(2, 4) as u16),
            (3, 3) => options.wscale = Some(block[at + 2].min(14)),
            (4, 2) => options.sack_permitted = true,
            (8, 10) => options.timestamps = Some(TimestampOption { tsval: number(2, 6), tsecr: number(6, 10) }),
            _ => {}
        }
        at += len;
    }
    options
}

/// Blocks that are nearly right: known options, padding and noise, strung together.
fn plausible_block() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(MSS.to_vec()),
        Just(WSCALE.to_vec()),
        Just(SACK.to_vec()),
        Just(STAMPS.to_vec()),
        Just(vec![1]),
        Just(vec![1, 1]),
        prop::collection::vec(0u8..12, 1..5),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| {
        let mut block = pieces.concat();
        block.truncate(40);
        block.resize(block.len().next_multiple_of(4), 1);
        block
    })
}

proptest! {
    #[test]
    fn options_equal_the_reference(block in plausible_block()) {
        prop_assert_eq!(options_of(&block), reference(&block));
    }

    #[test]
    fn arbitrary_options_equal_the_reference(mut block in prop::collection::vec(any::<u8>(), 0..=40)) {
        block.resize(block.len().next_multiple_of(4), 0);
        prop_assert_eq!(options_of(&block), reference(&block));
    }

    /// One byte away from the layouts that are read at a glance, the glance must not be fooled.
    #[test]
    fn nearly_linux_options_equal_the_reference(ack: bool, at in 0usize..20, byte: u8) {
        let mut block = if ack { [&[1, 1], STAMPS].concat() } else { [MSS, SACK, STAMPS, &[1], WSCALE].concat() };
        let at = at % block.len();
        block[at] = byte;
        prop_assert_eq!(options_of(&block), reference(&block));
    }
}
