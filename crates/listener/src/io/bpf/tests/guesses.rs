//! What keeps guesses from getting anywhere: the gates before form B, and the look-up of whatever is no cookie.

use std::time::Duration;

use super::super::layout::Kind;
use super::acks::{
    IRS, LOOKS_UP, OFFER_A, OFFER_B, OFFERS, assert_refused, is_taken, listen, minted, refusal, third_ack,
};
use super::*;
use crate::cookie::{Cookie, Offer};

#[test]
fn form_b_is_refused_while_none_can_be_outstanding() {
    on_bench(CALM, |bench| {
        let _listening = listen();
        let gated = ListenerWords { form_b_always: false, ..LOOKS_UP };
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            let [wide, narrow] = OFFERS.map(|offer| third_ack(&flow, IRS, &minted(bench, &flow, &offer), &[]));
            for (until, open) in [(0, false), (NOW.as_nanos() - 1, false), (NOW.as_nanos(), true), (u64::MAX, true)] {
                bench.order(gated);
                bench.programs.form_b_until.set(0, until, 0).unwrap();
                assert_eq!(is_taken(bench, &narrow), open, "until {until}");
                assert!(is_taken(bench, &wide), "form A needs no gate");
            }
            bench.order(ListenerWords { form_b_always: true, ..gated });
            assert!(is_taken(bench, &narrow));
        }
    });
}

/// The gate opens with the first cookie of form B, for as long as one lives, and not for the sake of form A.
#[test]
fn an_answer_without_timestamps_opens_the_gate_for_a_cookies_life() {
    const OPEN: Duration = Duration::from_secs(65);
    on_bench(CALM, |bench| {
        let _listening = listen();
        for (client, server) in PAIRS {
            for listener in [CALM, PRESSED] {
                bench.set_time(NOW);
                bench.order(ListenerWords { form_b_always: false, looks_up: true, ..listener });
                let flow = tuple(client, server);
                let ack = third_ack(&flow, IRS, &minted(bench, &flow, &OFFER_B), &[]);
                assert!(matches!(bench.at_xdp(&syn(&flow, IRS, LINUX)), Fate::Sent(_)));
                assert!(!is_taken(bench, &ack));
                assert!(matches!(bench.at_xdp(&syn(&flow, IRS, WINDOWS)), Fate::Sent(_)));
                assert!(is_taken(bench, &ack));
                bench.set_time(NOW + OPEN);
                assert!(is_taken(bench, &ack));
                bench.set_time(NOW + (OPEN + Duration::from_nanos(1)));
                assert!(!is_taken(bench, &ack));
            }
        }
    });
}

/// Where nobody guesses, bad cookies are connections' as far as anybody knows: one in 64 is looked up, and told.
#[test]
fn while_nobody_guesses_bad_cookies_pass_and_one_in_64_is_looked_up() {
    on_bench(CALM, |bench| {
        let _listening = listen();
        let flow = tuple(CLIENT, SERVER);
        for number in 0..2000u32 {
            let ack = frame(&flow, Flags::ACK, IRS, SeqNum::new(number), &[], &[]);
            assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Passed);
        }
        // Which ones, nobody can know.
        let looked_up = bench.count(Counted::SampledBogus);
        assert_eq!(bench.count(Counted::UnknownPassed) + looked_up, 2000);
        assert!((1..150).contains(&looked_up), "{looked_up} of 2000");
        let told: Vec<_> = bench.take_reports().iter().map(|report| (report.kind, report.tuple)).collect();
        assert_eq!(told, vec![(Kind::Bogus, flow); looked_up as usize]);
    });
}

/// While guesses come in numbers, whatever belongs to no connection is dropped, each for its own reason.
#[test]
fn while_guesses_come_in_numbers_segments_of_no_connection_are_dropped() {
    on_bench(CALM, |bench| {
        let _listening = listen();
        for reports in [true, false] {
            bench.order(ListenerWords { reports, ..LOOKS_UP });
            for (flags, why) in [
                (Flags::ACK, Counted::BadCookie),
                (Flags::ACK | Flags::FIN, Counted::BadCookie),
                (Flags::RST, Counted::Reset),
                (Flags::RST | Flags::ACK, Counted::Reset),
                (Flags::SYN | Flags::ACK, Counted::UnknownFlow),
            ] {
                for (client, server) in PAIRS {
                    let before = bench.counted();
                    let segment = frame(&tuple(client, server), flags, IRS, SeqNum::new(77), &[], &[]);
                    assert_eq!(bench.at(Hook::Loopback, &segment), Fate::Dropped, "{flags:?}");
                    let expected = match why {
                        Counted::BadCookie => vec![Counted::CookiesBadMac, why, Counted::SampledBogus],
                        Counted::UnknownFlow => vec![why],
                        _ => vec![why, Counted::SampledBogus],
                    };
                    let expected: Vec<_> = expected.into_iter().map(|what| what as usize).collect();
                    assert_eq!(bench.counted_since(&before), expected, "{flags:?}");
                }
            }
            assert_eq!(bench.take_reports(), []);
        }
    });
}

/// What the raw tier tells of a bad cookie, the programs tell too.
#[test]
fn a_bad_cookie_is_counted_for_what_is_wrong_with_it() {
    const MAX: u32 = 8;
    on_bench(CALM, |bench| {
        let _listening = listen();
        for words in [LOOKS_UP, PRESSED] {
            for (client, server) in PAIRS {
                bench.set_time(bench.now + Duration::from_secs(1));
                bench.order(ListenerWords { bad_cookies_max: MAX, ..words });
                let flow = tuple(client, server);
                for offer in OFFERS {
                    let good = minted(bench, &flow, &offer);
                    let mut refused_with = |isn: u32| {
                        let ack = third_ack(&flow, IRS, &Cookie { isn: SeqNum::new(isn), ..good }, &[]);
                        refusal(bench, &ack, "a bad cookie")
                    };
                    assert_eq!(refused_with(good.isn.value() ^ 1), Counted::CookiesBadMac);
                    // Of four epochs that the number can name the one before the last is over.
                    let over = (EPOCH.0 as u32).wrapping_sub(2) << 30;
                    assert_eq!(refused_with(over | good.isn.value() & 0x3fff_ffff), Counted::CookiesExpired);
                }
                guess(bench, &flow, 2 * MAX);
                let [wide, narrow] = [[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1].as_slice(), &[]]
                    .map(|options| frame(&flow, Flags::ACK, IRS, SeqNum::new(77), options, &[]));
                assert_eq!(refusal(bench, &narrow, "over the budget"), Counted::CookiesOverBudget);
                assert_eq!(refusal(bench, &wide, "form A is looked at"), Counted::CookiesBadMac);
                bench.order(ListenerWords { form_b_always: false, bad_cookies_max: MAX, ..words });
                assert_eq!(refusal(bench, &narrow, "none was sent"), Counted::CookiesNotExpected);
                assert_eq!(refusal(bench, &wide, "form A needs no gate"), Counted::CookiesBadMac);
            }
        }
    });
}

/// How many of so many bad ACKs without timestamps from an address are dropped: all of them.
fn guess(bench: &mut Bench, flow: &FourTuple, count: u32) {
    for number in 0..count {
        let ack = frame(flow, Flags::ACK, IRS, SeqNum::new(number), &[], &[]);
        assert_refused(bench, &ack, "a guess");
    }
}

/// A prefix that guesses loses form B for a while, the weak one, but for those of its addresses that do not guess.
#[test]
fn a_prefix_over_its_budget_of_bad_cookies_keeps_form_a_alone() {
    for words in [LOOKS_UP, PRESSED] {
        keeps_form_a_alone(words);
    }
}

fn keeps_form_a_alone(words: ListenerWords) {
    const MAX: u32 = 20;
    on_bench(ListenerWords { bad_cookies_max: MAX, ..words }, |bench| {
        let _listening = listen();
        let clients = [
            ["198.18.3.1:4000", "198.18.3.2:4000", "198.18.3.3:4000", "198.18.4.1:4000"],
            ["[2001:db8:0:3::1]:4000", "[2001:db8:0:3::2]:4000", "[2001:db8:0:3::3]:4000", "[2001:db8:0:4::1]:4000"],
        ];
        for ((_, server), clients) in PAIRS.into_iter().zip(clients) {
            let [loud, quiet, louder, elsewhere] = clients.map(|client| tuple(client, server));
            let good = |bench: &mut Bench, flow: &FourTuple, offer: &Offer| {
                let cookie = minted(bench, flow, offer);
                is_taken(bench, &third_ack(flow, IRS, &cookie, &[]))
            };
            guess(bench, &loud, MAX - 1);
            assert!(good(bench, &loud, &OFFER_B), "within the budget");
            guess(bench, &loud, 1);
            assert!(!good(bench, &loud, &OFFER_B), "beyond it");
            assert!(good(bench, &quiet, &OFFER_B), "its neighbour did not guess");
            guess(bench, &louder, 16);
            guess(bench, &quiet, MAX - 16);
            assert!(!good(bench, &quiet, &OFFER_B), "twice the budget is the end for everyone");
            for flow in [loud, quiet, louder] {
                assert!(good(bench, &flow, &OFFER_A), "form A is always looked at");
            }
            assert!(good(bench, &elsewhere, &OFFER_B), "another prefix is not affected");
            bench.set_time(bench.now + Duration::from_millis(135));
            assert!(good(bench, &loud, &OFFER_B), "a new period");
        }
    });
}
