//! Whatever comes, in whatever order: no panic, and the bounds hold.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use wire::{Endpoint, Flags, FourTuple, Options, SeqNum};

use super::super::super::table::{PROBATION_MAX, PROVEN_MAX, Table};
use super::{EVENTS_MAX, Flow, Seg, Side, Via, draw};

/// Numbers near those of a connection, so that something fits now and then, or any.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1000u32), 999..1100u32, Just(u32::MAX), any::<u32>()]
}

fn segment() -> impl Strategy<Value = (Side, Seg)> {
    let side = prop_oneof![Just(Side::Client), Just(Side::Server)];
    let flags = prop_oneof![Just(0x02u8), Just(0x12), Just(0x10), Just(0x11), Just(0x04), any::<u8>()];
    let len = prop_oneof![Just(0u32), 1..2000u32, any::<u32>()];
    (side, number(), number(), flags, any::<u16>(), len, proptest::option::of(0u8..15)).prop_map(
        |(side, seq, ack, flags, window, len, wscale)| {
            let options = Options { wscale, ..Options::default() };
            let (seq, ack, flags) = (SeqNum::new(seq), SeqNum::new(ack), Flags::from_bits(flags));
            (side, Seg { seq, ack, flags, window, len, options })
        },
    )
}

fn tuple(client: u32) -> FourTuple {
    let local = Endpoint { addr: [198, 18, 0, 1].into(), port: 80 };
    FourTuple { local, peer: Endpoint { addr: client.to_be_bytes().into(), port: 1025 } }
}

proptest! {
    #[test]
    fn any_segments_make_a_ladder_within_its_bounds(
        segments in vec(segment(), 1..200),
        via in 0usize..200,
        unknown in 0usize..200,
    ) {
        let at = |index: usize| Duration::from_millis(index as u64 * 37);
        let (from, first) = segments[0];
        let mut flow = Flow::begin(at(0), from, &first);
        for (index, (from, seg)) in segments.iter().enumerate().skip(1) {
            flow.on_segment(at(index), *from, seg);
            let _ = (flow.standing(), flow.wants_via(), flow.is_succeeded_by(*from, seg));
            if index == via {
                flow.on_via(at(index), Via::Cookie, Duration::ZERO);
            }
            if index == unknown {
                flow.on_unknown(at(index));
            }
        }
        flow.finish();
        let text = draw(&mut flow.clone());
        prop_assert!(flow.take_rows(true).len() <= EVENTS_MAX + 1);
        for line in text.lines() {
            prop_assert!(line.chars().count() <= 100, "{}", line);
        }
    }

    #[test]
    fn tables_forget_rather_than_grow(segments in vec((segment(), 0u32..20), 1..400)) {
        let mut table = Table::default();
        for (index, ((from, seg), client)) in segments.iter().enumerate() {
            let now = Duration::from_millis(index as u64 * 50);
            table.on_segment(now, tuple(*client), *from, seg);
            table.tick(now);
            prop_assert!(table.flows_mut().count() <= 20);
            table.take_ended();
        }
        table.finish();
        prop_assert_eq!(table.flows_mut().count(), 0);
    }
}

fn seg(flags: Flags, seq: u32, ack: u32) -> Seg {
    Seg { seq: SeqNum::new(seq), ack: SeqNum::new(ack), flags, window: 100, len: 0, options: Options::default() }
}

#[test]
fn flood_of_syns_leaves_proven_flows_alone() {
    let mut table = Table::default();
    let client = tuple(7);
    let ms = Duration::from_millis;
    table.on_segment(ms(0), client, Side::Client, &seg(Flags::SYN, 1, 0));
    table.on_segment(ms(1), client, Side::Server, &seg(Flags::SYN | Flags::ACK, 9, 2));
    table.on_segment(ms(2), client, Side::Client, &seg(Flags::ACK, 2, 10));
    for source in 1000..100_000u32 {
        table.on_segment(ms(3), tuple(source), Side::Client, &seg(Flags::SYN, source, 0));
    }
    assert!(table.flows_mut().count() <= PROBATION_MAX + PROVEN_MAX);
    assert!(table.get_mut(&client).is_some());
    assert!(table.unshown_count() >= 90_000);
    table.finish();
    let ended = table.take_ended();
    assert!(ended.len() <= 21, "20 of the flood at most, and the client: {}", ended.len());
    assert!(ended.iter().any(|tracked| tracked.tuple == client));
}

#[test]
fn proven_flows_beyond_the_bound_end_with_the_quietest() {
    let mut table = Table::default();
    let count = PROVEN_MAX as u32 + 10;
    for source in 0..count {
        let at = Duration::from_millis(u64::from(source));
        table.on_segment(at, tuple(source), Side::Client, &seg(Flags::SYN, 1, 0));
        table.on_segment(at, tuple(source), Side::Server, &seg(Flags::SYN | Flags::ACK, 9, 2));
        table.on_segment(at, tuple(source), Side::Client, &seg(Flags::ACK, 2, 10));
    }
    assert_eq!(table.flows_mut().count(), PROVEN_MAX);
    let ended: Vec<_> = table.take_ended().iter().map(|tracked| tracked.tuple).collect();
    assert_eq!(ended, (0..10).map(tuple).collect::<Vec<_>>());
}
