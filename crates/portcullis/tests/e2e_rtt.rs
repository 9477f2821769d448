//! A long way: the server's first estimate of the round trip is that of the handshake, and nothing is sent twice for being on its way.

mod support;

use std::thread;
use std::time::Duration;

use support::{BOTH, Door, Lab};
use testnet::{Counters, isolated};

/// Above the least timeout of Linux, 200 ms: a server that believes in a near client repeats its answer before this is over.
const ROUND_TRIP: Duration = Duration::from_millis(300);

/// What a busy machine makes of it.
const MEASURED_MS: std::ops::Range<f64> = 270.0..900.0;

/// The kernel's estimate for the connection from this port, in milliseconds; `None` while it has none.
fn estimate(lab: &Lab, port: u16) -> Option<f64> {
    let text = lab.server.output("ss", &format!("-tinHO state established dport = :{port}"));
    let rtt = text.split_whitespace().find_map(|word| word.strip_prefix("rtt:"))?;
    let (milliseconds, _variance) = rtt.split_once('/')?;
    milliseconds.parse().ok()
}

fn repeated(lab: &Lab) -> i64 {
    Counters::of(&lab.server).get("TcpRetransSegs")
}

#[test]
fn a_client_far_away_is_not_sent_everything_twice() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        for ((server, timestamps), port) in BOTH.into_iter().flat_map(|to| [(to, true), (to, false)]).zip(2000..) {
            let host = lab.raw_host(server);
            let mut script = host.script(port, server);
            if timestamps {
                script = script.with_timestamps(1_000_000);
            }
            let before = repeated(&lab);
            script.syn();
            script.expect_syn_ack();
            thread::sleep(ROUND_TRIP);
            script.data(b"question");
            let expected = script.rcv_nxt;
            let answer = script.expect("the answer", |frame| frame.seq == expected && !frame.payload.is_empty());
            let first = estimate(&lab, port);
            // The raw tier's sockets were made, not connected: they begin with no estimate, and with the timeout of a second that goes
            // with it (RFC 6298 §2.1). So do those whose cookie has no clock.
            let is_right = match first {
                Some(ms) => timestamps && MEASURED_MS.contains(&ms),
                None => !timestamps || support::is_raw(),
            };
            assert!(is_right, "{server}, timestamps {timestamps}: the handshake took 300 ms, not {first:?}");
            thread::sleep(ROUND_TRIP);
            script.rcv_nxt = expected.wrapping_add(answer.payload.len() as u32);
            script.ack();
            script.data(b"more");
            assert_eq!(script.expect_data(4), b"more");
            assert_eq!(
                repeated(&lab) - before,
                0,
                "{server}, timestamps {timestamps}: repeated while it was on its way"
            );
            let later = estimate(&lab, port);
            let is_right = later.is_some_and(|ms| ms > 100.0);
            assert!(is_right, "{server}, timestamps {timestamps}: an answer took 300 ms, not {later:?}");
        }
        door.expect_states(&[("established", 4)]);
    });
}
