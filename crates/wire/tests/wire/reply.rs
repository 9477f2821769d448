use proptest::prelude::*;
use wire::{
    Checksums, Endpoint, Flags, FourTuple, Options, Packet, REPLY_MAX_LEN, Reply, ReplyOptions, SeqNum, TimestampOption,
};

use crate::support::*;

const STAMPS: TimestampOption = TimestampOption { tsval: 0x0102_0304, tsecr: 0x0506_0708 };

/// The sixteen sets of options.
fn option_sets() -> impl Iterator<Item = ReplyOptions> {
    (0..16).map(|set| ReplyOptions {
        mss: (set & 1 != 0).then_some(1460),
        wscale: (set & 2 != 0).then_some(7),
        sack_permitted: set & 4 != 0,
        timestamps: (set & 8 != 0).then_some(STAMPS),
    })
}

fn syn_ack(tuple: FourTuple, options: ReplyOptions) -> Reply {
    Reply {
        tuple,
        seq: SeqNum::new(0xdead_beef),
        ack: SeqNum::new(0x1234_5679),
        flags: Flags::SYN | Flags::ACK,
        window: 65535,
        options,
    }
}

fn emit(reply: &Reply) -> Vec<u8> {
    let mut buf = [0xee; REPLY_MAX_LEN];
    let len = reply.emit(&mut buf);
    assert!(buf[len..].iter().all(|byte| *byte == 0xee), "written beyond the length");
    buf[..len].to_vec()
}

/// Linux's layout, spelled out.
pub fn expected_block(options: &ReplyOptions) -> Vec<u8> {
    let mut block = Vec::new();
    if let Some(mss) = options.mss {
        block.extend([2, 4]);
        block.extend(mss.to_be_bytes());
    }
    match (options.timestamps, options.sack_permitted) {
        (Some(_), true) => block.extend([4, 2, 8, 10]),
        (Some(_), false) => block.extend([1, 1, 8, 10]),
        (None, true) => block.extend([1, 1, 4, 2]),
        (None, false) => {}
    }
    if let Some(stamps) = options.timestamps {
        block.extend(stamps.tsval.to_be_bytes());
        block.extend(stamps.tsecr.to_be_bytes());
    }
    if let Some(shift) = options.wscale {
        block.extend([1, 3, 3, shift]);
    }
    block
}

fn as_read(options: ReplyOptions) -> Options {
    let ReplyOptions { mss, wscale, sack_permitted, timestamps } = options;
    Options { mss, wscale, sack_permitted, timestamps }
}

#[test]
fn every_set_of_options_has_the_layout_of_linux() {
    for options in option_sets() {
        assert_eq!(emit(&syn_ack(tuple_v4(), options))[40..], expected_block(&options), "{options:?}");
        assert_eq!(emit(&syn_ack(tuple_v6(), options))[60..], expected_block(&options), "{options:?}");
    }
}

#[test]
fn answer_is_never_longer_than_a_syn_with_the_same_options() {
    for options in option_sets() {
        let tightest = [
            (options.mss.is_some(), 4),
            (options.wscale.is_some(), 3),
            (options.sack_permitted, 2),
            (options.timestamps.is_some(), 10),
        ];
        let tightest_len: usize = tightest.iter().filter(|(present, _)| *present).map(|(_, len)| len).sum();
        let answer_len = emit(&syn_ack(tuple_v4(), options)).len();
        assert_eq!(answer_len, 40 + tightest_len.next_multiple_of(4), "{options:?}");
    }
}

#[test]
fn longest_answer_fills_the_buffer() {
    let all = option_sets().last().unwrap();
    assert_eq!(emit(&syn_ack(tuple_v6(), all)).len(), REPLY_MAX_LEN);
    assert_eq!(emit(&syn_ack(tuple_v4(), all)).len(), REPLY_MAX_LEN - 20);
}

#[test]
fn ipv4_header_is_plain() {
    let packet = emit(&syn_ack(tuple_v4(), ReplyOptions::default()));
    // Version and IHL, TOS 0, length; ID 0, DF; TTL 64, TCP.
    assert_eq!(packet[..10], [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    assert_eq!(packet[12..20], [198, 18, 0, 1, 198, 18, 0, 2], "from us to the peer");
    assert_eq!(packet[20..24], [1, 0xbb, 0x9c, 0x40], "443 to 40000");
    assert_eq!(packet[24..36], [0xde, 0xad, 0xbe, 0xef, 0x12, 0x34, 0x56, 0x79, 0x50, 0x12, 0xff, 0xff]);
    assert_eq!(packet[38..40], [0, 0], "urgent pointer");
}

#[test]
fn ipv6_header_is_plain_but_for_the_flow_label() {
    let packet = emit(&syn_ack(tuple_v6(), ReplyOptions::default()));
    assert_eq!((packet[0], packet[1] >> 4), (0x60, 0), "version 6, traffic class 0");
    assert_eq!(packet[4..8], [0, 20, 6, 64], "payload length, TCP, hop limit");
    assert_eq!(packet[8..24], [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "from us");
}

fn flow_label(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[..4].try_into().unwrap()) & 0xf_ffff
}

#[test]
fn flow_label_is_stable_per_connection() {
    let syn_ack = syn_ack(tuple_v6(), ReplyOptions::default());
    let reset = Reply { flags: Flags::RST, seq: SeqNum::new(7), window: 0, ..syn_ack };
    assert_eq!(flow_label(&emit(&syn_ack)), flow_label(&emit(&reset)));
    assert_ne!(flow_label(&emit(&syn_ack)), 0);
    let mut other = syn_ack;
    other.tuple.peer.port += 1;
    assert_ne!(flow_label(&emit(&syn_ack)), flow_label(&emit(&other)));
}

#[test]
fn window_scale_above_fourteen_is_sent_as_fourteen() {
    let options = ReplyOptions { wscale: Some(255), ..Default::default() };
    assert_eq!(emit(&syn_ack(tuple_v4(), options))[40..], [1, 3, 3, 14]);
}

#[test]
fn ends_of_two_families_give_nothing_to_send() {
    let mixed = FourTuple { local: tuple_v4().local, peer: tuple_v6().peer };
    assert_eq!(emit(&syn_ack(mixed, ReplyOptions::default())), []);
}

#[test]
fn answer_to_a_parsed_packet_goes_back_where_it_came_from() {
    let question = ipv4(&[], syn(LINUX_SYN, b""));
    let answer = emit(&syn_ack(parse(&question).unwrap().tuple, ReplyOptions::default()));
    assert_eq!(parse(&answer).unwrap().tuple, reversed(tuple_v4()));
}

fn any_reply() -> impl Strategy<Value = Reply> {
    (any_tuple(), any::<(u32, u32, u8, u16)>(), any_reply_options()).prop_map(
        |(tuple, (seq, ack, flags, window), options)| Reply {
            tuple,
            seq: SeqNum::new(seq),
            ack: SeqNum::new(ack),
            flags: Flags::from_bits(flags),
            window,
            options,
        },
    )
}

fn is_mapped(end: Endpoint) -> bool {
    end.addr.to_canonical() != end.addr
}

proptest! {
    #[test]
    fn what_is_emitted_parses_to_the_same(reply in any_reply()) {
        prop_assume!(!is_mapped(reply.tuple.local) && !is_mapped(reply.tuple.peer));
        let bytes = emit(&reply);
        let Packet { tuple, segment } = Packet::parse_ip(&bytes, bytes.len(), Checksums::Verify).unwrap();
        prop_assert_eq!(tuple, reversed(reply.tuple));
        prop_assert_eq!(segment.options(), as_read(reply.options));
        let read = (segment.seq, segment.ack, segment.flags, segment.window, segment.payload_len);
        prop_assert_eq!(read, (reply.seq, reply.ack, reply.flags, reply.window, 0));
    }

    #[test]
    fn emitted_checksums_equal_the_naive_ones(reply in any_reply()) {
        let bytes = emit(&reply);
        let (pseudo, segment) = match bytes[0] >> 4 {
            4 => {
                prop_assert_eq!(naive_checksum(&bytes[..20]), 0);
                ([&bytes[12..20], &[0, 6]].concat(), &bytes[20..])
            }
            _ => ([&bytes[8..40], &[0, 6]].concat(), &bytes[40..]),
        };
        let len = (segment.len() as u16).to_be_bytes();
        prop_assert_eq!(naive_checksum(&[&pseudo[..], &len, segment].concat()), 0);
    }
}
