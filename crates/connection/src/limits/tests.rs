use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;
use crate::connection::Connection;
use crate::kernel_listener::KernelListener;
use crate::stats::CloseReason;

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

#[test]
fn the_denied_are_told_at_the_syn_as_they_are_behind_it() {
    for (at_limit, manner, denial) in [
        (AtLimit::Queue, Refuse::Reset, Denial::Reset),
        (AtLimit::Reset, Refuse::Reset, Denial::Reset),
        (AtLimit::Displace, Refuse::Reset, Denial::Reset),
        (AtLimit::Silent, Refuse::Silent, Denial::Silent),
    ] {
        let rules = Rules { at_limit, deny: list("198.18.0.0/24"), ..Rules::default() };
        let sources = rules.sources().unwrap();
        assert_eq!((rules.manner(Refused::Denied), sources.denial()), (manner, denial), "{at_limit:?}");
        assert!(sources.denies(peer("198.18.0.1")) && !sources.denies(peer("198.18.1.1")));
        assert_eq!(rules.manner(Refused::Prefix), Refuse::Reset);
    }
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

/// A listener that is full when it has so many, and whose idle connections make room.
fn displacing(connections_max: usize, idle_min: Duration) -> Arc<Gate> {
    gate(|rules| {
        rules.connections_max = connections_max;
        rules.at_limit = AtLimit::Displace;
        rules.displace_idle_min = idle_min;
    })
}

/// A client, and what the server made of it.
struct Guest {
    client: std::net::TcpStream,
    connection: Connection,
}

impl Guest {
    /// Comes in as if it came from `source`.
    async fn enter(gate: &Arc<Gate>, source: &str) -> Result<Guest, Refused> {
        let ticket = gate.admit(peer(source))?;
        let mut listener = KernelListener::bind("127.0.0.1:0".parse().unwrap(), 1, Arc::default()).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr()).unwrap();
        let connection = listener.accept().await.unwrap();
        connection.keep(ticket);
        Ok(Guest { client, connection })
    }

    /// As many as these, each let in.
    async fn enter_all<const N: usize>(gate: &Arc<Gate>, sources: [&str; N]) -> Vec<Guest> {
        let mut guests = Vec::new();
        for source in sources {
            guests.push(Guest::enter(gate, source).await.unwrap());
        }
        guests
    }

    fn is_displaced(&self) -> bool {
        self.connection.handle().close_reason() == Some(CloseReason::Overload)
    }
}

fn displaced(guests: &[Guest]) -> Vec<bool> {
    guests.iter().map(Guest::is_displaced).collect()
}

const AT_ONCE: Duration = Duration::ZERO;

#[tokio::test]
async fn newcomer_takes_the_place_of_an_idle_one_of_the_largest_prefix() {
    let gate = displacing(4, AT_ONCE);
    let mut attackers = Guest::enter_all(&gate, ["198.18.0.1", "198.18.0.2", "198.18.0.3"]).await;
    let other = Guest::enter(&gate, "198.18.1.1").await.unwrap();
    gate.room().await;
    let newcomer = Guest::enter(&gate, "198.18.2.1").await.unwrap();
    assert_eq!(displaced(&attackers).iter().filter(|displaced| **displaced).count(), 1);
    assert!(!other.is_displaced() && !newcomer.is_displaced());
    assert_eq!((gate.connections(), gate.refused(Refused::Connections)), (4, 0));
    let gone = attackers.iter().position(Guest::is_displaced).unwrap();
    let mut gone = attackers.remove(gone);
    assert_eq!(gone.client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(gone.connection);
    assert_eq!(gate.connections(), 4, "its place was taken before it let go");
    drop((attackers, other, newcomer));
    assert_eq!(gate.connections(), 0);
}

#[tokio::test]
async fn a_prefix_displaces_nobody_for_more_than_its_share() {
    let gate = displacing(4, AT_ONCE);
    let attackers = Guest::enter_all(&gate, ["198.18.0.1", "198.18.0.2"]).await;
    let others = Guest::enter_all(&gate, ["198.18.1.1", "198.18.1.2"]).await;
    for source in ["198.18.0.3", "198.18.1.3"] {
        assert_eq!(Guest::enter(&gate, source).await.err(), Some(Refused::Connections), "{source}");
    }
    // Two each; a third prefix comes to one, and then nobody has more than one more than it.
    let third = Guest::enter(&gate, "198.18.2.1").await.unwrap();
    for source in ["198.18.0.3", "198.18.1.3", "198.18.2.2"] {
        assert_eq!(Guest::enter(&gate, source).await.err(), Some(Refused::Connections), "{source}");
    }
    assert_eq!([displaced(&attackers), displaced(&others)].concat().iter().filter(|displaced| **displaced).count(), 1);
    assert!(!third.is_displaced());
    assert_eq!(gate.refused(Refused::Connections), 5);
}

#[tokio::test]
async fn the_one_that_has_been_idle_the_longest_goes() {
    let gate = displacing(3, AT_ONCE);
    let mut guests = Guest::enter_all(&gate, ["198.18.0.1", "198.18.0.2", "198.18.0.3"]).await;
    let quiet = |guest: &Guest| guest.connection.handle().idle().unwrap() >= Duration::from_millis(100);
    testnet::eventually("some silence", Duration::from_secs(10), || guests.iter().all(quiet));
    for speaker in [0, 2] {
        guests[speaker].client.write_all(b"x").unwrap();
        guests[speaker].connection.read_u8().await.unwrap();
    }
    let _newcomer = Guest::enter(&gate, "198.18.1.1").await.unwrap();
    assert_eq!(displaced(&guests), [false, true, false]);
}

#[tokio::test]
async fn who_is_not_idle_for_long_enough_stays() {
    let gate = displacing(3, Duration::from_secs(3600));
    let guests = Guest::enter_all(&gate, ["198.18.0.1", "198.18.0.2", "198.18.0.3"]).await;
    gate.room().await; // It is for the newcomer to be refused, not to wait.
    assert_eq!(Guest::enter(&gate, "198.18.1.1").await.err(), Some(Refused::Connections));
    assert_eq!(displaced(&guests), [false; 3]);
    assert_eq!(gate.rules().manner(Refused::Connections), Refuse::Reset);
}

#[tokio::test]
async fn the_next_largest_prefix_makes_room_where_the_largest_has_nobody_who_may_go() {
    let gate = displacing(5, AT_ONCE);
    // Connections that the gate was not told of, so that it cannot know whether they are idle.
    let _unknown = ["198.18.1.1", "198.18.1.2", "198.18.1.3"].map(|source| gate.admit(peer(source)).unwrap());
    let idle = Guest::enter_all(&gate, ["198.18.0.1", "198.18.0.2"]).await;
    let _newcomer = Guest::enter(&gate, "198.18.2.1").await.unwrap();
    let another = Guest::enter(&gate, "198.18.3.1").await.err();
    assert_eq!(another, Some(Refused::Connections), "behind it are prefixes of one, as many as that would have");
    assert_eq!(displaced(&idle).iter().filter(|displaced| **displaced).count(), 1);
}

#[tokio::test]
async fn places_of_those_who_do_not_let_go_are_given_out_so_often_and_no_more() {
    let gate = displacing(64, AT_ONCE);
    let mut attackers = Vec::new();
    for _ in 0..64 {
        attackers.push(Guest::enter(&gate, "198.18.0.1").await.unwrap());
    }
    let mut newcomers = Vec::new();
    for source in 0..DISPLACED_MAX {
        newcomers.push(Guest::enter(&gate, &format!("198.18.{}.1", source + 1)).await.unwrap());
    }
    assert_eq!(Guest::enter(&gate, "198.18.99.1").await.err(), Some(Refused::Connections));
    assert_eq!((gate.connections(), displaced(&newcomers).contains(&true)), (64, false));
    attackers.retain(|guest| !guest.is_displaced());
    assert_eq!(attackers.len(), 64 - DISPLACED_MAX, "all the different ones");
    assert!(Guest::enter(&gate, "198.18.99.1").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn nobody_goes_for_one_whom_the_rate_refuses() {
    let gate = displacing(2, AT_ONCE);
    let guests = Guest::enter_all(&gate, ["198.18.0.1", "198.18.0.2"]).await;
    gate.set_rules(Rules { per_second: NonZeroU32::new(1), ..Rules::clone(&gate.rules()) });
    let first = Guest::enter(&gate, "198.18.1.1").await.unwrap();
    gate.set_rules(Rules { connections_max: 1, ..Rules::clone(&gate.rules()) });
    assert_eq!(Guest::enter(&gate, "198.18.2.1").await.err(), Some(Refused::Connections));
    assert_eq!((displaced(&guests).iter().filter(|displaced| **displaced).count(), first.is_displaced()), (1, false));
}

#[tokio::test]
async fn a_bare_stream_keeps_no_place_and_is_not_displaced() {
    let gate = displacing(1, AT_ONCE);
    let guest = Guest::enter(&gate, "198.18.0.1").await.unwrap();
    let _stream = guest.connection.into_tcp_stream();
    assert_eq!(gate.connections(), 0);
    let _newcomer = Guest::enter(&gate, "198.18.1.1").await.unwrap();
}

#[test]
fn every_reason_sits_at_its_own_index() {
    for (index, reason) in Refused::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
}
