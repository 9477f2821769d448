//! What a door in the kernel tells of the handshakes it has finished.

use super::*;
use crate::cookie::age_of;

const OFFER: Offer = Offer { mss: 1460, wscale: None, sack: false, tsval: Some(5000) };
const ISS: SeqNum = SeqNum::new(77);
const TOOK: Duration = Duration::from_millis(40);
/// By the clock in a cookie. In another bucket than [`TOOK`].
const TOOK_BY_COOKIE: Duration = Duration::from_millis(300);

fn tuple() -> FourTuple {
    FourTuple { local: end(LOCAL), peer: end(CLIENT) }
}

/// Our TSval in a SYN-ACK that was sent so long ago.
fn sent_before(bench: &Bench, age: Duration) -> Option<u32> {
    (0..128).find(|&clock| age_of(clock, bench.now).abs_diff(age) < Duration::from_millis(10))
}

/// How many took up to 50 ms, and up to a second but more than 250 ms.
fn by_time(bench: &Bench) -> [u64; 2] {
    let buckets = bench.listen.stats().handshake_buckets();
    let all: u64 = buckets.iter().sum();
    let counts = [buckets[6], buckets[9]];
    assert_eq!(all, counts.iter().sum::<u64>(), "{buckets:?}");
    counts
}

#[test]
fn a_handshake_with_an_entry_is_timed_by_that() {
    let mut bench = Bench::new();
    let begun = bench.now;
    bench.listen.reported_syn(&tuple(), IRS, ISS, &OFFER, begun);
    let echo = sent_before(&bench, TOOK_BY_COOKIE);
    bench.listen.reported_accepted(&tuple(), ISS, echo, begun + TOOK);
    assert_eq!(by_time(&bench), [1, 0]);
    assert_eq!(bench.listen.stats().get(Counter::HandshakesByQueue), 1);
    assert_eq!(bench.listen.stats().get(Counter::HalfOpenCompleted), 1);
}

#[test]
fn a_handshake_without_an_entry_is_timed_by_its_cookie_if_that_has_a_clock() {
    let mut bench = Bench::new();
    let (echo, now) = (sent_before(&bench, TOOK_BY_COOKIE), bench.now);
    bench.listen.reported_accepted(&tuple(), ISS, echo, now);
    assert_eq!(by_time(&bench), [0, 1]);
    bench.listen.reported_accepted(&tuple(), ISS, None, now);
    assert_eq!(by_time(&bench), [0, 1]);
    assert_eq!(bench.listen.stats().get(Counter::HandshakesByQueue), 0);
}

#[test]
fn an_entry_of_another_syn_is_given_up_and_times_nothing() {
    let mut bench = Bench::new();
    let begun = bench.now;
    bench.listen.reported_syn(&tuple(), IRS, ISS, &OFFER, begun);
    let echo = sent_before(&bench, TOOK_BY_COOKIE);
    bench.listen.reported_accepted(&tuple(), ISS + 1, echo, begun);
    assert_eq!(by_time(&bench), [0, 1]);
    assert_eq!(bench.listen.stats().get(Counter::HandshakesByQueue), 0);
    assert_eq!(bench.listen.half_open.len(), 0);
}
