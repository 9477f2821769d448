//! Under a flood of spoofed SYNs: legitimate clients get in, and nothing grows.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::battlefield::Battlefield;
use support::{Door, Lab, PATIENCE, V4, V6, connect_from, exchange};
use testnet::{Flood, FloodKind, Sources, eventually, isolated, take_turns};

/// Entries of the half-open queue: few, so that the flood meets the bound at once.
const HALF_OPEN_MAX: f64 = 1024.0;
/// Legitimate connects under each flood: half with timestamps, half without.
const CLIENTS: usize = 200;
/// How long a flood lasts at least, beside its warm-up.
const FLOOD_MIN: Duration = Duration::from_secs(2);
/// What a process may grow by without leaking: a few connections' buffers, not a flood's worth of entries.
const RSS_GROWTH_MAX_BYTES: u64 = 4 << 20;

/// What was seen of the door while a flood ran.
#[derive(Debug, Default)]
struct Seen {
    samples: usize,
    half_open_max: f64,
}

/// Looks at `/metrics` until told to stop.
fn watch(door: &Door, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        let half_open = door.metric("portcullis_half_open");
        seen.samples += 1;
        seen.half_open_max = seen.half_open_max.max(half_open);
        thread::sleep(Duration::from_millis(20));
    }
    seen
}

/// Stops the watcher, also when a client fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Legitimate clients, a few at a time: each connects, says something, and reads it back.
fn legitimate_clients(lab: &Lab, server: std::net::SocketAddr, count: usize) {
    const AT_ONCE: usize = 8;
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(move || {
                for client in 0..count.div_ceil(AT_ONCE) {
                    let start = Instant::now();
                    let served =
                        connect_from(&lab.client, server).and_then(|mut stream| exchange(&mut stream, b"hello"));
                    let bytes =
                        served.unwrap_or_else(|error| panic!("client {client} after {:?}: {error}", start.elapsed()));
                    assert_eq!(bytes, b"hello");
                }
            });
        }
    });
}

/// All legitimate clients, of both kinds, while the flood runs; checks the bounds.
fn survive(field: &Battlefield, door: &Door, server: std::net::SocketAddr, flood: Flood) {
    let syns_before = door.metric("portcullis_syns_received_total");
    // The warm-up: the flood fills what it can fill.
    eventually("10000 SYNs of the flood", PATIENCE, || {
        door.metric("portcullis_syns_received_total") - syns_before > 10_000.0
    });
    let rss_before = door.rss_bytes();
    let (start, stop) = (Instant::now(), AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(door, &stop));
        let until = Stop(&stop);
        for timestamps in ["1", "0"] {
            field.lab.client.sysctl("net.ipv4.tcp_timestamps", timestamps);
            legitimate_clients(&field.lab, server, CLIENTS / 2);
        }
        // Clients that were served fast are no reason to look less long.
        thread::sleep(FLOOD_MIN.saturating_sub(start.elapsed()));
        drop(until);
        watcher.join().expect("the watcher")
    });
    let report = flood.stop();
    println!("{report:?}, {:.0}/s; {seen:?}", report.rate());
    let grown = door.rss_bytes().saturating_sub(rss_before);
    assert!(grown <= RSS_GROWTH_MAX_BYTES, "grew by {grown} bytes under the flood");
    assert!(seen.half_open_max <= HALF_OPEN_MAX, "{seen:?}");
    assert!(seen.half_open_max > 0.0 && seen.samples > 2, "nothing was seen: {seen:?}");
}

fn half_open_argument() -> String {
    format!("{HALF_OPEN_MAX}")
}

#[test]
fn every_client_gets_in_during_a_flood_of_random_sources() {
    let _turn = take_turns();
    isolated!(|| {
        let field = Battlefield::new();
        let door = Door::with(&field.lab, &["--service", "echo", "--half-open", &half_open_argument()]);
        assert_eq!(door.metric("portcullis_half_open_limit"), HALF_OPEN_MAX);
        let flood = field.flood(FloodKind::Syn, V4, Sources::random("198.19.0.0/16"));
        eventually("cookie mode", PATIENCE, || door.metric("portcullis_syncookies_active") == 1.0);
        survive(&field, &door, V4, flood);
        let cookies = door.metric("portcullis_syncookies_sent_total");
        assert!(cookies > 1000.0, "{cookies} cookies sent");
        door.assert_no_resets();
        // The entries the flood left expire, and the listener is calm again.
        eventually("queue mode again", Duration::from_secs(60), || door.metric("portcullis_syncookies_active") == 0.0);
        assert_eq!(door.metric("portcullis_mode_switches_total"), 2.0, "to cookies and back, once each");
        legitimate_clients(&field.lab, V4, 16);
        door.expect_states(&[]);
    });
}

#[test]
fn every_client_gets_in_during_a_flood_over_ipv6() {
    let _turn = take_turns();
    isolated!(|| {
        let field = Battlefield::new();
        let door = Door::with(&field.lab, &["--service", "echo", "--half-open", &half_open_argument()]);
        let flood = field.flood(FloodKind::Syn, V6, Sources::random("2001:db8:bad::/48"));
        survive(&field, &door, V6, flood);
        door.assert_no_resets();
    });
}

#[test]
fn a_flood_from_one_prefix_leaves_the_queue_to_the_others() {
    let _turn = take_turns();
    isolated!(|| {
        let field = Battlefield::new();
        let door = Door::with(&field.lab, &["--service", "echo", "--half-open", &half_open_argument()]);
        let flood = field.flood(FloodKind::Syn, V4, Sources::random("198.19.7.0/24"));
        survive(&field, &door, V4, flood);
        // Its share, and no pressure: the others still have entries.
        assert!(door.metric("portcullis_half_open") <= HALF_OPEN_MAX / 4.0 + 8.0);
        if support::is_raw() {
            // Programs in the kernel go over to cookies: each report would cost more than an entry is worth.
            assert_eq!(door.metric("portcullis_syncookies_active"), 0.0);
        }
        door.assert_no_resets();
    });
}

#[test]
fn a_flood_of_one_tuple_makes_one_entry() {
    let _turn = take_turns();
    isolated!(|| {
        let field = Battlefield::new();
        let door = Door::with(&field.lab, &["--service", "echo", "--half-open", &half_open_argument()]);
        let flood = field.flood(FloodKind::Syn, V4, Sources::same_tuple("198.19.0.9:1025".parse().unwrap()));
        survive(&field, &door, V4, flood);
        assert!(door.metric("portcullis_half_open") <= 1.0);
        door.assert_no_resets();
    });
}

#[test]
fn a_flood_of_guessed_cookies_makes_no_connection() {
    let _turn = take_turns();
    isolated!(|| {
        let field = Battlefield::new();
        let door = Door::with(&field.lab, &["--service", "discard", "--half-open", &half_open_argument()]);
        let invalid = || door.metric("portcullis_syncookies_invalid_total");
        let flood = field.flood(FloodKind::Ack, V4, Sources::random("198.19.0.0/16"));
        eventually("10000 guesses refused", PATIENCE, || invalid() > 10_000.0);
        legitimate_discards(&field.lab);
        println!("{:.0}/s", flood.stop().rate());
        door.expect_states(&[]);
        assert_eq!(door.metric("portcullis_handshakes_completed_total"), 20.0, "the legitimate clients, and no guess");
        door.assert_no_resets();
    });
}

/// Twenty clients whose bytes are read and thrown away.
fn legitimate_discards(lab: &Lab) {
    for _ in 0..20 {
        let back = exchange(&mut lab.connect(V4), b"into the void").expect("a legitimate client");
        assert_eq!(back, b"");
    }
}
