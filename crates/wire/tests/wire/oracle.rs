//! An independent implementation reads what we write and writes what we read.

use std::net::IpAddr;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeaderSlice, TcpOptionElement, TcpSlice, TransportSlice};
use proptest::prelude::*;
use wire::{
    Flags, FourTuple, OptionBlock, Options, OutgoingSegment, REPLY_MAX_LEN, Reply, ReplyOptions, SeqNum,
    TimestampOption,
};

use crate::support::*;

/// The addresses and the segment as etherparse sees them; both checksums are judged on the way.
fn judged(packet: &[u8]) -> (IpAddr, IpAddr, TcpSlice<'_>) {
    let sliced = SlicedPacket::from_ip(packet).expect("an IP packet");
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP") };
    let (source, destination, expected): (IpAddr, IpAddr, u16) = match sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            assert_eq!(usize::from(header.total_len()), packet.len());
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            let (source, destination) = (header.source(), header.destination());
            (source.into(), destination.into(), tcp.calc_checksum_ipv4(source, destination).unwrap())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            assert_eq!(usize::from(header.payload_length()) + 40, packet.len());
            let (source, destination) = (header.source(), header.destination());
            (source.into(), destination.into(), tcp.calc_checksum_ipv6(source, destination).unwrap())
        }
        other => panic!("not IP: {other:?}"),
    };
    assert_eq!(tcp.checksum(), expected);
    (source, destination, tcp)
}

fn options_of(tcp: &TcpSlice<'_>) -> Options {
    let mut options = Options::default();
    for option in tcp.options_iterator() {
        match option.expect("a valid option") {
            TcpOptionElement::MaximumSegmentSize(mss) => options.mss = Some(mss),
            TcpOptionElement::WindowScale(shift) => options.wscale = Some(shift),
            TcpOptionElement::SelectiveAcknowledgementPermitted => options.sack_permitted = true,
            TcpOptionElement::Timestamp(tsval, tsecr) => options.timestamps = Some(TimestampOption { tsval, tsecr }),
            TcpOptionElement::Noop => {}
            other => panic!("not sent: {other:?}"),
        }
    }
    options
}

fn flags_of(tcp: &TcpHeaderSlice<'_>) -> Flags {
    [
        (tcp.fin(), Flags::FIN),
        (tcp.syn(), Flags::SYN),
        (tcp.rst(), Flags::RST),
        (tcp.psh(), Flags::PSH),
        (tcp.ack(), Flags::ACK),
        (tcp.urg(), Flags::URG),
        (tcp.ece(), Flags::ECE),
        (tcp.cwr(), Flags::CWR),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(Flags::NONE, |flags, (_, flag)| flags | flag)
}

/// A packet of the peer, built by etherparse.
fn built(tuple: FourTuple, seq: u32, window: u16, options: &ReplyOptions, payload: &[u8]) -> Vec<u8> {
    let ip = match (tuple.peer.addr, tuple.local.addr) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => PacketBuilder::ipv4(source.octets(), destination.octets(), 9),
        (IpAddr::V6(source), IpAddr::V6(destination)) => PacketBuilder::ipv6(source.octets(), destination.octets(), 9),
        _ => unreachable!("one family"),
    };
    let mut elements = Vec::new();
    elements.extend(options.wscale.map(TcpOptionElement::WindowScale));
    elements.extend(options.timestamps.map(|stamps| TcpOptionElement::Timestamp(stamps.tsval, stamps.tsecr)));
    elements.extend(options.sack_permitted.then_some(TcpOptionElement::SelectiveAcknowledgementPermitted));
    elements.extend(options.mss.map(TcpOptionElement::MaximumSegmentSize));
    let builder = ip.tcp(tuple.peer.port, tuple.local.port, seq, window).syn().options(&elements).unwrap();
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet
}

fn is_plain(tuple: FourTuple) -> bool {
    [tuple.local, tuple.peer].iter().all(|end| end.addr.to_canonical() == end.addr)
}

proptest! {
    #[test]
    fn replies_are_judged_correct(
        tuple in any_tuple(),
        (seq, ack, flags, window) in any::<(u32, u32, u8, u16)>(),
        options in any_reply_options(),
    ) {
        let flags = Flags::from_bits(flags);
        let reply = Reply { tuple, seq: SeqNum::new(seq), ack: SeqNum::new(ack), flags, window, options };
        let mut buf = [0; REPLY_MAX_LEN];
        let len = reply.emit(&mut buf);
        let (source, destination, tcp) = judged(&buf[..len]);
        prop_assert_eq!((source, destination), (tuple.local.addr, tuple.peer.addr));
        prop_assert_eq!((tcp.source_port(), tcp.destination_port()), (tuple.local.port, tuple.peer.port));
        prop_assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (seq, ack));
        prop_assert_eq!(flags_of(&TcpHeaderSlice::from_slice(tcp.header_slice()).unwrap()), flags);
        prop_assert_eq!((tcp.window_size(), tcp.urgent_pointer(), tcp.payload()), (window, 0, &[][..]));
        let ReplyOptions { mss, wscale, sack_permitted, timestamps } = options;
        prop_assert_eq!(options_of(&tcp), Options { mss, wscale, sack_permitted, timestamps });
    }

    #[test]
    fn outgoing_segments_are_judged_correct(
        tuple in any_tuple(),
        options in any_reply_options(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let outgoing = OutgoingSegment {
            tuple,
            hop_limit: 1,
            seq: SeqNum::new(1),
            ack: SeqNum::new(2),
            flags: Flags::PSH | Flags::ACK,
            window: 3,
            options: OptionBlock::from(options),
            payload: &payload,
        };
        let mut buf = [0; 400];
        let len = outgoing.emit(&mut buf).unwrap();
        let (_, _, tcp) = judged(&buf[..len]);
        prop_assert_eq!(tcp.payload(), &payload[..]);
    }

    #[test]
    fn packets_built_elsewhere_parse(
        tuple in any_tuple(),
        seq: u32,
        window: u16,
        options in any_reply_options(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assume!(is_plain(tuple));
        let packet = built(tuple, seq, window, &options, &payload);
        let parsed = parse(&packet).unwrap();
        prop_assert_eq!(parsed.tuple, tuple);
        let segment = parsed.segment;
        prop_assert_eq!((segment.seq, segment.flags, segment.window), (SeqNum::new(seq), Flags::SYN, window));
        prop_assert_eq!(segment.payload, &payload[..]);
        let ReplyOptions { mss, wscale, sack_permitted, timestamps } = options;
        prop_assert_eq!(segment.options(), Options { mss, wscale, sack_permitted, timestamps });
    }
}
