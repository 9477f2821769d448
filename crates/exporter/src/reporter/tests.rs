use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::surroundings::{AccessLogCounts, KeyRotations};
use crate::testing::{CONNECTIONS_LIMIT, FakeSockets, FakeSource, reporter};

fn web() -> Arc<FakeSource> {
    FakeSource::new("web", "raw", "198.18.0.1:80")
}

/// A process that has everything there can be around its listeners.
struct Full;

impl Surroundings for Full {
    fn upstreams(&self) -> Vec<(String, Vec<UpstreamCounts>)> {
        let server = UpstreamCounts {
            server: "198.18.0.3:80".to_owned(),
            connects: 9,
            connect_failures: vec![("refused", 2), ("timeout", 1)],
            last_error: Some("refused".to_owned()),
            ..UpstreamCounts::default()
        };
        vec![("other".to_owned(), vec![]), ("web".to_owned(), vec![server])]
    }

    fn access_log(&self) -> Option<AccessLogCounts> {
        Some(AccessLogCounts { written: 5, dropped: 3 })
    }

    fn key_rotations(&self) -> Option<KeyRotations> {
        Some(KeyRotations { count: 1, from_unix_seconds: 64 })
    }

    fn log_level(&self) -> &'static str {
        "debug"
    }
}

#[test]
fn counts_stand_where_they_belong_and_parts_add_up() {
    let source = web();
    source.set(|values| {
        for (n, counter) in (1..).zip(Counter::ALL) {
            values.stats.add(counter, n);
        }
        values.stats.record_handshake(Duration::from_millis(2));
        values.connections.accepted = 9;
        values.connections.closed = vec![("client_fin", 4), ("error", 2)];
    });
    let status = reporter(std::slice::from_ref(&source), &FakeSockets::default()).status();
    let web = &status.listeners[0];
    let count = |counter| Counter::ALL.into_iter().position(|each| each == counter).unwrap() as u64 + 1;
    assert_eq!((web.open, web.connections_max, web.closed["error"]), (3, Some(CONNECTIONS_LIMIT), 2));
    assert_eq!((web.half_open_high, web.half_open_low, web.half_open_max), (3072, 1024, 4096));
    assert_eq!(web.half_open_removed["timeout"], count(Counter::HalfOpenTimedOut));
    assert_eq!(web.half_open_bypassed["prefix_share"], count(Counter::HalfOpenPrefixFull));
    assert_eq!(web.handshakes["cookie"], count(Counter::HandshakesByCookie));
    assert_eq!(web.handshakes_refused["tuple_busy"], count(Counter::RefusedTupleBusy));
    assert_eq!(web.cookies_invalid.len(), 4);
    assert_eq!(web.cookies_bad, web.cookies_invalid.values().sum::<u64>());
    assert_eq!(web.handshake_seconds.counts.len(), web.handshake_seconds.bounds.len() + 1);
    assert_eq!(web.handshake_seconds.counts.iter().sum::<u64>(), 1);
    assert_eq!(web.transitions.counts.len(), Transition::ALL.len());
    assert_eq!((web.transitions.complete, web.transitions.counts[0].count), (false, count(Counter::HalfOpenInserted)));
    assert_eq!((&*web.transitions.counts[6].from, &*web.transitions.counts[6].to), ("ESTABLISHED", "CLOSED"));
}

#[test]
fn the_kernels_transitions_are_told_as_complete() {
    let source = web();
    source.set(|values| values.transitions = Some(std::array::from_fn(|index| index as u64)));
    let status = reporter(&[source], &FakeSockets::default()).status();
    let transitions = &status.listeners[0].transitions;
    assert!(transitions.complete);
    assert_eq!(transitions.counts.last().unwrap().count, 17);
}

#[test]
fn what_is_around_the_listeners_is_told() {
    let status = reporter(&[web()], &FakeSockets::default()).with_surroundings(Arc::new(Full)).status();
    assert_eq!(status.log_level, "debug");
    assert_eq!(status.access_log, Some(AccessLogStatus { written: 5, dropped: 3 }));
    assert_eq!(status.keys, Some(KeysStatus { rotations: 1, from_unix_seconds: Some(64) }));
    let server = &status.listeners[0].upstreams[0];
    assert_eq!((server.connects, server.connect_failures, server.last_error.as_deref()), (9, 3, Some("refused")));
}

#[test]
fn what_is_not_there_is_null_and_so_are_states_that_could_not_be_counted() {
    let sockets = FakeSockets::default();
    *sockets.error.lock().unwrap() = Some(ErrorKind::TimedOut);
    let status = reporter(&[web()], &sockets).status();
    assert_eq!((status.access_log, status.keys, &status.listeners[0].states), (None, None, &None));
}

#[test]
fn the_mode_says_who_answers_and_how() {
    let (raw, kernel) = (web(), FakeSource::new("plain", "kernel", "198.18.0.1:81"));
    let reporter = reporter(&[raw.clone(), kernel], &FakeSockets::default());
    let modes = || reporter.status().listeners.into_iter().map(|listener| listener.mode).collect::<Vec<_>>();
    assert_eq!(modes(), ["queue", "kernel"]);
    raw.set(|values| values.cookies_mode = true);
    assert_eq!(modes(), ["cookies", "kernel"]);
}

#[test]
fn the_clock_goes_on() {
    let reporter = reporter(&[], &FakeSockets::default());
    let (before, after) = (reporter.status(), reporter.status());
    assert!(after.clock_seconds > before.clock_seconds);
}

/// Keys whose values are maps by reason, state and the like: what is in them is not the document's.
const MAPS: [&str; 9] = [
    "half_open_removed",
    "half_open_bypassed",
    "closed",
    "refused",
    "states",
    "cookies_invalid",
    "handshakes",
    "handshakes_refused",
    "dropped",
];

fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                into.insert(key.clone());
                if !MAPS.contains(&key.as_str()) {
                    keys(value, into);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, into)),
        _ => {}
    }
}

#[test]
fn every_key_is_in_the_documentation_and_no_other() {
    let mut status = reporter(&[web()], &FakeSockets::default()).with_surroundings(Arc::new(Full)).status();
    status.listeners[0].switches.push(SwitchStatus { to: "queue".to_owned(), unix_seconds: 1 });
    let mut present = BTreeSet::new();
    keys(&serde_json::to_value(&status).unwrap(), &mut present);
    let document = include_str!("../../../../docs/admin-api.md");
    let rows = document.split("## The status document").nth(1).unwrap().lines().filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| row[2..].split(" |").next().unwrap().split(", "));
    let documented: BTreeSet<_> = names.map(|name| name.trim_matches('`').to_owned()).collect();
    assert_eq!(present, documented);
}
