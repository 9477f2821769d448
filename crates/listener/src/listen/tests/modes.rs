//! The gates before a cookie, the budgets, and the way from calm to pressure and back.

use super::*;

#[test]
fn form_b_is_accepted_only_while_a_cookie_can_be_outstanding() {
    let no_timestamps = ReplyOptions { timestamps: None, ..EVERYTHING };
    let outcome = |accept_cookies, age: u64| {
        let mut bench = Bench::with(|config| config.accept_cookies = accept_cookies);
        bench.now = Time::from_secs(100 + age);
        // Made by another node with the same key.
        let mut node = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
        let offer = Offer { mss: 1460, wscale: Some(8), sack: true, tsval: None };
        let cookie = node.mint(&seen(USUAL), IRS, &offer, bench.now);
        let ack = bench.send(USUAL, Flags::ACK, IRS + 1, (cookie.isn + 1).value(), BARE);
        (matches!(ack, Disposition::Accept(_)), bench.count(Counter::CookiesNotExpected))
    };
    assert_eq!(no_timestamps.timestamps, None);
    assert_eq!(outcome(AcceptCookies::WhenExpected, 10), (true, 0), "a young process");
    assert_eq!(outcome(AcceptCookies::WhenExpected, 1000), (false, 1));
    assert_eq!(outcome(AcceptCookies::Always, 1000), (true, 0));
}

#[test]
fn form_a_of_another_node_is_accepted_any_time() {
    let mut bench = Bench::new();
    let mut node = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
    let offer = Offer { mss: 1460, wscale: Some(8), sack: true, tsval: Some(1) };
    let cookie = node.mint(&seen(USUAL), IRS, &offer, bench.now);
    let timestamps = Some(TimestampOption { tsval: 2, tsecr: cookie.tsval.unwrap() });
    let ack = bench.send(USUAL, Flags::ACK, IRS + 1, (cookie.isn + 1).value(), ReplyOptions { timestamps, ..BARE });
    assert_eq!(accepted(ack).options.peer_wscale, Some(8));
}

#[test]
fn a_flood_turns_to_cookies_and_calm_turns_back_each_once() {
    let mut bench = Bench::with(|config| config.half_open_max = 100);
    for n in 0..10_000u32 {
        let mut tuple = FourTuple::from(USUAL);
        tuple.local.addr = Ipv4Addr::from_bits(0xc612_0000 + 0x100 + n).into();
        let _ = bench.syn(tuple, EVERYTHING);
        assert!(bench.listen.half_open.len() <= 75);
    }
    assert_eq!(bench.listen.take_switch(), Some(Mode::Cookies));
    let client = Client { from: "198.19.1.1:7", ..USUAL };
    let syn_ack = bench.syn(client, EVERYTHING);
    assert_eq!(accepted(bench.ack(client, &syn_ack)).via, Via::Cookie);
    for _ in 0..30 {
        let _ = bench.pass(Duration::from_secs(1));
        bench.listen.review(Duration::from_secs(1));
    }
    assert_eq!(bench.listen.take_switch(), Some(Mode::Queue));
    assert_eq!(
        (bench.count(Counter::SwitchesToCookies), bench.count(Counter::SwitchesToQueue), bench.listen.half_open.len()),
        (1, 1, 0)
    );
    assert_eq!(bench.listen.shared.half_open(), 0);
}

#[test]
fn bad_cookies_of_one_prefix_are_soon_not_checked_any_more() {
    let mut bench = Bench::guessed_at();
    for port in 1..500 {
        let _ = bench.send(USUAL_AT.port(port), Flags::ACK, IRS, 5, BARE);
    }
    let checked = bench.count(Counter::CookiesBadMac) + bench.count(Counter::CookiesExpired);
    assert_eq!((checked, bench.count(Counter::CookiesOverBudget)), (50, 449));
    // Another prefix is not the worse for it.
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let _ = accepted(bench.ack(USUAL, &syn_ack));
}

#[test]
fn questions_to_the_kernel_are_rationed() {
    let mut bench = Bench::new();
    for n in 0..50_000u32 {
        let mut tuple = FourTuple::from(USUAL);
        tuple.local.addr = Ipv4Addr::from_bits(0xc612_0000 + 0x100 + n).into();
        let _ = bench.send(tuple, Flags::ACK, IRS, n, BARE);
    }
    assert!(bench.host.questions <= QUESTIONS_PER_SECOND as usize);
}

#[test]
fn established_traffic_costs_one_question_in_seconds() {
    let mut bench = Bench::new();
    bench.host.sockets.insert(seen(USUAL));
    for n in 0..1000 {
        let ack = bench.send(USUAL, Flags::ACK, IRS + n, 7, BARE);
        assert_eq!(dropped(ack), DropReason::KernelOwns);
    }
    assert_eq!(bench.host.questions, 1);
    assert_eq!(bench.count(Counter::CookiesBadMac) + bench.count(Counter::CookiesNotExpected), 0);
}

#[test]
fn the_ack_of_a_last_fin_is_not_reset_but_data_to_a_closed_connection_is() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    let _ = bench.established(&accepted);
    bench.now = bench.now + Duration::from_secs(60);
    bench.host.sockets.clear();
    let last = bench.send(USUAL, Flags::ACK, IRS + 500, (syn_ack.seq + 900).value(), echo(&syn_ack));
    assert_eq!(dropped(last), DropReason::KernelOwns);
    let ack = (syn_ack.seq + 900).value();
    let data = bench.send_data(USUAL.into(), Flags::ACK, IRS + 500, ack, echo(&syn_ack), b"anyone?");
    assert_eq!(reply(data).flags, Flags::RST);
    bench.now = bench.now + Duration::from_secs(2);
    let late = bench.send(USUAL, Flags::ACK, IRS + 500, ack, echo(&syn_ack));
    assert_eq!(reply(late).flags, Flags::RST);
}

#[test]
fn an_entry_that_is_guessed_at_leaves_the_handshake_to_the_cookie() {
    for options in [EVERYTHING, BARE] {
        let mut bench = Bench::with(|config| config.bad_cookies_per_prefix = 100);
        let syn_ack = bench.syn(USUAL, options);
        let guess = |bench: &mut Bench, n: u32| {
            reply(bench.send(USUAL, Flags::ACK, IRS + 1, (syn_ack.seq + 2 + n).value(), echo(&syn_ack)))
        };
        for n in 0..u32::from(Entry::GUESSES_MAX) {
            assert!(bench.listen.half_open.get(&seen(USUAL)).unwrap().is_open(), "{n}");
            assert_eq!(guess(&mut bench, n).flags, Flags::RST);
        }
        // The client itself is not shut out: its ACK counts by the cookie, and keeps its exact options.
        assert_eq!(bench.listen.half_open.len(), 1);
        assert_eq!(accepted(bench.ack(USUAL, &syn_ack)).via, Via::Cookie);
    }
}

#[test]
fn guesses_at_an_entry_are_bounded_by_the_budget_of_bad_cookies() {
    let mut bench = Bench::guessed_at();
    let syn_ack = bench.syn(USUAL, BARE);
    // Fifty in a tenth of a second: all that this prefix has.
    for n in 0..50 {
        let _ = bench.send(USUAL, Flags::ACK, IRS + 1, (syn_ack.seq + 2 + n).value(), BARE);
    }
    let right = bench.send(USUAL, Flags::ACK, IRS + 1, (syn_ack.seq + 1).value(), BARE);
    assert_eq!(dropped(right), DropReason::OverBudget);
    assert_eq!(bench.count(Counter::CookiesOverBudget), 1);
}

#[test]
fn a_reset_buys_no_fresh_entry_to_guess_at() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, BARE);
    let _ = bench.send(USUAL, Flags::ACK, IRS + 1, (syn_ack.seq + 2).value(), BARE);
    assert_eq!(dropped(bench.send(USUAL, Flags::RST, IRS + 1, 0, BARE)), DropReason::Reset);
    assert!(!bench.listen.half_open.get(&seen(USUAL)).unwrap().is_open());
    // It goes with its time, and says nothing more than any other.
    assert!(bench.pass(Duration::from_secs(20)).iter().all(|sent| sent.flags == Flags::SYN | Flags::ACK));
    assert_eq!((bench.listen.half_open.len(), bench.count(Counter::HalfOpenTimedOut)), (0, 1));
}

fn somebody(n: u32) -> FourTuple {
    let mut tuple = FourTuple::from(USUAL);
    tuple.local.addr = Ipv4Addr::from_bits(0xc613_0000 + n).into();
    tuple
}

#[test]
fn bursts_of_clients_do_not_keep_the_listener_under_pressure() {
    let mut bench = Bench::new();
    for n in 0..3072 {
        let _ = bench.syn(somebody(n << 2), EVERYTHING);
    }
    assert_eq!(bench.listen.mode(), Mode::Cookies);
    let mut clients = 0x10_0000;
    for _ in 0..120 {
        // Fifty at once, whose handshakes end in another tick than they began in.
        let begun: Vec<_> =
            (0..50).map(|n| (somebody(clients + n), bench.syn(somebody(clients + n), EVERYTHING))).collect();
        clients += 50;
        let _ = bench.pass(Duration::from_millis(200));
        for (client, syn_ack) in begun {
            let accepted = accepted(bench.ack(client, &syn_ack));
            let _ = bench.listen.established(&accepted, 0, bench.now);
        }
        let _ = bench.pass(Duration::from_millis(800));
        bench.listen.review(Duration::from_secs(1));
    }
    assert_eq!(bench.listen.mode(), Mode::Queue);
}

#[test]
fn bad_acks_in_the_name_of_a_prefix_do_not_shut_out_its_clients_with_timestamps() {
    for mut bench in [Bench::new(), Bench::under_pressure()] {
        bench.listen.bad_cookies = Budget::new(500, [1; 16]);
        let syn_ack = bench.syn(USUAL, EVERYTHING);
        for n in 0..900 {
            let mut neighbour = FourTuple::from(USUAL);
            neighbour.local.port = 2000 + n;
            let _ = bench.send(neighbour, Flags::ACK, IRS, u32::from(n), echo(&syn_ack));
        }
        let _ = accepted(bench.ack(USUAL, &syn_ack));
    }
}

#[test]
fn an_ack_that_nobody_looked_at_is_not_reset() {
    let mut bench = Bench::guessed_at();
    for port in 1..500 {
        let _ = bench.send(USUAL_AT.port(port), Flags::ACK, IRS, 5, BARE);
    }
    let mut node = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
    let offer = Offer { mss: 1460, wscale: None, sack: false, tsval: None };
    let cookie = node.mint(&seen(USUAL_AT), IRS, &offer, bench.now);
    let good = bench.send(USUAL_AT, Flags::ACK, IRS + 1, (cookie.isn + 1).value(), BARE);
    assert_eq!(dropped(good), DropReason::OverBudget);
}

#[test]
fn connections_the_kernel_holds_are_not_charged_when_it_cannot_be_asked() {
    let mut bench = Bench::new();
    // All of the second's questions are used up.
    for n in 0..QUESTIONS_PER_SECOND {
        let _ = bench.send(somebody(n << 2), Flags::ACK, IRS, n, BARE);
    }
    let bad = |bench: &Bench| bench.count(Counter::CookiesBadMac) + bench.count(Counter::CookiesNotExpected);
    let before = bad(&bench);
    for port in 1..6000 {
        let ack = bench.send(USUAL_AT.port(port), Flags::ACK, IRS, 5, BARE);
        assert_eq!(dropped(ack), DropReason::UnknownFlow);
    }
    assert_eq!(bad(&bench) - before, 5999);
    assert!(bench.listen.bad_cookies.has_left(seen(USUAL_AT).peer.addr, bench.now));
}
