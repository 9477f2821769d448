//! Third segments: which cookies are taken for a handshake, and which are not.
//!
//! Run on a single packet, the kernel does everything but the last step: the packet is not really at tc ingress, and it
//! refuses to make a connection of it. What got that far is counted as `AssignRefused`; `connections` goes all the way.

use std::net::TcpListener;

use super::*;
use crate::cookie::{Cookie, Offer};

pub(super) const OFFER_A: Offer = Offer { mss: 1460, wscale: Some(8), sack: true, tsval: Some(5000) };
pub(super) const OFFER_B: Offer = Offer { mss: 1440, wscale: Some(5), sack: true, tsval: None };
pub(super) const OFFERS: [Offer; 2] = [OFFER_A, OFFER_B];
pub(super) const IRS: SeqNum = SeqNum::new(0xffff_ffff);
pub(super) const LOOKS_UP: ListenerWords = ListenerWords { looks_up: true, bad_cookies_max: 30_000, ..CALM };

/// The last segment of a handshake that was answered with this cookie.
pub(super) fn third_ack(flow: &FourTuple, irs: SeqNum, cookie: &Cookie, payload: &[u8]) -> Vec<u8> {
    third_ack_at(5001, flow, irs, cookie, payload)
}

/// The same by a client whose clock stands there.
pub(super) fn third_ack_at(tsval: u32, flow: &FourTuple, irs: SeqNum, cookie: &Cookie, payload: &[u8]) -> Vec<u8> {
    let mut options = Vec::new();
    if let Some(tsecr) = cookie.tsval {
        options = [&[1, 1, 8, 10][..], &tsval.to_be_bytes(), &tsecr.to_be_bytes()].concat();
    }
    frame(flow, Flags::ACK, irs + 1, cookie.isn + 1, &options, payload)
}

pub(super) fn minted(bench: &mut Bench, flow: &FourTuple, offer: &Offer) -> Cookie {
    bench.jar.mint(flow, IRS, offer, NOW)
}

/// The two servers' listening sockets.
pub(super) fn listen() -> [TcpListener; 2] {
    [SERVER, SERVER_V6].map(|local| TcpListener::bind(local).unwrap())
}

/// Whether the cookie in this ACK is taken for good.
pub(super) fn is_taken(bench: &mut Bench, ack: &[u8]) -> bool {
    let taken = |bench: &Bench| bench.count(Counted::AssignRefused) + bench.count(Counted::CookiesValid);
    let before = taken(bench);
    let fate = bench.at(Hook::Loopback, ack);
    let since = taken(bench) - before;
    assert!(since == 0 || fate == Fate::Passed, "a good segment goes on to the kernel");
    since == 1
}

/// Checks that the ACK of no connection is refused: dropped for its cookie, and counted.
pub(super) fn assert_refused(bench: &mut Bench, ack: &[u8], what: &str) {
    refusal(bench, ack, what);
}

/// The same, and why.
pub(super) fn refusal(bench: &mut Bench, ack: &[u8], what: &str) -> Counted {
    // An address or port of no client is refused before its cookie is looked at.
    const BY_TUPLE: [Counted; 2] = [Counted::Martian, Counted::PortZero];
    const BY_COOKIE: [Counted; 3] = [Counted::CookiesExpired, Counted::CookiesBadMac, Counted::CookiesNotExpected];
    let before = bench.counted();
    assert_eq!(bench.at(Hook::Loopback, ack), Fate::Dropped, "{what}");
    let counted = bench.counted_since(&before);
    let is = |expected: &[Counted]| expected.iter().map(|&what| what as usize).eq(counted.iter().copied());
    BY_TUPLE
        .into_iter()
        .find(|&why| is(&[why]))
        .or_else(|| BY_COOKIE.into_iter().find(|&why| is(&[why, Counted::BadCookie, Counted::SampledBogus])))
        .or_else(|| {
            let why = Counted::CookiesOverBudget;
            is(&[why, Counted::SampledBogus]).then_some(why)
        })
        .unwrap_or_else(|| panic!("{what}: {counted:?}"))
}

#[test]
fn what_runs_ahead_of_a_lost_third_ack_is_dropped_and_not_refused() {
    on_bench(CALM, |bench| {
        let _listening = listen();
        for flow in [tuple(CLIENT, SERVER), tuple(CLIENT_V6, SERVER_V6)] {
            let segment = |bench: &mut Bench, seq: u32, ack: SeqNum| {
                let ack = frame(&flow, Flags::ACK | Flags::PSH, IRS + seq, ack, &[], b"more");
                bench.at(Hook::Loopback, &ack)
            };
            assert_eq!(segment(bench, 1449, IRS), Fate::Passed, "nobody's: the kernel's to refuse");
            let Fate::Sent(answer) = bench.at(Hook::Loopback, &syn(&flow, IRS, &[])) else { panic!("no answer") };
            let ack = packet(&answer).segment.seq + 1;
            assert_eq!(segment(bench, 1449, ack), Fate::Dropped);
            assert_eq!(segment(bench, 1, ack + 1), Fate::Passed, "of something never sent: the kernel's to refuse");
            // A RST is not for us to judge.
            assert_eq!(
                bench.at(Hook::Loopback, &frame(&flow, Flags::RST, IRS + 1, SeqNum::new(0), &[], &[])),
                Fate::Passed
            );
            bench.set_time(NOW + std::time::Duration::from_secs(40));
            assert_eq!(segment(bench, 1449, ack), Fate::Passed, "given up");
            bench.set_time(NOW);
        }
    });
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
                    assert_eq!(bench.counted_since(&before), [Counted::Draining as usize]);
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
