use proptest::prelude::*;
use wire::{EmitError, Flags, FourTuple, OptionBlock, OutgoingSegment, ReplyOptions, SeqNum};

use crate::support::*;

fn segment(tuple: FourTuple, options: &[u8], payload: &'static [u8]) -> OutgoingSegment<'static> {
    OutgoingSegment {
        tuple,
        hop_limit: 3,
        seq: SeqNum::new(1),
        ack: SeqNum::new(2),
        flags: Flags::SYN,
        window: 1024,
        options: OptionBlock::from_bytes(options).unwrap(),
        payload,
    }
}

#[test]
fn options_of_any_layout_and_data_go_out_as_given() {
    for options in [&[][..], &[1], &[4, 2], &[3, 3, 7], LINUX_SYN, &[2, 0, 0, 0], &[1; 40]] {
        for (tuple, ip_len) in [(tuple_v4(), 20), (tuple_v6(), 40)] {
            let mut buf = [0xee; 200];
            let len = segment(tuple, options, b"hello").emit(&mut buf).unwrap();
            let padded_len = options.len().next_multiple_of(4);
            assert_eq!(len, ip_len + 20 + padded_len + 5);
            let block = &buf[ip_len + 20..][..padded_len];
            assert_eq!(block[..options.len()], *options);
            assert!(block[options.len()..].iter().all(|byte| *byte == 0), "filled up with end-of-list");
            let parsed = parse(&buf[..len]).unwrap();
            assert_eq!((parsed.tuple, parsed.segment.payload), (reversed(tuple), &b"hello"[..]));
            assert!(buf[len..].iter().all(|byte| *byte == 0xee), "written beyond the length");
        }
    }
}

#[test]
fn hop_limit_goes_out_as_given() {
    let mut buf = [0; 200];
    segment(tuple_v4(), &[], b"").emit(&mut buf).unwrap();
    assert_eq!(buf[8], 3);
    segment(tuple_v6(), &[], b"").emit(&mut buf).unwrap();
    assert_eq!(buf[7], 3);
}

#[test]
fn option_block_holds_forty_bytes_and_no_more() {
    assert!(OptionBlock::from_bytes(&[1; 40]).is_some());
    assert!(OptionBlock::from_bytes(&[1; 41]).is_none());
    assert_eq!(OptionBlock::from_bytes(&[]), Some(OptionBlock::EMPTY));
}

#[test]
fn small_buffer_is_refused_and_left_alone() {
    for (tuple, needed_len) in [(tuple_v4(), 65), (tuple_v6(), 85)] {
        let mut buf = vec![0xee; needed_len - 1];
        let refused = segment(tuple, LINUX_SYN, b"hello").emit(&mut buf);
        assert_eq!(refused, Err(EmitError::BufferTooSmall { needed_len }));
        assert!(buf.iter().all(|byte| *byte == 0xee));
        buf.push(0);
        assert_eq!(segment(tuple, LINUX_SYN, b"hello").emit(&mut buf), Ok(needed_len));
    }
}

#[test]
fn longest_packets_of_both_families_parse_and_one_byte_more_is_refused() {
    const DATA: &[u8] = &[7; 65536];
    let mut buf = vec![0; 70_000];
    for (tuple, data_max) in [(tuple_v4(), 65535 - 40), (tuple_v6(), 65535 - 20)] {
        let len = segment(tuple, &[], &DATA[..data_max]).emit(&mut buf).unwrap();
        assert_eq!(parse(&buf[..len]).unwrap().segment.payload_len, data_max);
        assert_eq!(segment(tuple, &[], &DATA[..data_max + 1]).emit(&mut buf), Err(EmitError::TooLong));
    }
}

#[test]
fn ends_of_two_families_are_refused() {
    let mixed = FourTuple { local: tuple_v6().local, peer: tuple_v4().peer };
    assert_eq!(segment(mixed, &[], b"").emit(&mut [0; 100]), Err(EmitError::MixedFamilies));
}

proptest! {
    #[test]
    fn block_of_reply_options_is_that_of_a_reply(options in any_reply_options()) {
        let bytes = crate::reply::expected_block(&options);
        let expected = OptionBlock::from_bytes(&bytes).unwrap();
        prop_assert_eq!(OptionBlock::from(options), expected);
        prop_assert_eq!(OptionBlock::from(ReplyOptions::default()), OptionBlock::EMPTY);
    }

    #[test]
    fn payload_of_any_length_is_summed_right(
        tuple in any_tuple(),
        payload in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let mut buf = [0; 1600];
        let outgoing = OutgoingSegment { payload: &payload, ..segment(tuple, LINUX_SYN, b"") };
        let len = outgoing.emit(&mut buf).unwrap();
        if tuple.local.addr.to_canonical() == tuple.local.addr && tuple.peer.addr.to_canonical() == tuple.peer.addr {
            prop_assert_eq!(parse(&buf[..len]).unwrap().segment.payload, &payload[..]);
        }
    }
}
