use std::time::Duration;

use super::*;

fn peer(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn gate(change: impl FnOnce(&mut Rules)) -> Arc<Gate> {
    let mut rules = Rules::up_to(100);
    change(&mut rules);
    Gate::new(rules)
}

fn list(text: &str) -> PrefixList {
    PrefixList::parse(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn as_many_as_there_may_be_and_one_more_for_each_who_leaves() {
    let gate = gate(|rules| rules.connections_max = 2);
    let first = gate.admit(peer("198.18.0.1")).unwrap();
    let _second = gate.admit(peer("198.18.1.1")).unwrap();
    assert_eq!(gate.admit(peer("198.18.2.1")).unwrap_err(), Refused::Connections);
    drop(first);
    assert_eq!(gate.connections(), 1);
    let _third = gate.admit(peer("198.18.2.1")).unwrap();
    assert_eq!(gate.refused(Refused::Connections), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_is_told_when_there_is_one() {
    let gate = gate(|rules| rules.connections_max = 1);
    gate.room().await;
    let ticket = gate.admit(peer("198.18.0.1")).unwrap();
    let waiting = tokio::spawn({
        let gate = gate.clone();
        async move { gate.room().await }
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!waiting.is_finished());
    drop(ticket);
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_where_the_limit_refuses() {
    for at_limit in [AtLimit::Reset, AtLimit::Silent] {
        let gate = gate(|rules| {
            rules.connections_max = 1;
            rules.at_limit = at_limit;
        });
        let _ticket = gate.admit(peer("198.18.0.1")).unwrap();
        gate.room().await;
        assert_eq!(gate.admit(peer("198.18.0.1")).unwrap_err(), Refused::Connections);
    }
}

#[tokio::test(start_paused = true)]
async fn more_in_a_second_than_there_may_be_wait_for_the_next() {
    let gate = gate(|rules| rules.per_second = NonZeroU32::new(10));
    let begin = Instant::now();
    for _ in 0..30 {
        gate.room().await;
        drop(gate.admit(peer("198.18.0.1")).unwrap());
    }
    assert_eq!(begin.elapsed(), Duration::from_secs(2), "10 at once, 20 at 10 in a second");
    assert_eq!(gate.admit(peer("198.18.0.1")).unwrap_err(), Refused::Rate);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_for_something_else_uses_up_no_rate() {
    let gate = gate(|rules| {
        rules.per_second = NonZeroU32::new(1);
        rules.deny = list("203.0.113.0/24");
    });
    for _ in 0..10 {
        assert_eq!(gate.admit(peer("203.0.113.9")).unwrap_err(), Refused::Denied);
    }
    assert!(gate.admit(peer("198.18.0.1")).is_ok());
    assert_eq!(gate.refused(Refused::Denied), 10);
}

#[tokio::test(start_paused = true)]
async fn one_prefix_gets_its_share_and_others_theirs() {
    let gate = gate(|rules| rules.per_prefix_max = NonZeroU32::new(2));
    let mut tickets = Vec::new();
    for (source, expected) in [
        ("198.18.0.1", true),
        ("198.18.0.200", true),
        ("198.18.0.3", false),
        ("::ffff:198.18.0.4", false),
        ("198.18.1.3", true),
        ("2001:db8::1", true),
        ("2001:db8::ffff:1:2:3", true),
        ("2001:db8::2", false),
        ("2001:db8:0:1::2", true),
    ] {
        let admitted = gate.admit(peer(source));
        assert_eq!(admitted.is_ok(), expected, "{source}");
        assert!(expected || admitted.as_ref().is_err_and(|refused| *refused == Refused::Prefix));
        tickets.extend(admitted.ok());
    }
    assert_eq!(gate.connections(), tickets.len());
    drop(tickets);
    assert_eq!(gate.connections(), 0);
    let again = ["198.18.0.9", "198.18.0.8", "2001:db8::9"].map(|source| gate.admit(peer(source)));
    assert!(again.iter().all(Result::is_ok), "nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn lists_say_who_may_and_denial_wins() {
    let gate = gate(|rules| {
        rules.allow = list("198.18.0.0/16");
        rules.deny = list("198.18.7.0/24");
    });
    for (source, expected) in
        [("198.18.0.1", true), ("198.18.7.1", false), ("198.19.0.1", false), ("2001:db8::1", false)]
    {
        assert_eq!(gate.admit(peer(source)).is_ok(), expected, "{source}");
    }
}

#[tokio::test(start_paused = true)]
async fn new_rules_are_for_those_who_come_and_wake_who_waits() {
    let gate = gate(|rules| rules.connections_max = 1);
    let inside = gate.admit(peer("198.18.0.1")).unwrap();
    let waiting = tokio::spawn({
        let gate = gate.clone();
        async move { gate.room().await }
    });
    tokio::task::yield_now().await;
    gate.set_rules(Rules { deny: list("198.18.0.0/16"), ..Rules::up_to(2) });
    waiting.await.unwrap();
    assert_eq!(gate.connections(), 1, "who is inside stays");
    assert_eq!(gate.admit(peer("198.18.0.2")).unwrap_err(), Refused::Denied);
    let _other = gate.admit(peer("203.0.113.1")).unwrap();
    drop(inside);
    assert_eq!(gate.connections(), 1);
}

#[test]
fn every_reason_sits_at_its_own_index() {
    for (index, reason) in Refused::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
}
