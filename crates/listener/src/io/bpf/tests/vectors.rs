//! The cookie of the programs is the Rust code's: by the golden vectors, and by random segments that end a handshake, or nearly.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use wire::TimestampOption;

use super::super::layout::Kind;
use super::acks::{LOOKS_UP, is_taken, listen, refusal, third_ack};
use super::answers::flows;
use super::*;
use crate::cookie::tests::{self as golden, GOLDEN, GOLDEN_INPUTS, golden_vector, linux_offer};
use crate::cookie::{BadCookie, Cookie, Offer};

/// The options of a SYN with this offer.
fn block_of(offer: &Offer) -> Vec<u8> {
    let mss = offer.mss.to_be_bytes();
    let mut block = vec![2, 4, mss[0], mss[1]];
    block.extend(offer.wscale.map(|shift| [1, 3, 3, shift]).into_iter().flatten());
    block.extend(offer.sack.then_some([1, 1, 4, 2]).into_iter().flatten());
    if let Some(tsval) = offer.tsval {
        block.extend([1, 1, 8, 10]);
        block.extend(tsval.to_be_bytes());
        block.extend([0; 4]);
    }
    block
}

#[test]
fn the_programs_make_and_take_the_golden_vectors() {
    on_bench(PRESSED, |bench| {
        let _listening = listen();
        bench.jar = golden::jar();
        bench.set_time(golden::NOW);
        for (hook, (input, vector)) in
            HOOKS.into_iter().flat_map(|hook| GOLDEN_INPUTS.into_iter().zip(GOLDEN).map(move |pair| (hook, pair)))
        {
            let (v6, timestamps) = input;
            let flow = golden::tuple(v6);
            let syn = syn(&flow, golden::IRS, &block_of(&linux_offer(timestamps)));
            let Fate::Sent(answer) = bench.at(hook, &syn) else { panic!("no answer to {input:?}") };
            let sent = packet(&answer).segment;
            let cookie = Cookie { isn: sent.seq, tsval: sent.options().timestamps.map(|ts| ts.tsval) };
            assert_eq!(golden_vector(&cookie), vector, "{input:?} {hook:?}");
            assert!(is_taken(bench, &third_ack(&flow, golden::IRS, &cookie, &[])), "{input:?}");
        }
    });
}

/// What a random segment has that its cookie does not speak of.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Nothing,
    Isn(u32),
    Tsecr(u32),
    Irs(u32),
    Port(u16),
    Form,
    Everything(u32, u32),
}

fn wrong() -> impl Strategy<Value = Wrong> {
    let bit = (0u32..32).prop_map(|bit| 1 << bit);
    prop_oneof![
        5 => Just(Wrong::Nothing),
        1 => bit.clone().prop_map(Wrong::Isn),
        1 => bit.clone().prop_map(Wrong::Tsecr),
        1 => any::<u32>().prop_map(Wrong::Isn),
        1 => any::<u32>().prop_map(Wrong::Tsecr),
        1 => bit.prop_map(Wrong::Irs),
        1 => any::<u16>().prop_map(Wrong::Port),
        1 => Just(Wrong::Form),
        2 => any::<(u32, u32)>().prop_map(|(isn, tsecr)| Wrong::Everything(isn, tsecr)),
    ]
}

impl Wrong {
    fn spoil(self, flow: &mut FourTuple, irs: &mut SeqNum, cookie: &mut Cookie) {
        let xor = |number: SeqNum, bits| SeqNum::new(number.value() ^ bits);
        match self {
            Wrong::Nothing => {}
            Wrong::Isn(bits) => cookie.isn = xor(cookie.isn, bits),
            Wrong::Tsecr(bits) => cookie.tsval = cookie.tsval.map(|tsval| tsval ^ bits),
            Wrong::Irs(bits) => *irs = xor(*irs, bits),
            Wrong::Port(bits) => flow.peer.port = (flow.peer.port ^ bits).max(1),
            Wrong::Form => cookie.tsval = cookie.tsval.xor(Some(5001)),
            Wrong::Everything(isn, tsecr) => {
                *cookie = Cookie { isn: SeqNum::new(isn), tsval: cookie.tsval.and(Some(tsecr)) }
            }
        }
    }
}

fn offers() -> impl Strategy<Value = Offer> {
    let wscale = proptest::option::of(0u8..=14);
    (1u16.., wscale, any::<bool>(), proptest::option::of(any::<u32>())).prop_map(|(mss, wscale, sack, tsval)| Offer {
        mss,
        wscale,
        sack,
        tsval,
    })
}

/// Thousands of random tuples, numbers and offers: what the Rust code takes, the programs take, and remember the same of it; what it
/// refuses, they refuse for the same reason.
#[test]
fn verdicts_on_random_third_segments_do_not_differ() {
    // Whoever hands on tells what it remembers of a handshake.
    let words = ListenerWords { state: State::HandsOn, ..LOOKS_UP };
    on_bench(words, |bench| {
        let _listening = listen();
        let mut runner = TestRunner::default();
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..5000 {
            let tree = (flows(), offers(), wrong()).new_tree(&mut runner).unwrap();
            let ((mut flow, mut irs), offer, wrong) = tree.current();
            if flow.peer.addr == flow.local.addr {
                continue; // It is nobody's, whatever its cookie says.
            }
            let mut cookie = bench.jar.mint(&flow, irs, &offer, NOW);
            wrong.spoil(&mut flow, &mut irs, &mut cookie);
            let ack = third_ack(&flow, irs, &cookie, &[]);
            let echo = cookie.tsval.map(|tsecr| TimestampOption { tsval: 5001, tsecr });
            let what = format!("{flow:?} {offer:?} {wrong:?}");
            match bench.jar.check(&flow, irs, cookie.isn, echo, NOW) {
                Ok(data) => {
                    assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Dropped, "{what}: it waits");
                    let [report] = bench.take_reports()[..] else { panic!("{what}: not told") };
                    assert_eq!((report.kind, report.irs, report.iss), (Kind::Full, irs, cookie.isn), "{what}");
                    let Offer { mss, wscale, sack, .. } = report.offer;
                    let remembered = (data.offer.mss, data.offer.wscale, data.offer.sack);
                    assert_eq!((mss, wscale, sack), remembered, "{what}");
                    taken += 1;
                }
                Err(why) => {
                    let expected = match why {
                        BadCookie::Expired => Counted::CookiesExpired,
                        BadCookie::Mac => Counted::CookiesBadMac,
                    };
                    assert_eq!(refusal(bench, &ack, &what), expected, "{what}");
                    refused += 1;
                }
            }
        }
        assert!(taken > 1500 && refused > 1500, "{taken} taken, {refused} refused");
    });
}
