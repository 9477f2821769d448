//! What a packet costs: parsing, checking, answering. `cargo bench -p wire`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};
use wire::{
    Checksums, Endpoint, Flags, FourTuple, OptionBlock, OutgoingSegment, Packet, REPLY_MAX_LEN, Reply, ReplyOptions,
    SeqNum, Sum, TimestampOption,
};

/// MSS 1460, SACK-permitted, timestamps, NOP, window scale 7: Linux.
const LINUX_SYN: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
/// MSS, NOP, window scale, NOP, NOP, timestamps, SACK-permitted, end: macOS.
const MACOS_SYN: &[u8] = &[2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 4, 2, 0, 0];
/// NOP, NOP, timestamps: any segment behind the SYN.
const LINUX_ACK: &[u8] = &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

fn tuple_v4() -> FourTuple {
    FourTuple {
        local: Endpoint { addr: [198, 18, 0, 1].into(), port: 40000 },
        peer: Endpoint { addr: [198, 18, 0, 2].into(), port: 443 },
    }
}

fn tuple_v6() -> FourTuple {
    let [local, peer] = [1, 2].map(|host| [0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into());
    FourTuple { local: Endpoint { addr: local, port: 40000 }, peer: Endpoint { addr: peer, port: 443 } }
}

fn packet(tuple: FourTuple, flags: Flags, options: &[u8]) -> Vec<u8> {
    let segment = OutgoingSegment {
        tuple,
        hop_limit: 64,
        seq: SeqNum::new(0x1234_5678),
        ack: SeqNum::new(0),
        flags,
        window: 64240,
        options: OptionBlock::from_bytes(options).expect("at most 40 bytes"),
        payload: &[],
    };
    let mut buf = vec![0; 128];
    let len = segment.emit(&mut buf).expect("fits");
    buf.truncate(len);
    buf
}

/// Parses the packet and its options; the sum stands for a use of every field.
fn parse(bytes: &[u8], checksums: Checksums) -> u64 {
    let packet = Packet::parse_ip(bytes, bytes.len(), checksums).expect("valid");
    let options = packet.segment.options();
    let stamp = options.timestamps.map_or(0, |stamp| stamp.tsval);
    u64::from(packet.tuple.peer.port)
        + u64::from(packet.segment.seq.value())
        + u64::from(stamp)
        + u64::from(options.mss.unwrap_or(0))
        + u64::from(options.wscale.unwrap_or(0))
        + u64::from(options.sack_permitted)
}

/// The same with etherparse, which verifies no TCP checksum here.
fn parse_etherparse(bytes: &[u8]) -> u64 {
    let sliced = SlicedPacket::from_ip(bytes).expect("valid");
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("TCP") };
    let mut sum = u64::from(tcp.source_port()) + u64::from(tcp.sequence_number());
    for option in tcp.options_iterator() {
        sum += match option.expect("valid") {
            TcpOptionElement::MaximumSegmentSize(mss) => mss.into(),
            TcpOptionElement::WindowScale(shift) => shift.into(),
            TcpOptionElement::SelectiveAcknowledgementPermitted => 1,
            TcpOptionElement::Timestamp(tsval, _) => tsval.into(),
            _ => 0,
        };
    }
    sum
}

fn parsing(c: &mut Criterion) {
    let cases = [
        ("parse_syn/v4_linux", packet(tuple_v4(), Flags::SYN, LINUX_SYN)),
        ("parse_syn/v6_linux", packet(tuple_v6(), Flags::SYN, LINUX_SYN)),
        ("parse_syn/v4_odd", packet(tuple_v4(), Flags::SYN, MACOS_SYN)),
        ("parse_syn/v6_odd", packet(tuple_v6(), Flags::SYN, MACOS_SYN)),
        ("parse_ack/v4", packet(tuple_v4(), Flags::ACK, LINUX_ACK)),
        ("parse_ack/v6", packet(tuple_v6(), Flags::ACK, LINUX_ACK)),
    ];
    for (name, bytes) in &cases {
        assert_eq!(parse(bytes, Checksums::Verify), parse_etherparse(bytes));
        let mut group = c.benchmark_group(*name);
        group.bench_function("trust", |b| b.iter(|| parse(black_box(bytes), Checksums::Trust)));
        group.bench_function("verify", |b| b.iter(|| parse(black_box(bytes), Checksums::Verify)));
        group.bench_function("etherparse", |b| b.iter(|| parse_etherparse(black_box(bytes))));
        group.finish();
    }
}

fn emitting(c: &mut Criterion) {
    for (name, tuple) in [("emit_syn_ack/v4", tuple_v4()), ("emit_syn_ack/v6", tuple_v6())] {
        let reply = Reply {
            tuple,
            seq: SeqNum::new(0xdead_beef),
            ack: SeqNum::new(0x1234_5679),
            flags: Flags::SYN | Flags::ACK,
            window: 65535,
            options: ReplyOptions {
                mss: Some(1460),
                wscale: Some(7),
                sack_permitted: true,
                timestamps: Some(TimestampOption { tsval: 1, tsecr: 2 }),
            },
        };
        let mut buf = [0; REPLY_MAX_LEN];
        c.bench_function(name, |b| {
            b.iter(|| {
                let len = black_box(&reply).emit(&mut buf);
                black_box(&buf);
                len
            })
        });
    }
}

fn summing(c: &mut Criterion) {
    let bytes: Vec<u8> = (0..1500).map(|n| n as u8).collect();
    let mut group = c.benchmark_group("checksum");
    for len in [20, 40, 1500] {
        group.bench_function(len.to_string(), |b| b.iter(|| Sum::new().bytes(black_box(&bytes[..len])).finish()));
    }
}

criterion_group!(benches, parsing, emitting, summing);
criterion_main!(benches);
