//! SYN-ACKs of the programs are those of the Rust code, for any client.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use wire::{Options, TimestampOption};

use super::*;
use crate::cookie::{Family, Offer};
use crate::replies;
use crate::time::Time;

const MACOS: &[u8] = &[2, 4, 5, 180, 1, 3, 3, 6, 1, 1, 8, 10, 0, 0, 19, 136, 0, 0, 0, 0, 4, 2, 0, 0];
const FREEBSD: &[u8] = &[2, 4, 5, 180, 1, 3, 3, 6, 4, 2, 8, 10, 0, 0, 19, 136, 0, 0, 0, 0];
const OPENBSD: &[u8] = &[2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 6, 1, 1, 8, 10, 0, 0, 19, 136, 0, 0, 0, 0];
const MSS_ALONE: &[u8] = &[2, 4, 5, 180];

/// Checks the answer to a SYN with these options against what the Rust code would have said.
pub(super) fn check_answer(bench: &mut Bench, flow: &FourTuple, irs: SeqNum, options: &[u8], answer: &[u8]) {
    check_answer_to_offer(bench, flow, irs, &offer_of(flow, options), names_mss(flow, options), answer);
}

/// What a SYN with these options offers.
pub(super) fn offer_of(flow: &FourTuple, options: &[u8]) -> Offer {
    Offer::new(&parsed(flow, options), Family::of(flow.peer.addr))
}

/// Whether it names a MSS that can be.
pub(super) fn names_mss(flow: &FourTuple, options: &[u8]) -> bool {
    parsed(flow, options).mss.is_some_and(|mss| mss != 0)
}

fn parsed(flow: &FourTuple, options: &[u8]) -> Options {
    let syn = syn(flow, SeqNum::new(0), options);
    Packet::parse_ip(&syn[14..], syn.len() - 14, Checksums::Verify).unwrap().segment.options()
}

/// The same, for what is left of the client's offer.
pub(super) fn check_answer_to_offer(
    bench: &mut Bench,
    flow: &FourTuple,
    irs: SeqNum,
    offer: &Offer,
    names_mss: bool,
    answer: &[u8],
) {
    let sent = packet(answer);
    assert_eq!(sent.tuple, FourTuple { local: flow.peer, peer: flow.local });
    let segment = &sent.segment;
    // The clock is the program's own; everything else follows from it.
    let tsval = segment.options().timestamps.map_or(0, |ts| ts.tsval);
    let clock = Time::from_nanos(u64::from(tsval & 0x7f) << 23);
    let cookie = bench.jar.mint(flow, irs, offer, clock);
    let expected = replies::syn_ack(flow, irs, &cookie, offer, WINDOW_SCALE, 1500);
    assert_eq!((segment.seq, segment.ack), (expected.seq, expected.ack), "{offer:?}");
    assert_eq!((segment.flags, segment.window), (expected.flags, expected.window));
    let promised = Options {
        mss: names_mss.then_some(MSS),
        wscale: expected.options.wscale,
        sack_permitted: expected.options.sack_permitted,
        timestamps: expected.options.timestamps,
    };
    assert_eq!(segment.options(), promised, "for {offer:?}");
}

#[test]
fn every_common_client_gets_the_same_answer_at_both_hooks() {
    on_bench(CALM, |bench| {
        for (client, server) in PAIRS {
            for options in [LINUX, WINDOWS, MACOS, FREEBSD, OPENBSD, MSS_ALONE] {
                let flow = tuple(client, server);
                let irs = SeqNum::new(0xffff_fffe);
                for hook in HOOKS {
                    let Fate::Sent(answer) = bench.at(hook, &syn(&flow, irs, options)) else {
                        panic!("no answer to {options:?}")
                    };
                    check_answer(bench, &flow, irs, options, &answer);
                }
            }
        }
    });
}

/// One option, well-formed or not.
fn option() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(vec![1]),
        3 => any::<u16>().prop_map(|mss| [&[2, 4][..], &mss.to_be_bytes()].concat()),
        3 => any::<u8>().prop_map(|shift| vec![3, 3, shift]),
        3 => Just(vec![4, 2]),
        3 => any::<u32>().prop_map(|tsval| [&[8, 10][..], &tsval.to_be_bytes(), &[0; 4]].concat()),
        1 => Just(vec![0]),
        1 => prop::collection::vec(any::<u8>(), 1..6),
    ]
}

/// A whole option block, at least a MSS long.
fn block() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(option(), 0..10).prop_map(|options| {
        let mut block = options.concat();
        block.truncate(40);
        block.resize(block.len().next_multiple_of(4).max(4), 0);
        block
    })
}

/// A tuple of the family with a client of the test network, and its initial sequence number.
pub(super) fn flows() -> impl Strategy<Value = (FourTuple, SeqNum)> {
    (any::<[u8; 16]>(), 1u16.., any::<u32>(), any::<bool>()).prop_map(|(addr, port, irs, v6)| {
        let mut flow = if v6 { tuple(CLIENT_V6, SERVER_V6) } else { tuple(CLIENT, SERVER) };
        let octets = [0x20, 1, 0xd, 0xb8, addr[4], addr[5], addr[6], addr[7]];
        flow.peer.addr = if v6 {
            <[u8; 16]>::try_from([&octets[..], &addr[8..]].concat()).unwrap().into()
        } else {
            [198, 18 + (addr[1] & 1), addr[2], addr[3]].into()
        };
        flow.peer.port = port;
        (flow, SeqNum::new(irs))
    })
}

/// Thousands of random tuples, numbers and options: the program's cookie is the Rust code's, bit for bit.
#[test]
fn cookies_do_not_differ() {
    on_bench(PRESSED, |bench| {
        let mut answers = 0;
        let mut runner = TestRunner::default();
        for _ in 0..4000 {
            let ((flow, irs), options) = (flows(), block()).new_tree(&mut runner).unwrap().current();
            match bench.at_xdp(&syn(&flow, irs, &options)) {
                Fate::Sent(answer) => {
                    check_answer(bench, &flow, irs, &options, &answer);
                    answers += 1;
                }
                // No room for the answer's options, or our own endpoint.
                Fate::Dropped => {}
                Fate::Passed => panic!("under pressure nothing of ours passes"),
            }
        }
        assert!(answers > 2000, "only {answers} of 4000 were answered");
    });
}

#[test]
fn the_echo_of_a_timestamp_is_the_clients() {
    on_bench(CALM, |bench| {
        let flow = tuple(CLIENT, SERVER);
        let Fate::Sent(answer) = bench.at_xdp(&syn(&flow, SeqNum::new(1), LINUX)) else { panic!("no answer") };
        let TimestampOption { tsecr, .. } = packet(&answer).segment.options().timestamps.unwrap();
        assert_eq!(tsecr, 5000);
        assert_eq!((bench.count(Counted::SynsReceived), bench.count(Counted::SynAcksSent)), (1, 1));
    });
}
