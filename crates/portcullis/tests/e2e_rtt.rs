//! A long way: the server's first estimate of the round trip is that of the handshake, and nothing is sent twice for being on its way.

mod support;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use support::{BOTH, Door, Lab, PATIENCE, PORT, Scratch, V4};
use testnet::{Counters, eventually, isolated, states};

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

/// How much later than meant a segment may leave, lest the server's timer has run out with good reason.
const LATE: Duration = Duration::from_millis(200);

/// A machine that stands still for so long proves nothing; that it does so each time is not to be expected.
const ATTEMPTS: u16 = 5;

/// Lets the way take its time since the server was heard. `None`: it took longer than the way is.
fn travel(heard: Instant) -> Option<()> {
    thread::sleep(ROUND_TRIP.saturating_sub(heard.elapsed()));
    (heard.elapsed() < ROUND_TRIP + LATE).then_some(())
}

/// A question and an answer. `None` when the machine was too slow to tell.
fn talk(lab: &Lab, server: SocketAddr, timestamps: bool, port: u16) -> Option<()> {
    let host = lab.raw_host(server);
    let mut script = host.script(port, server);
    if timestamps {
        script = script.with_timestamps(1_000_000);
    }
    let before = repeated(lab);
    let sent = Instant::now();
    script.syn();
    script.expect_syn_ack();
    travel(sent)?;
    let sent = Instant::now();
    script.data(b"question");
    let expected = script.rcv_nxt;
    let answer = script.expect("the answer", |frame| frame.seq == expected && !frame.payload.is_empty());
    let first = estimate(lab, port);
    travel(sent)?;
    script.rcv_nxt = expected.wrapping_add(answer.payload.len() as u32);
    script.ack();
    let repeated = repeated(lab) - before;
    // The raw tier's sockets were made, not connected: they begin with no estimate, and with the timeout of a second that goes
    // with it (RFC 6298 §2.1). So do those whose cookie has no clock.
    let is_right = match first {
        Some(ms) => timestamps && MEASURED_MS.contains(&ms),
        None => !timestamps || support::is_raw(),
    };
    assert!(is_right, "{server}, timestamps {timestamps}: the handshake took 300 ms, not {first:?}");
    assert_eq!(repeated, 0, "{server}, timestamps {timestamps}: repeated while it was on its way");
    script.data(b"more");
    assert_eq!(script.expect_data(4), b"more");
    let later = estimate(lab, port);
    assert!(later.is_some_and(|ms| ms > 100.0), "{server}: an answer took 300 ms, not {later:?}");
    Some(())
}

#[test]
fn a_client_far_away_is_not_sent_everything_twice() {
    isolated!(|| {
        let lab = Lab::new();
        let _door = Door::open(&lab, "echo");
        for ((server, timestamps), port) in
            BOTH.into_iter().flat_map(|to| [(to, true), (to, false)]).zip((2000..).step_by(usize::from(ATTEMPTS)))
        {
            let told = (port..port + ATTEMPTS).any(|port| talk(&lab, server, timestamps, port).is_some());
            assert!(told, "the machine stood still in each of {ATTEMPTS} attempts");
        }
        // Each of those that told is still there; an attempt that did not may be, too.
        let established = states(&lab.server, PORT).get("established").copied().unwrap_or(0);
        assert!(established >= 4, "{established} connections are left");
    });
}

/// Handshakes that took more than 250 ms, and up to a second.
fn of_long_way(door: &Door) -> f64 {
    let metrics = door.metrics();
    let up_to = |le| metrics.get("portcullis_handshake_duration_seconds_bucket", &[("le", le)]).expect("the bucket");
    up_to("1") - up_to("0.25")
}

/// A handshake over the long way, of which nothing is kept, is seen to be one. `None` when the machine was too slow to tell.
fn be_timed(lab: &Lab, door: &Door, server: SocketAddr, port: u16) -> Option<()> {
    let host = lab.raw_host(server);
    let mut script = host.script(port, server).with_timestamps(1_000_000);
    let before = of_long_way(door);
    let sent = Instant::now();
    script.syn();
    script.expect_syn_ack();
    travel(sent)?;
    script.ack();
    // The clock goes round in 1.07 s.
    (sent.elapsed() < Duration::from_secs(1)).then(|| {
        eventually("the time it took is counted", PATIENCE, || of_long_way(door) > before);
    })
}

/// By the clock that the cookies of clients with timestamps bring back.
#[test]
fn under_cookies_alone_it_is_seen_how_long_handshakes_take() {
    isolated!(|| {
        let (lab, scratch) = (Lab::new(), Scratch::new());
        let text = format!("[[listener]]\nname = \"web\"\nbind = [\"[::]:{PORT}\"]\nhalf_open = {{ max = 1 }}\n");
        let door = Door::configured(&lab, &scratch.file("portcullis.toml", &text));
        lab.raw_host(V4).script(1000, V4).syn();
        eventually("cookies alone", PATIENCE, || door.metric("portcullis_syncookies_active") == 1.0);
        for (server, port) in BOTH.into_iter().zip((2000..).step_by(usize::from(ATTEMPTS))) {
            let told = (port..port + ATTEMPTS).any(|port| be_timed(&lab, &door, server, port).is_some());
            assert!(told, "the machine stood still in each of {ATTEMPTS} attempts");
        }
        assert_eq!(door.metric("portcullis_syncookies_active"), 1.0);
    });
}
