//! SYNs of sources that the lists deny.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wire::ReplyOptions;

use super::craft::{self, between, damaged, unfinished_sum};
use super::*;
use crate::prefix_list::PrefixList;
use crate::sources::Denial;

const IRS: SeqNum = SeqNum::new(0xffff_ffff);

fn sources(allow: &str, deny: &str, denial: Denial) -> Sources {
    Sources::new(PrefixList::parse(allow).unwrap(), PrefixList::parse(deny).unwrap(), denial).unwrap()
}

/// Denies the client of either family.
fn both_denied(denial: Denial) -> Sources {
    sources("", "198.18.0.2\n2001:db8::2", denial)
}

/// Both families, all hooks, calm and under pressure.
fn in_every_way(bench: &mut Bench, mut test: impl FnMut(&mut Bench, Hook, &FourTuple)) {
    for words in [CALM, PRESSED] {
        bench.order(words);
        for (client, server) in PAIRS {
            for hook in HOOKS {
                test(bench, hook, &tuple(client, server));
            }
        }
    }
}

const SILENCE: [usize; 3] = [Counted::SynsReceived as usize, Counted::SynsDenied as usize, Counted::Denied as usize];
const REFUSAL: [usize; 3] =
    [Counted::SynsReceived as usize, Counted::SynsDenied as usize, Counted::ResetsSent as usize];

#[test]
fn silence_for_the_denied_is_no_answer_and_no_report() {
    on_bench(CALM, |bench| {
        bench.list(&both_denied(Denial::Silent));
        in_every_way(bench, |bench, hook, flow| {
            let before = bench.counted();
            assert_eq!(bench.at(hook, &syn(flow, IRS, LINUX)), Fate::Dropped);
            assert_eq!(bench.counted_since(&before), SILENCE);
            assert_eq!(bench.take_reports(), []);
        });
    });
}

#[test]
fn a_denied_syn_is_refused_by_the_rst_of_the_rust_code() {
    on_bench(CALM, |bench| {
        bench.list(&both_denied(Denial::Reset));
        in_every_way(bench, |bench, hook, flow| {
            for options in [LINUX, WINDOWS, &[], &[2, 4, 5, 180]] {
                let syn = syn(flow, IRS, options);
                let before = bench.counted();
                let Fate::Sent(answer) = bench.at(hook, &syn) else { panic!("no RST to {options:?} at {hook:?}") };
                assert_eq!(bench.counted_since(&before), REFUSAL);
                let (sent, asked) = (packet(&answer), Packet::parse_ip(&syn[14..], syn.len() - 14, Checksums::Verify));
                let expected = crate::replies::refusal(flow, &asked.unwrap().segment);
                assert_eq!(sent.tuple, FourTuple { local: flow.peer, peer: flow.local });
                let segment = &sent.segment;
                assert_eq!((segment.seq, segment.ack), (expected.seq, expected.ack));
                assert_eq!((segment.flags, segment.window), (expected.flags, expected.window));
                assert_eq!((segment.options(), segment.payload_len), (Default::default(), 0));
                assert_eq!(expected.options, ReplyOptions::default());
            }
            assert_eq!(bench.take_reports(), []);
        });
    });
}

/// As local senders leave it to a device.
#[test]
fn an_unfinished_sum_is_refused_in_kind() {
    on_bench(CALM, |bench| {
        bench.list(&both_denied(Denial::Reset));
        for (client, server) in PAIRS {
            let syn = syn(&tuple(client, server), IRS, LINUX);
            let at = craft::tcp_at(&syn) + 16;
            let unfinished = damaged(&syn, |frame| frame[at..at + 2].copy_from_slice(&unfinished_sum(&syn)));
            for hook in [Hook::Tc, Hook::Loopback] {
                let Fate::Sent(answer) = bench.at(hook, &unfinished) else { panic!("no RST") };
                assert_eq!(answer[at..at + 2], unfinished_sum(&syn), "the sum of the pseudo-header stays");
                assert_eq!(packet_unverified(&answer).segment.flags, Flags::RST | Flags::ACK);
            }
        }
    });
}

fn packet_unverified(frame: &[u8]) -> Packet<'_> {
    Packet::parse_ip(&frame[14..], frame.len() - 14, Checksums::Trust).unwrap()
}

#[test]
fn a_denied_syn_that_is_not_plain_meets_silence_and_not_the_kernel() {
    on_bench(CALM, |bench| {
        bench.list(&both_denied(Denial::Reset));
        in_every_way(bench, |bench, hook, flow| {
            let plain = syn(flow, IRS, LINUX);
            // A NOP as an IPv4 option, or padding in a header of options for the destination.
            let odd = match craft::is_v4(&plain) {
                true => between(&damaged(&plain, |frame| frame[craft::IP] += 1), &[1; 4]),
                false => between(&damaged(&plain, |frame| frame[craft::IP + 6] = 60), &[6, 0, 1, 4, 0, 0, 0, 0]),
            };
            is_left_without_lists(bench, hook, &odd);
            let data = frame(flow, Flags::SYN, IRS, SeqNum::new(0), LINUX, b"hello");
            for odd in [odd, data] {
                let before = bench.counted();
                assert_eq!(bench.at(hook, &odd), Fate::Dropped, "{hook:?}");
                assert_eq!(bench.counted_since(&before), SILENCE);
            }
        });
    });
}

/// So that the test is about what it says.
fn is_left_without_lists(bench: &mut Bench, hook: Hook, odd: &[u8]) {
    bench.list(&Sources::default());
    let before = bench.count(Counted::LeftToKernel) + bench.count(Counted::NotUnderstood);
    assert_ne!(bench.at(hook, odd), Fate::Sent(Vec::new()));
    assert_eq!(bench.count(Counted::LeftToKernel) + bench.count(Counted::NotUnderstood), before + 1, "{hook:?}");
    bench.list(&both_denied(Denial::Reset));
}

#[test]
fn refusals_keep_to_the_budget_and_silence_uses_up_none() {
    on_bench(ListenerWords { replies_max: 20, ..CALM }, |bench| {
        let flow = tuple(CLIENT, SERVER);
        // A neighbour in the same prefix is served.
        let neighbour = tuple("198.18.0.3:40000", SERVER);
        bench.list(&both_denied(Denial::Silent));
        for _ in 0..100 {
            assert_eq!(bench.at(Hook::Tc, &syn(&flow, IRS, LINUX)), Fate::Dropped);
        }
        assert!(matches!(bench.at(Hook::Tc, &syn(&neighbour, IRS, LINUX)), Fate::Sent(_)));
        bench.list(&both_denied(Denial::Reset));
        let refused = (0..100).filter(|_| bench.at(Hook::Tc, &syn(&flow, IRS, LINUX)) != Fate::Dropped).count();
        assert_eq!(refused, 19, "of twenty one was the neighbour's");
        assert_eq!(bench.count(Counted::RepliesOverBudget), 81);
    });
}

#[test]
fn what_is_no_syn_is_not_asked_for_its_source() {
    on_bench(CALM, |bench| {
        bench.list(&both_denied(Denial::Silent));
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            for flags in [Flags::ACK, Flags::RST, Flags::SYN | Flags::ACK] {
                assert_eq!(bench.at(Hook::Tc, &frame(&flow, flags, IRS, IRS, &[], &[])), Fate::Passed, "{flags:?}");
            }
        }
    });
}

#[test]
fn draining_and_resting_come_before_the_lists() {
    on_bench(CALM, |bench| {
        bench.list(&both_denied(Denial::Reset));
        let syn = syn(&tuple(CLIENT, SERVER), IRS, LINUX);
        for (state, fate) in
            [(State::Draining, Fate::Dropped), (State::Silent, Fate::Dropped), (State::Resting, Fate::Passed)]
        {
            bench.order(ListenerWords { state, ..CALM });
            let before = bench.count(Counted::SynsDenied);
            HOOKS.into_iter().for_each(|hook| assert_eq!(bench.at(hook, &syn), fate, "{state:?}"));
            assert_eq!(bench.count(Counted::SynsDenied), before, "{state:?}");
        }
    });
}

#[test]
fn other_lists_hold_from_the_next_syn_on() {
    on_bench(CALM, |bench| {
        let flow = tuple(CLIENT, SERVER);
        let lists = [
            (sources("", "198.18.0.0/24", Denial::Silent), true),
            (sources("", "198.19.0.0/24", Denial::Silent), false),
            (sources("198.18.0.0/24", "", Denial::Silent), false),
            (sources("198.18.0.0/24", "198.18.0.0/16", Denial::Silent), true),
            (sources("2001:db8::/32", "", Denial::Silent), true),
            (sources("0.0.0.0/0", "", Denial::Silent), false),
            (sources("::/0", "", Denial::Silent), false),
            (sources("::/0", "::/0", Denial::Silent), true),
            (Sources::default(), false),
        ];
        for (sources, denied) in lists {
            bench.list(&sources);
            assert_eq!(bench.at(Hook::Tc, &syn(&flow, IRS, LINUX)) == Fate::Dropped, denied, "{sources:?}");
            assert_eq!(sources.denies(flow.peer.addr), denied);
        }
    });
}

/// Any lists, and any sources near them: the programs and the Rust code do not differ.
#[test]
fn the_programs_judge_sources_as_the_rust_code_does() {
    on_bench(ListenerWords { replies_max: 1 << 20, ..PRESSED }, |bench| {
        let v4 = |low: u16| IpAddr::from(Ipv4Addr::from_bits(0xc612_0000 | u32::from(low)));
        let v6 = |low: u16| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(low)));
        let prefix = (any::<u16>(), 0u8..=32, any::<bool>()).prop_map(move |(low, len, six)| match six {
            false => ipnet::IpNet::new_assert(v4(low), len).trunc(),
            true => ipnet::IpNet::new_assert(v6(low), 128 - (32 - len) % 17).trunc(),
        });
        let list = proptest::collection::vec(prefix, 0..8).prop_map(|it| it.into_iter().collect::<PrefixList>());
        let case = (list.clone(), list, proptest::collection::vec(10u16.., 16));
        let mut runner = TestRunner::new(ProptestConfig::with_cases(100));
        for _ in 0..100 {
            let (allow, deny, lows) = proptest::strategy::ValueTree::current(&case.new_tree(&mut runner).unwrap());
            let sources = Sources::new(allow, deny, Denial::Silent).unwrap();
            bench.list(&sources);
            for low in lows {
                for (source, mut flow) in [(v4(low), tuple(CLIENT, SERVER)), (v6(low), tuple(CLIENT_V6, SERVER_V6))] {
                    flow.peer.addr = source;
                    let fate = bench.at(Hook::Xdp, &syn(&flow, IRS, LINUX));
                    assert_eq!(fate == Fate::Dropped, sources.denies(source), "{source} by {sources:?}");
                }
            }
        }
    });
}
