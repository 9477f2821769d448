//! The checklist: LISTEN, SYN-RECEIVED and the step to ESTABLISHED.

use super::*;

#[test]
fn spec_01_listen_rst_is_ignored_and_a_bad_ack_is_reset_with_its_own_number() {
    let mut bench = Bench::new();
    assert_eq!(dropped(bench.send(USUAL, Flags::RST, IRS, 0, BARE)), DropReason::Reset);
    assert_eq!(dropped(bench.send(USUAL, Flags::RST | Flags::ACK, IRS, 9, BARE)), DropReason::Reset);
    let rst = reply(bench.send(USUAL, Flags::ACK, IRS, 0xdead_beef, BARE));
    assert_eq!((rst.flags, rst.seq), (Flags::RST, SeqNum::new(0xdead_beef)));
    let rst = reply(bench.send(USUAL, Flags::FIN | Flags::ACK, IRS, 7, BARE));
    assert_eq!((rst.flags, rst.seq), (Flags::RST, SeqNum::new(7)));
    assert_eq!(bench.syn(USUAL, BARE).flags, Flags::SYN | Flags::ACK);
}

#[test]
fn spec_02_a_port_that_is_not_guarded_is_left_to_the_kernel() {
    let mut bench = Bench::new();
    for to in ["198.18.0.1:82", "198.18.0.3:81"] {
        let client = Client { to, ..USUAL };
        assert_eq!(dropped(bench.send(client, Flags::SYN, IRS, 0, BARE)), DropReason::NotGuarded);
        assert_eq!(dropped(bench.send(client, Flags::ACK, IRS, 5, BARE)), DropReason::NotGuarded);
    }
}

#[test]
fn spec_03_syn_received_rst_is_judged_by_rfc_5961() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    // Outside the window: dropped.
    assert_eq!(dropped(bench.send(USUAL, Flags::RST, IRS, 0, BARE)), DropReason::Reset);
    assert_eq!(dropped(bench.send(USUAL, Flags::RST, IRS + 1 + 65535, 0, BARE)), DropReason::Reset);
    assert_eq!(bench.listen.half_open.len(), 1);
    // In the window but not exact: a challenge ACK.
    let challenge = reply(bench.send(USUAL, Flags::RST, IRS + 2, 0, BARE));
    assert_eq!((challenge.flags, challenge.seq, challenge.ack), (Flags::ACK, syn_ack.seq + 1, IRS + 1));
    assert_eq!(u32::from(challenge.window) << 7 | 0x7f, 65535, "scaled, as all but a SYN-ACK's is");
    assert_eq!(challenge.options.timestamps.unwrap().tsecr, 5000);
    assert_eq!(bench.listen.half_open.len(), 1);
    // Exact: back to LISTEN, silently.
    assert_eq!(dropped(bench.send(USUAL, Flags::RST, IRS + 1, 0, BARE)), DropReason::Reset);
    assert_eq!(bench.listen.half_open.len(), 0);
    assert_eq!((bench.count(Counter::HalfOpenReset), bench.count(Counter::ChallengeAcksSent)), (1, 1));
}

#[test]
fn spec_04_syn_received_ack_out_of_range_is_reset_while_calm_and_dropped_under_pressure() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    for wrong in [syn_ack.seq, syn_ack.seq + 2, syn_ack.seq + 1000] {
        let rst = reply(bench.send(USUAL, Flags::ACK, IRS + 1, wrong.value(), echo(&syn_ack)));
        assert_eq!((rst.flags, rst.seq), (Flags::RST, wrong));
    }
    assert_eq!(bench.listen.half_open.len(), 1);
    let _ = accepted(bench.ack(USUAL, &syn_ack));
    let mut bench = Bench::under_pressure();
    assert_eq!(dropped(bench.send(USUAL, Flags::ACK, IRS + 1, 77, BARE)), DropReason::BadCookie);
}

#[test]
fn spec_05_a_repeated_syn_gets_the_same_syn_ack_and_a_new_isn_a_new_handshake() {
    for mut bench in [Bench::new(), Bench::under_pressure()] {
        let first = bench.syn(USUAL, EVERYTHING);
        bench.now = bench.now + Duration::from_secs(1);
        let again = bench.syn(USUAL, EVERYTHING);
        assert_eq!((again.seq, again.ack), (first.seq, first.ack));
        let other = reply(bench.send(USUAL, Flags::SYN, IRS + 100, 0, EVERYTHING));
        assert_ne!(other.seq, first.seq);
        assert_eq!(other.ack, IRS + 101);
        // Either can be completed.
        let ack = bench.send(USUAL, Flags::ACK, IRS + 101, (other.seq + 1).value(), echo(&other));
        assert_eq!(accepted(ack).irs, IRS + 100);
    }
}

#[test]
fn spec_05_a_second_syn_on_the_tuple_does_not_undo_the_first() {
    let mut bench = Bench::new();
    let first = bench.syn(USUAL, EVERYTHING);
    let _ = bench.send(USUAL, Flags::SYN, IRS + 100, 0, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &first));
    assert_eq!((accepted.via, accepted.irs), (Via::Queue, IRS));
}

#[test]
fn spec_06_a_syn_for_a_connection_of_the_kernel_is_the_kernels() {
    let mut bench = Bench::new();
    bench.host.sockets.insert(seen(USUAL));
    assert_eq!(dropped(bench.send(USUAL, Flags::SYN, IRS, 0, EVERYTHING)), DropReason::KernelOwns);
    assert_eq!(dropped(bench.send(USUAL, Flags::ACK, IRS, 1, EVERYTHING)), DropReason::KernelOwns);
    assert_eq!(dropped(bench.send(USUAL, Flags::SYN | Flags::ACK, IRS, 1, EVERYTHING)), DropReason::KernelOwns);
}

#[test]
fn spec_06_an_adopted_connection_is_the_kernels_under_pressure_too() {
    let mut bench = Bench::under_pressure();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    let _ = bench.established(&accepted);
    assert_eq!(dropped(bench.send(USUAL, Flags::SYN, IRS + 5, 0, EVERYTHING)), DropReason::KernelOwns);
    assert_eq!(dropped(bench.ack(USUAL, &syn_ack)), DropReason::KernelOwns);
    assert!(bench.host.destroyed.is_empty());
}

#[test]
fn spec_08_challenge_acks_are_limited_by_the_prefix_not_by_a_global_count() {
    let mut bench = Bench::with(|config| config.replies_per_prefix = 50);
    let near = Client { from: "198.18.7.7:1", ..USUAL };
    let _ = bench.syn(near, EVERYTHING);
    let _ = bench.syn(USUAL, EVERYTHING);
    let mut challenges = 0;
    while matches!(bench.send(near, Flags::RST, IRS + 2, 0, BARE), Disposition::Reply(_)) {
        challenges += 1;
    }
    assert!(challenges <= 10, "{challenges}");
    let _ = reply(bench.send(USUAL, Flags::RST, IRS + 2, 0, BARE));
}

#[test]
fn spec_09_data_in_a_syn_is_not_acknowledged_and_comes_again() {
    let mut bench = Bench::new();
    let syn_ack = reply(bench.send_data(USUAL.into(), Flags::SYN, IRS, 0, EVERYTHING, b"early"));
    assert_eq!(syn_ack.ack, IRS + 1);
    let ack = bench.send_data(USUAL.into(), Flags::ACK, IRS + 1, (syn_ack.seq + 1).value(), echo(&syn_ack), b"early");
    let accepted = accepted(ack);
    assert_eq!(bench.listen.early_data(&accepted.tuple), b"early");
}

#[test]
fn spec_10_data_with_and_behind_the_third_segment_is_kept_once_and_in_order() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let ack = (syn_ack.seq + 1).value();
    let tuple = FourTuple::from(USUAL);
    let accepted = accepted(bench.send_data(tuple, Flags::ACK, IRS + 1, ack, echo(&syn_ack), b"one "));
    let mut more = |offset: u32, payload: &[u8]| {
        let data = bench.send_data(tuple, Flags::ACK, IRS + 1 + offset, ack, echo(&syn_ack), payload);
        assert!(matches!(data, Disposition::Captured));
    };
    more(8, b"later");
    more(4, b"two ");
    more(0, b"one two ");
    more(2, b"e two three");
    assert_eq!(bench.listen.early_data(&accepted.tuple), b"one two three");
    let after = bench.established(&accepted);
    let ack = after.ack.unwrap();
    assert_eq!((ack.flags, ack.seq, ack.ack), (Flags::ACK, syn_ack.seq + 1, IRS + 1 + 13));
    let [clock, fin] = after.repeated;
    assert_eq!((clock.unwrap().seq, fin), (IRS + 1, None));
}

#[test]
fn spec_10_early_data_is_bounded() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    for offset in (0..40_000).step_by(1000) {
        let ack = (syn_ack.seq + 1).value();
        let _ = bench.send_data(USUAL.into(), Flags::ACK, IRS + 1 + offset, ack, echo(&syn_ack), &[1; 1000]);
    }
    assert_eq!(bench.listen.early_data(&accepted.tuple).len(), crate::EARLY_DATA_MAX_BYTES);
}

#[test]
fn spec_11_a_syn_ack_out_of_the_blue_is_refused() {
    let mut bench = Bench::new();
    let rst = reply(bench.send(USUAL, Flags::SYN | Flags::ACK, IRS, 4242, EVERYTHING));
    assert_eq!((rst.flags, rst.seq), (Flags::RST, SeqNum::new(4242)));
}

#[test]
fn spec_12_a_fin_behind_the_handshake_is_repeated_to_the_socket() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let ack = (syn_ack.seq + 1).value();
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    let fin = Flags::FIN | Flags::ACK;
    let _ = bench.send_data(USUAL.into(), fin, IRS + 1, ack, echo(&syn_ack), b"bye");
    let after = bench.established(&accepted);
    let repeated = after.repeated[1].unwrap();
    assert_eq!((repeated.flags, repeated.seq, repeated.ack), (fin, IRS + 4, syn_ack.seq + 1));
    assert_eq!(repeated.tuple, FourTuple::from(USUAL), "in the client's name");
    assert!(after.ack.is_none(), "the kernel acknowledges the FIN and all before it");
}

#[test]
fn spec_12_a_reset_behind_the_handshake_reaches_the_socket() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    assert!(matches!(bench.send(USUAL, Flags::RST, IRS + 1, 0, BARE), Disposition::Captured));
    let [reset, none] = bench.established(&accepted).repeated;
    assert_eq!((reset.unwrap().flags, reset.unwrap().seq, none), (Flags::RST, IRS + 1, None));
}

#[test]
fn spec_13_14_time_wait_is_the_kernels_until_it_lets_go() {
    let mut bench = Bench::new();
    bench.host.sockets.insert(seen(USUAL));
    // The kernel answers a SYN that TIME-WAIT does not accept, and removes the socket for one it does (RFC 6191).
    assert_eq!(dropped(bench.send(USUAL, Flags::SYN, IRS, 0, EVERYTHING)), DropReason::KernelOwns);
    bench.host.sockets.clear();
    let _ = bench.syn(USUAL, EVERYTHING);
}

#[test]
fn spec_14_a_new_handshake_completed_on_a_held_tuple_removes_the_old_socket() {
    let mut bench = Bench::under_pressure();
    let first = bench.syn(USUAL, EVERYTHING);
    let old = accepted(bench.ack(USUAL, &first));
    let _ = bench.established(&old);
    // The client reboots; its SYN slips through while the cache has forgotten the connection.
    bench.listen.held.forget(&old.tuple);
    let second = reply(bench.send(USUAL, Flags::SYN, IRS + 9999, 0, EVERYTHING));
    bench.listen.held.adopted(&old.tuple, old.iss, bench.now);
    let ack = bench.send(USUAL, Flags::ACK, IRS + 10_000, (second.seq + 1).value(), echo(&second));
    assert_eq!(accepted(ack).irs, IRS + 9999);
    assert_eq!(bench.host.destroyed, [old.tuple]);
    assert_eq!(bench.count(Counter::OldSocketsDestroyed), 1);
}

#[test]
fn a_guessed_cookie_without_timestamps_ends_nobodys_connection() {
    let mut bench = Bench::under_pressure();
    let first = bench.syn(USUAL, EVERYTHING);
    let old = accepted(bench.ack(USUAL, &first));
    let _ = bench.established(&old);
    // As if one of 2^25 guesses had hit.
    let mut node = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
    let offer = Offer { mss: 536, wscale: None, sack: false, tsval: None };
    let hit = node.mint(&seen(USUAL), IRS + 77, &offer, bench.now);
    let guess = bench.send(USUAL, Flags::ACK, IRS + 78, (hit.isn + 1).value(), BARE);
    assert_eq!(dropped(guess), DropReason::KernelOwns);
    assert!(bench.host.destroyed.is_empty());
    assert_eq!(bench.count(Counter::RefusedTupleBusy), 1);
    // Once the kernel has let go, the same cookie is a handshake like any other.
    bench.host.sockets.clear();
    let _ = accepted(bench.send(USUAL, Flags::ACK, IRS + 78, (hit.isn + 1).value(), BARE));
}

#[test]
fn connections_known_from_before_are_not_charged_for_bad_cookies_when_the_ration_is_gone() {
    let mut bench = Bench::with(|config| config.bad_cookies_per_prefix = 100);
    bench.host.sockets.insert(seen(USUAL));
    assert_eq!(dropped(bench.send(USUAL, Flags::ACK, IRS, 7, BARE)), DropReason::KernelOwns);
    bench.now = bench.now + Duration::from_secs(30);
    while bench.listen.questions.take(bench.now) {}
    for n in 0..100 {
        assert_eq!(dropped(bench.send(USUAL, Flags::ACK, IRS + n, 7, BARE)), DropReason::KernelOwns);
    }
    let syn_ack = bench.syn(USUAL_AT, EVERYTHING);
    let _ = accepted(bench.ack(USUAL_AT, &syn_ack));
}

#[test]
fn spec_23_isns_of_neighbouring_connections_are_unrelated() {
    let mut bench = Bench::new();
    let isns: Vec<u32> =
        (1..=200).map(|port| bench.syn(USUAL_AT.port(port), EVERYTHING).seq.value() & 0x3fff_ffff).collect();
    let steps: HashSet<u32> = isns.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert_eq!(steps.len(), 199);
    let ones: u32 = isns.iter().map(|isn| isn.count_ones()).sum();
    // 200 draws of 30 fair bits: mean 3000, standard deviation 39.
    assert!((2800..=3200).contains(&ones), "{ones} of 6000 bits set");
}

#[test]
fn spec_24_every_syn_ack_is_a_cookie_whether_or_not_an_entry_is_kept() {
    for timestamps in [EVERYTHING.timestamps, None] {
        let options = ReplyOptions { timestamps, ..EVERYTHING };
        let mut bench = Bench::new();
        let syn_ack = bench.syn(USUAL, options);
        // The entry is lost, as in a restart within a cookie's lifetime.
        bench.listen.half_open.remove(&seen(USUAL));
        bench.listen.shared.pressure.cookie_sent(bench.now);
        let accepted = accepted(bench.ack(USUAL, &syn_ack));
        assert_eq!(accepted.via, Via::Cookie);
        assert_eq!((accepted.irs, accepted.iss), (IRS, syn_ack.seq));
        assert_eq!(accepted.options.peer_mss, 1460);
        assert!(accepted.options.sack);
    }
}

#[test]
fn spec_25_the_syn_ack_is_repeated_with_backoff_and_then_given_up() {
    for client in [USUAL, Client { from: "[2001:db8::2]:40000", to: "[2001:db8::1]:80" }] {
        repeated_and_given_up(client);
    }
}

fn repeated_and_given_up(client: Client) {
    let mut bench = Bench::new();
    let first = bench.syn(client, EVERYTHING);
    let start = bench.now;
    let mut times = Vec::new();
    for _ in 0..100 {
        for again in bench.pass(Duration::from_millis(200)) {
            assert_eq!(again, first);
            times.push(bench.now.since(start).as_secs_f64().round() as u64);
        }
    }
    assert_eq!(times, [1, 3, 7]);
    assert_eq!(bench.listen.half_open.len(), 0);
    assert_eq!((bench.count(Counter::SynAcksRetransmitted), bench.count(Counter::HalfOpenTimedOut)), (3, 1));
}

#[test]
fn spec_25_a_cookie_without_an_entry_is_not_repeated() {
    let mut bench = Bench::under_pressure();
    let before = bench.listen.half_open.len();
    let _ = bench.syn(USUAL, EVERYTHING);
    assert_eq!(bench.listen.half_open.len(), before);
    let repeated = bench.pass(Duration::from_secs(20));
    assert!(repeated.iter().all(|reply| reply.tuple != seen(USUAL)));
}

#[test]
fn spec_25_under_pressure_no_syn_ack_is_repeated_but_to_who_has_proved_to_be_there() {
    let mut bench = Bench::with(|config| {
        config.half_open_max = 8;
        config.prefix_share_percent = 100;
    });
    let live = USUAL.port(7);
    let syn_ack = bench.syn(live, EVERYTHING);
    let waiting = accepted(bench.ack(live, &syn_ack));
    assert!(bench.listen.refused(&waiting, Refusal::AcceptQueueFull, bench.now).is_none());
    for port in 1..=8 {
        let _ = bench.syn(Client { from: "198.18.9.9:1", ..USUAL }.port(port), EVERYTHING);
    }
    assert_eq!(bench.listen.shared.mode(), Mode::Cookies);
    let repeated = bench.pass(Duration::from_millis(1400));
    assert!(repeated.len() == 1 && repeated[0].tuple.peer == live.local, "{repeated:?}");
    assert_eq!(bench.count(Counter::SynAcksRetransmitted), 1);
}

#[test]
fn spec_26_a_lost_third_segment_is_made_up_for_by_data_or_by_the_repeated_syn_ack() {
    let mut bench = Bench::new();
    let _ = bench.syn(USUAL, EVERYTHING);
    // A client in ESTABLISHED answers the repeated SYN-ACK with a challenge ACK, which is the lost segment once more.
    let repeated = bench.pass(Duration::from_millis(1400));
    assert_eq!(repeated.len(), 1);
    let _ = accepted(bench.ack(USUAL, &repeated[0]));
    let mut bench = Bench::under_pressure();
    let other = bench.syn(USUAL, EVERYTHING);
    let ack = (other.seq + 1).value();
    let data = bench.send_data(USUAL.into(), Flags::ACK | Flags::PSH, IRS + 1, ack, echo(&other), b"hello");
    let accepted = accepted(data);
    assert_eq!((accepted.via, bench.listen.early_data(&accepted.tuple)), (Via::Cookie, &b"hello"[..]));
}

#[test]
fn spec_26_a_keepalive_makes_up_for_a_lost_third_segment() {
    let mut bench = Bench::under_pressure();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let ack = (syn_ack.seq + 1).value();
    let keepalive = bench.send(USUAL, Flags::ACK, IRS, ack, echo(&syn_ack));
    assert_eq!(accepted(keepalive).irs, IRS);
}

#[test]
fn data_on_a_connection_that_is_no_more_is_reset_even_if_it_is_the_first() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    let _ = bench.established(&accepted);
    bench.host.sockets.clear();
    bench.now = bench.now + Duration::from_secs(5);
    let ack = (syn_ack.seq + 1).value();
    let data = bench.send_data(USUAL.into(), Flags::ACK, IRS + 1, ack, echo(&syn_ack), b"anyone?");
    assert_eq!(reply(data).flags, Flags::RST);
}

/// A SYN-ACK and what its ACK makes of the connection must tell the same story.
#[test]
fn spec_05_a_repeated_syn_with_other_options_gets_what_it_asks_for() {
    let with_mss = |mss, options: ReplyOptions| ReplyOptions { mss: Some(mss), ..options };
    let bare = with_mss(1460, BARE);
    for (first, second) in [
        (EVERYTHING, bare),
        (bare, EVERYTHING),
        (EVERYTHING, with_mss(536, EVERYTHING)),
        // As one to form B.
        (with_mss(1460, BARE), with_mss(1470, BARE)),
    ] {
        for (answered, offered) in [(0, first), (1, second)] {
            let mut bench = Bench::new();
            let syn_acks = [bench.syn(USUAL, first), bench.syn(USUAL, second)];
            let syn_ack = &syn_acks[answered];
            assert_eq!(syn_ack.options.timestamps.is_some(), offered.timestamps.is_some());
            assert_eq!(syn_ack.options.wscale.is_some(), offered.wscale.is_some());
            let options = accepted(bench.ack(USUAL, syn_ack)).options;
            assert_eq!(options.timestamps.is_some(), offered.timestamps.is_some());
            assert_eq!(options.peer_wscale, offered.wscale);
            if answered == 1 {
                assert!(options.peer_mss <= offered.mss.unwrap(), "{options:?}");
            }
        }
    }
}

#[test]
fn spec_26_an_answer_to_an_earlier_syn_ack_of_the_same_isn_counts() {
    let mut bench = Bench::under_pressure();
    let first = bench.syn(USUAL, EVERYTHING);
    // Calm again, a second later; the client has not had the answer yet.
    for _ in 0..30 {
        let _ = bench.pass(Duration::from_secs(1));
        bench.listen.review(Duration::from_secs(1));
    }
    assert_eq!(bench.listen.mode(), Mode::Queue);
    let again = ReplyOptions { timestamps: Some(TimestampOption { tsval: 35_000, tsecr: 0 }), ..EVERYTHING };
    let second = bench.syn(USUAL, again);
    let tsval = |syn_ack: &Reply| syn_ack.options.timestamps.unwrap().tsval;
    assert_eq!(first.seq, second.seq);
    assert_ne!(tsval(&first), tsval(&second), "the clock in it has moved on");
    assert_eq!(accepted(bench.ack(USUAL, &first)).via, Via::Cookie);
}
