//! Third segments: which cookies are taken for a handshake, and which are not.
//!
//! Run on a single packet, the kernel does everything but the last step: the packet is not really at tc ingress, and it
//! refuses to make a connection of it. What got that far is counted as `AssignRefused`; `connections` goes all the way.

use std::net::TcpListener;
use std::time::Duration;

use super::super::layout::Kind;
use super::*;
use crate::cookie::{Cookie, Offer};

pub(super) const OFFER_A: Offer = Offer { mss: 1460, wscale: Some(8), sack: true, tsval: Some(5000) };
pub(super) const OFFER_B: Offer = Offer { mss: 1440, wscale: Some(5), sack: true, tsval: None };
pub(super) const OFFERS: [Offer; 2] = [OFFER_A, OFFER_B];
pub(super) const IRS: SeqNum = SeqNum::new(0xffff_ffff);
const LOOKS_UP: ListenerWords = ListenerWords { looks_up: true, bad_cookies_max: 30_000, ..CALM };

/// The last segment of a handshake that was answered with this cookie.
pub(super) fn third_ack(flow: &FourTuple, irs: SeqNum, cookie: &Cookie, payload: &[u8]) -> Vec<u8> {
    let mut options = Vec::new();
    if let Some(tsecr) = cookie.tsval {
        options = [&[1, 1, 8, 10][..], &5001u32.to_be_bytes(), &tsecr.to_be_bytes()].concat();
    }
    frame(flow, Flags::ACK, irs + 1, cookie.isn + 1, &options, payload)
}

fn minted(bench: &mut Bench, flow: &FourTuple, offer: &Offer) -> Cookie {
    bench.jar.mint(flow, IRS, offer, NOW)
}

/// The two servers' listening sockets.
pub(super) fn listen() -> [TcpListener; 2] {
    [SERVER, SERVER_V6].map(|local| TcpListener::bind(local).unwrap())
}

/// Whether the cookie in this ACK is taken for good.
fn is_taken(bench: &mut Bench, ack: &[u8]) -> bool {
    let taken = |bench: &Bench| bench.count(Counted::AssignRefused) + bench.count(Counted::CookiesValid);
    let before = taken(bench);
    let fate = bench.at(Hook::Loopback, ack);
    let since = taken(bench) - before;
    assert!(since == 0 || fate == Fate::Passed, "a good segment goes on to the kernel");
    since == 1
}

/// Checks that the ACK of no connection is refused: dropped for its cookie, and counted.
fn assert_refused(bench: &mut Bench, ack: &[u8], what: &str) {
    let before = bench.counted();
    assert_eq!(bench.at(Hook::Loopback, ack), Fate::Dropped, "{what}");
    let counted = bench.counted_since(&before);
    // An address or port of no client is refused before its cookie is looked at.
    let by_tuple = [Counted::Martian, Counted::PortZero].map(|why| vec![why as usize]);
    let by_cookie = vec![Counted::CookiesBadMac as usize, Counted::BadCookie as usize, Counted::SampledBogus as usize];
    assert!(counted == by_cookie || by_tuple.contains(&counted), "{what}: {counted:?}");
}

#[test]
fn a_good_cookie_of_either_form_is_taken() {
    on_bench(CALM, |bench| {
        let _listening = listen();
        for listener in [CALM, PRESSED, LOOKS_UP] {
            bench.order(listener);
            for (client, server) in PAIRS {
                for (offer, data) in OFFERS.into_iter().flat_map(|offer| [(offer, &b""[..]), (offer, b"hello")]) {
                    let flow = tuple(client, server);
                    let cookie = minted(bench, &flow, &offer);
                    let ack = third_ack(&flow, IRS, &cookie, data);
                    assert!(is_taken(bench, &ack), "{client} {offer:?} {listener:?}");
                    assert_eq!(bench.at_xdp(&ack), Fate::Passed, "the driver has no part in it");
                }
            }
        }
        assert_eq!((bench.count(Counted::BadCookie), bench.count(Counted::SampledBogus)), (0, 0));
    });
}

/// What the programs themselves sent, they take.
#[test]
fn the_programs_own_answer_is_taken() {
    on_bench(CALM, |bench| {
        let _listening = listen();
        for (hook, listener) in HOOKS.into_iter().flat_map(|hook| [(hook, CALM), (hook, PRESSED)]) {
            bench.order(listener);
            for (client, server) in PAIRS {
                for options in [LINUX, WINDOWS] {
                    let flow = tuple(client, server);
                    let Fate::Sent(answer) = bench.at(hook, &syn(&flow, IRS, options)) else { panic!("no answer") };
                    let sent = packet(&answer).segment;
                    let tsval = sent.options().timestamps.map(|ts| ts.tsval);
                    let ack = third_ack(&flow, IRS, &Cookie { isn: sent.seq, tsval }, &[]);
                    assert!(is_taken(bench, &ack), "{client} {options:?} {hook:?}");
                }
            }
        }
    });
}

#[test]
fn every_flipped_bit_of_a_cookie_is_refused() {
    on_bench(LOOKS_UP, |bench| {
        let _listening = listen();
        for (client, server) in PAIRS {
            for offer in OFFERS {
                let flow = tuple(client, server);
                let cookie = minted(bench, &flow, &offer);
                for bit in 0..32 {
                    let isn = SeqNum::new(cookie.isn.value() ^ 1 << bit);
                    let flipped = third_ack(&flow, IRS, &Cookie { isn, ..cookie }, &[]);
                    assert_refused(bench, &flipped, &format!("bit {bit} of the ISN, {offer:?}"));
                    let Some(tsval) = cookie.tsval else { continue };
                    let flipped = third_ack(&flow, IRS, &Cookie { tsval: Some(tsval ^ 1 << bit), ..cookie }, &[]);
                    assert_refused(bench, &flipped, &format!("bit {bit} of TSecr"));
                }
                for off_by in [1, u32::MAX] {
                    let off = third_ack(&flow, IRS, &Cookie { isn: cookie.isn + off_by, ..cookie }, &[]);
                    assert_refused(bench, &off, "off by one");
                }
                assert!(is_taken(bench, &third_ack(&flow, IRS, &cookie, &[])));
            }
        }
    });
}

#[test]
fn every_flipped_bit_of_the_clients_names_is_refused() {
    on_bench(LOOKS_UP, |bench| {
        let _listening = listen();
        for (client, server) in PAIRS {
            for offer in OFFERS {
                let flow = tuple(client, server);
                let cookie = minted(bench, &flow, &offer);
                for bit in 0..32 {
                    let ack = third_ack(&flow, SeqNum::new(IRS.value() ^ 1 << bit), &cookie, &[]);
                    assert_refused(bench, &ack, &format!("bit {bit} of the client's ISN, {offer:?}"));
                }
                for bit in 0..16 {
                    let mut other = flow;
                    other.peer.port ^= 1 << bit;
                    assert_refused(bench, &third_ack(&other, IRS, &cookie, &[]), &format!("bit {bit} of the port"));
                }
                for bit in 0..if flow.peer.addr.is_ipv4() { 32 } else { 128 } {
                    let mut other = flow;
                    other.peer.addr = flipped(flow.peer.addr, bit);
                    assert_refused(bench, &third_ack(&other, IRS, &cookie, &[]), &format!("bit {bit} of the address"));
                }
            }
        }
    });
}

fn flipped(addr: std::net::IpAddr, bit: usize) -> std::net::IpAddr {
    match addr {
        std::net::IpAddr::V4(addr) => (u32::from(addr) ^ 1 << bit).to_be_bytes().into(),
        std::net::IpAddr::V6(addr) => (u128::from(addr) ^ 1 << bit).to_be_bytes().into(),
    }
}

/// A cookie is bound to the address and port of ours that it was sent from.
#[test]
fn another_listeners_cookie_is_refused() {
    const OTHERS: [[&str; 2]; 2] = [["198.18.0.1:81", "127.0.0.1:80"], ["[2001:db8::1]:81", "[::1]:80"]];
    let guarded: Vec<&str> = [SERVER, SERVER_V6].into_iter().chain(OTHERS.concat()).collect();
    on_bench_for(&guarded, LOOKS_UP, |bench| {
        let _listening: Vec<_> = guarded.iter().map(|local| TcpListener::bind(local).unwrap()).collect();
        for ((client, server), others) in PAIRS.into_iter().zip(OTHERS) {
            for (offer, other) in OFFERS.into_iter().flat_map(|offer| others.map(|other| (offer, other))) {
                let (here, there) = (tuple(client, server), tuple(client, other));
                let cookie = minted(bench, &here, &offer);
                assert_refused(bench, &third_ack(&there, IRS, &cookie, &[]), other);
                let cookie = minted(bench, &there, &offer);
                assert!(is_taken(bench, &third_ack(&there, IRS, &cookie, &[])), "{other} has a listener");
            }
        }
    });
}

/// The form is part of the hash's input.
#[test]
fn a_cookie_of_one_form_does_not_pass_for_the_other() {
    on_bench(LOOKS_UP, |bench| {
        let _listening = listen();
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            let wide = minted(bench, &flow, &OFFER_A);
            assert_refused(bench, &third_ack(&flow, IRS, &Cookie { tsval: None, ..wide }, &[]), "A without TSecr");
            let narrow = minted(bench, &flow, &OFFER_B);
            for tsval in [Some(0), wide.tsval, Some(u32::MAX)] {
                assert_refused(bench, &third_ack(&flow, IRS, &Cookie { tsval, ..narrow }, &[]), "B with a TSecr");
            }
        }
    });
}

#[test]
fn form_b_is_refused_while_none_can_be_outstanding() {
    on_bench(CALM, |bench| {
        let _listening = listen();
        let gated = ListenerWords { form_b_always: false, ..LOOKS_UP };
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            let [wide, narrow] = OFFERS.map(|offer| third_ack(&flow, IRS, &minted(bench, &flow, &offer), &[]));
            for (until, open) in [(0, false), (NOW.as_nanos() - 1, false), (NOW.as_nanos(), true), (u64::MAX, true)] {
                bench.programs.listeners.set(0, gated.to_raw(until), 0).unwrap();
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

fn jar_at(epoch: Epoch) -> CookieJar {
    CookieJar::new(MasterKey::from_bytes([7; 32]), epoch)
}

#[test]
fn cookies_of_the_previous_the_current_and_the_next_epoch_are_taken() {
    on_bench(LOOKS_UP, |bench| {
        let _listening = listen();
        // Each of the four slots is the current one once.
        for current in EPOCH.0..EPOCH.0 + 4 {
            bench.jar.advance(Epoch(current), NOW);
            bench.give_keys();
            for (client, server) in PAIRS {
                for (offer, epoch) in OFFERS.into_iter().flat_map(|o| (current - 4..=current + 4).map(move |e| (o, e)))
                {
                    let flow = tuple(client, server);
                    let cookie = jar_at(Epoch(epoch)).mint(&flow, IRS, &offer, NOW);
                    let ack = third_ack(&flow, IRS, &cookie, &[]);
                    if epoch.abs_diff(current) <= 1 {
                        assert!(is_taken(bench, &ack), "epoch {epoch} at {current}");
                    } else {
                        assert_refused(bench, &ack, &format!("epoch {epoch} at {current}"));
                    }
                }
            }
        }
    });
}

#[test]
fn another_masters_cookie_is_refused() {
    on_bench(LOOKS_UP, |bench| {
        let _listening = listen();
        let mut other = CookieJar::new(MasterKey::from_bytes([8; 32]), EPOCH);
        for (client, server) in PAIRS {
            for offer in OFFERS {
                let flow = tuple(client, server);
                assert_refused(
                    bench,
                    &third_ack(&flow, IRS, &other.mint(&flow, IRS, &offer, NOW), &[]),
                    "a stranger's",
                );
            }
        }
    });
}

#[test]
fn a_jump_of_the_clock_refuses_no_cookie_that_was_valid() {
    on_bench(LOOKS_UP, |bench| {
        let _listening = listen();
        for far in [Epoch(EPOCH.0 + 4001), Epoch(EPOCH.0 - 900)] {
            bench.jar = jar_at(EPOCH);
            bench.jar.advance(far, NOW);
            bench.give_keys();
            for (client, server) in PAIRS {
                for offer in OFFERS {
                    let flow = tuple(client, server);
                    let ack_of =
                        |epoch| third_ack(&flow, IRS, &jar_at(Epoch(epoch)).mint(&flow, IRS, &offer, NOW), &[]);
                    for base in [EPOCH.0, far.0] {
                        for epoch in [base - 1, base, base + 1] {
                            assert!(is_taken(bench, &ack_of(epoch)), "epoch {epoch} at {far:?}");
                        }
                        for epoch in [base - 2, base + 2] {
                            assert_refused(bench, &ack_of(epoch), &format!("epoch {epoch} at {far:?}"));
                        }
                    }
                }
            }
            // Once the old cookies have died, their keys are gone.
            bench.jar.advance(far, NOW + crate::cookie::COOKIE_LIFETIME);
            bench.give_keys();
            let flow = tuple(CLIENT, SERVER);
            let old = jar_at(EPOCH).mint(&flow, IRS, &OFFER_A, NOW);
            assert_refused(bench, &third_ack(&flow, IRS, &old, &[]), "after its time");
        }
    });
}

/// No new handshake begins, but one that was answered may end.
#[test]
fn a_silent_or_draining_listener_answers_no_syn() {
    on_bench(CALM, |bench| {
        let _listening = listen();
        for (state, reports) in
            [(State::Silent, true), (State::Silent, false), (State::Draining, true), (State::Draining, false)]
        {
            bench.order(ListenerWords { state, reports, ..CALM });
            for (client, server) in PAIRS {
                let flow = tuple(client, server);
                for hook in HOOKS {
                    let before = bench.counted();
                    assert_eq!(bench.at(hook, &syn(&flow, IRS, LINUX)), Fate::Dropped, "{state:?}");
                    let expected = [Counted::SynsReceived, Counted::Draining].map(|what| what as usize);
                    assert_eq!(bench.counted_since(&before), expected);
                }
                for offer in OFFERS.into_iter().filter(|_| state == State::Draining) {
                    let cookie = minted(bench, &flow, &offer);
                    assert!(is_taken(bench, &third_ack(&flow, IRS, &cookie, &[])), "{offer:?}");
                }
            }
        }
        assert_eq!(bench.take_reports(), [], "the last step of a handshake is what is told, and it was not taken");
    });
}

#[test]
fn without_a_listening_socket_a_good_ack_passes_and_is_counted() {
    on_bench(LOOKS_UP, |bench| {
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            let ack = third_ack(&flow, IRS, &minted(bench, &flow, &OFFER_A), &[]);
            let before = bench.counted();
            assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Passed);
            assert_eq!(bench.counted_since(&before), [Counted::NoListener as usize]);
        }
    });
}

/// Where nobody guesses, bad cookies are connections' as far as anybody knows: one in 64 is looked up, and told.
#[test]
fn while_nobody_guesses_bad_cookies_pass_and_one_in_64_is_looked_up() {
    on_bench(CALM, |bench| {
        let _listening = listen();
        let flow = tuple(CLIENT, SERVER);
        for number in 0..200u32 {
            let ack = frame(&flow, Flags::ACK, IRS, SeqNum::new(number), &[], &[]);
            assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Passed);
        }
        assert_eq!((bench.count(Counted::UnknownPassed), bench.count(Counted::SampledBogus)), (200, 4));
        let told: Vec<_> = bench.take_reports().iter().map(|report| (report.kind, report.tuple)).collect();
        assert_eq!(told, [(Kind::Bogus, flow); 4]);
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
                    let mut expected = vec![why as usize, Counted::SampledBogus as usize];
                    if why == Counted::BadCookie {
                        expected.insert(0, Counted::CookiesBadMac as usize);
                    }
                    assert_eq!(bench.counted_since(&before), expected, "{flags:?}");
                }
            }
            assert_eq!(bench.take_reports(), []);
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
    const MAX: u32 = 20;
    on_bench(ListenerWords { bad_cookies_max: MAX, ..LOOKS_UP }, |bench| {
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
            bench.set_time(bench.now + Duration::from_millis(100));
            assert!(good(bench, &loud, &OFFER_B), "a new period");
        }
    });
}
