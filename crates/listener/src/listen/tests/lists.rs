//! The operator's lists, asked at the SYN.

use super::*;
use crate::prefix_list::PrefixList;
use crate::sources::Denial;

const DENIED_V6: Client = Client { from: "[2001:db8::2]:40000", to: "[2001:db8::1]:80" };
/// A neighbour of the usual client, in its prefix and on no list.
const NEIGHBOUR: Client = Client { from: "198.18.0.9:40000", to: LOCAL };

fn denied(denial: Denial) -> Sources {
    let deny = PrefixList::parse("198.18.0.2\n2001:db8::2\n").unwrap();
    Sources::new(PrefixList::default(), deny, denial).unwrap()
}

fn listing(denial: Denial) -> Bench {
    let mut bench = Bench::new();
    bench.listen.set_sources(denied(denial));
    bench
}

#[test]
fn listen_denied_syn_is_refused_with_rst() {
    let mut bench = listing(Denial::Reset);
    for client in [USUAL, DENIED_V6] {
        let reset = reply(bench.send(client, Flags::SYN, IRS, 0, EVERYTHING));
        assert_eq!(reset.tuple, seen(client));
        assert_eq!((reset.flags, reset.seq, reset.ack), (Flags::RST | Flags::ACK, SeqNum::new(0), IRS + 1));
        assert_eq!((reset.window, reset.options), (0, BARE));
    }
    assert_eq!((bench.count(Counter::SynsReceived), bench.count(Counter::SynsDenied)), (2, 2));
    assert_eq!((bench.count(Counter::ResetsSent), bench.count(Counter::SynAcksSent)), (2, 0));
    assert_eq!(bench.listen.half_open.len(), 0);
}

/// RFC 9293 §3.10.7.1: the RST acknowledges all that came.
#[test]
fn listen_denied_syn_with_data_is_refused_behind_its_data() {
    let mut bench = listing(Denial::Reset);
    let reset = reply(bench.send_data(USUAL.into(), Flags::SYN, IRS, 0, BARE, b"hello"));
    assert_eq!(reset.ack, IRS + 6);
}

#[test]
fn listen_denied_syn_in_silence_is_dropped() {
    let mut bench = listing(Denial::Silent);
    for client in [USUAL, DENIED_V6] {
        assert_eq!(dropped(bench.send(client, Flags::SYN, IRS, 0, EVERYTHING)), DropReason::Denied);
    }
    assert_eq!((bench.count(Counter::SynsDenied), bench.listen.stats().dropped(DropReason::Denied)), (2, 2));
    assert_eq!(bench.count(Counter::ResetsSent), 0);
}

#[test]
fn listen_denied_flood_asks_nobody_and_leaves_the_neighbours_their_budget() {
    let mut bench = Bench::with(|config| config.replies_per_prefix = 100);
    bench.listen.set_sources(denied(Denial::Silent));
    for _ in 0..1000 {
        let _ = bench.send(USUAL, Flags::SYN, IRS, 0, EVERYTHING);
    }
    assert_eq!(bench.host.questions, 0, "the kernel is not asked for those who are denied");
    bench.syn(NEIGHBOUR, EVERYTHING);
}

#[test]
fn listen_denied_flood_is_refused_within_the_budget_of_its_prefix() {
    let mut bench = Bench::with(|config| config.replies_per_prefix = 200);
    bench.listen.set_sources(denied(Denial::Reset));
    for _ in 0..1000 {
        let _ = bench.send(USUAL, Flags::SYN, IRS, 0, EVERYTHING);
    }
    assert_eq!(bench.count(Counter::ResetsSent), 20, "a tenth of a second has a tenth of the budget");
    assert_eq!(bench.listen.stats().dropped(DropReason::OverBudget), 980);
    bench.syn(USUAL_AT, EVERYTHING);
}

#[test]
fn syn_received_then_denied_gets_no_syn_ack_again_and_its_ack_still_counts() {
    for denial in [Denial::Reset, Denial::Silent] {
        let mut bench = Bench::new();
        let syn_ack = bench.syn(USUAL, EVERYTHING);
        let _ = bench.syn(NEIGHBOUR, EVERYTHING);
        bench.listen.set_sources(denied(denial));
        let repeated = bench.pass(Duration::from_secs(4));
        assert!(!repeated.is_empty() && repeated.iter().all(|again| again.tuple == seen(NEIGHBOUR)), "{repeated:?}");
        // Whoever is asked next refuses it.
        accepted(bench.ack(USUAL, &syn_ack));
    }
}

#[test]
fn listen_taken_off_the_list_is_served() {
    let mut bench = listing(Denial::Silent);
    let _ = bench.send(USUAL, Flags::SYN, IRS, 0, EVERYTHING);
    bench.listen.set_sources(Sources::default());
    let syn_ack = bench.syn(USUAL, EVERYTHING);
    accepted(bench.ack(USUAL, &syn_ack));
}

#[test]
fn draining_denied_syn_is_dropped_as_any() {
    let mut bench = listing(Denial::Reset);
    bench.listen.drain();
    assert_eq!(dropped(bench.send(USUAL, Flags::SYN, IRS, 0, EVERYTHING)), DropReason::Draining);
}

/// A SYN that claims to be of a connection's client: the RST has a number that the client does not take.
#[test]
fn established_denied_syn_is_refused_and_not_left_to_the_kernel() {
    let mut bench = listing(Denial::Reset);
    bench.host.sockets.insert(seen(USUAL));
    let reset = reply(bench.send(USUAL, Flags::SYN, IRS, 0, EVERYTHING));
    assert_eq!(reset.seq, SeqNum::new(0));
}
