//! Handshakes that complete when there is no room for a connection.

use super::*;

#[test]
fn a_full_accept_queue_keeps_the_handshake_until_there_is_room() {
    for mut bench in [Bench::new(), Bench::with(|config| config.prefix_share_percent = 100)] {
        let syn_ack = bench.syn(USUAL, EVERYTHING);
        let first = accepted(bench.ack(USUAL, &syn_ack));
        assert!(bench.listen.refused(&first, Refusal::AcceptQueueFull, bench.now).is_none());
        assert_eq!(bench.listen.half_open.len(), 1);
        // The repeated SYN-ACK makes the client ask again, and now there is room.
        let repeated = bench.pass(Duration::from_millis(1400));
        assert_eq!(repeated.len(), 1);
        let again = accepted(bench.ack(USUAL, &repeated[0]));
        assert_eq!(
            (again.iss, again.irs, again.options),
            (first.iss, first.irs, Negotiated { timestamps: again.options.timestamps, ..first.options })
        );
        let _ = bench.established(&again);
        assert_eq!(bench.listen.half_open.len(), 0);
        assert_eq!(bench.count(Counter::AcceptQueueOverflows), 1);
    }
}

#[test]
fn a_cookie_that_finds_no_room_becomes_an_entry_whose_syn_ack_is_the_same() {
    let mut bench = Bench::new();
    let mut node = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
    let offer = Offer { mss: 1460, wscale: Some(8), sack: true, tsval: Some(5000) };
    let cookie = node.mint(&seen(USUAL), IRS, &offer, bench.now);
    bench.now = bench.now + Duration::from_millis(100);
    let timestamps = Some(TimestampOption { tsval: 5001, tsecr: cookie.tsval.unwrap() });
    let ack = (cookie.isn + 1).value();
    let first = accepted(bench.send(USUAL, Flags::ACK, IRS + 1, ack, ReplyOptions { timestamps, ..BARE }));
    assert!(bench.listen.refused(&first, Refusal::NoDescriptors, bench.now).is_none());
    let repeated = bench.pass(Duration::from_millis(1400));
    assert_eq!((repeated[0].seq, repeated[0].options.timestamps.unwrap().tsval), (cookie.isn, cookie.tsval.unwrap()));
    let _ = accepted(bench.ack(USUAL, &repeated[0]));
}

#[test]
fn a_client_that_nobody_takes_is_told_so_in_the_end() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    let accepted = accepted(bench.ack(USUAL, &syn_ack));
    assert!(bench.listen.refused(&accepted, Refusal::NoMemory, bench.now).is_none());
    let sent = bench.pass(Duration::from_secs(20));
    let last = sent.last().unwrap();
    assert_eq!((last.flags, last.seq), (Flags::RST, syn_ack.seq + 1));
    assert_eq!(bench.listen.half_open.len(), 0);
}

#[test]
fn a_client_that_may_have_waited_for_a_process_is_not_told_so_in_the_end() {
    for (spared, told) in [(Duration::from_secs(10), true), (Duration::from_secs(60), false)] {
        let mut bench = Bench::new();
        bench.listen.spare_waiting_until(bench.now + spared);
        let syn_ack = bench.syn(USUAL, EVERYTHING);
        let accepted = accepted(bench.ack(USUAL, &syn_ack));
        assert!(bench.listen.refused(&accepted, Refusal::NoMemory, bench.now).is_none());
        let sent = bench.pass(Duration::from_secs(20));
        assert_eq!(sent.last().unwrap().flags == Flags::RST, told, "{spared:?}");
        assert_eq!((bench.count(Counter::ResetsSent), bench.listen.half_open.len()), (u64::from(told), 0));
    }
}

#[test]
fn a_refusal_without_hope_is_a_reset_and_a_busy_tuple_is_left_alone() {
    for (refusal, reset) in [(Refusal::Closed, true), (Refusal::System(5), true), (Refusal::TupleBusy, false)] {
        let mut bench = Bench::new();
        let syn_ack = bench.syn(USUAL, EVERYTHING);
        let accepted = accepted(bench.ack(USUAL, &syn_ack));
        let reply = bench.listen.refused(&accepted, refusal, bench.now);
        assert_eq!(reply.map(|reply| reply.flags), reset.then_some(Flags::RST));
    }
}

#[test]
fn draining_answers_no_syn_but_finishes_what_was_begun() {
    let mut bench = Bench::new();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    bench.listen.drain();
    assert_eq!(dropped(bench.send(USUAL_AT, Flags::SYN, IRS, 0, BARE)), DropReason::Draining);
    let _ = accepted(bench.ack(USUAL, &syn_ack));
}

#[test]
fn a_link_local_client_keeps_its_interface() {
    let mut bench = Bench::new();
    let client = Client { from: "[fe80::2]:40000", to: "[fe80::1]:80" };
    let syn_ack = bench.syn(client, EVERYTHING);
    assert_eq!(accepted(bench.ack(client, &syn_ack)).scope_id, 2);
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    assert_eq!(accepted(bench.ack(USUAL, &syn_ack)).scope_id, 0);
}

#[test]
fn a_cookie_refused_a_while_after_it_was_accepted_still_opens() {
    let mut bench = Bench::under_pressure();
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    bench.now = bench.now + Duration::from_millis(10);
    let first = accepted(bench.ack(USUAL, &syn_ack));
    // Others came first.
    bench.now = bench.now + Duration::from_millis(30);
    assert!(bench.listen.refused(&first, Refusal::NoDescriptors, bench.now).is_none());
    bench.now = bench.now + Duration::from_millis(200);
    let _ = accepted(bench.ack(USUAL, &syn_ack));
}

#[test]
fn of_two_handshakes_on_a_tuple_the_one_that_is_complete_is_kept() {
    let mut bench = Bench::new();
    let entry = bench.syn(USUAL, EVERYTHING);
    let other = reply(bench.send(USUAL, Flags::SYN, IRS + 1000, 0, EVERYTHING));
    assert_ne!(entry.seq, other.seq);
    let ack = (other.seq + 1).value();
    let complete = accepted(bench.send(USUAL, Flags::ACK, IRS + 1001, ack, echo(&other)));
    assert!(bench.listen.refused(&complete, Refusal::AcceptQueueFull, bench.now).is_none());
    let repeated = bench.pass(Duration::from_millis(1400));
    assert_eq!((repeated.len(), repeated[0].seq, repeated[0].ack), (1, other.seq, IRS + 1001));
    assert_eq!(bench.listen.half_open.len(), 1);
}
