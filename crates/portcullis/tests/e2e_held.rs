//! A client that comes again by a 4-tuple on which the kernel still holds its last connection: a NAT that gives a port to somebody else, a
//! host that was rebooted. It gets in, and nobody's connection ends who was not asked.

mod support;

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use support::{BOTH, Door, Lab, PATIENCE, PORT, Scratch, V4};
use testnet::{Flags, Frame, RawHost, Script, Segment, eventually, isolated, states};

/// Long enough for an answer that should not come, and for a repetition to get one.
const QUIET: Duration = Duration::from_millis(300);

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// Where the server's end of the old connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Established,
    LastAck,
    FinWait2,
    TimeWait,
}

impl Held {
    /// The service that brings it about, by closing first or second.
    fn service(self) -> &'static str {
        match self {
            Held::Established | Held::LastAck => "echo",
            Held::FinWait2 | Held::TimeWait => "http",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Held::Established => "established",
            Held::LastAck => "last_ack",
            Held::FinWait2 => "fin_wait2",
            Held::TimeWait => "time_wait",
        }
    }
}

/// How the new connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    /// With a SYN, and an initial sequence number behind all that the old connection used.
    Syn,
    /// The same before it, with a newer timestamp (RFC 6191).
    LowerSyn,
    /// With the third segment of a handshake that was answered before the old connection was.
    Cookie,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The SYN is answered.
    Answered,
    /// The SYN is challenged (RFC 5961 §4.2); the client resets what it knows nothing of, and its next SYN is answered.
    Challenged,
    /// The handshake is complete: the old connection gives way, and the client is served at the first repetition.
    Replaces,
    /// The old connection stays.
    Refused,
}

#[derive(Clone, Copy)]
struct Case {
    held: Held,
    timestamps: bool,
    comes: Comes,
    pressure: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { held, timestamps, comes, pressure } = self;
        let with = if *timestamps { "with" } else { "without" };
        let mode = if *pressure { "under pressure" } else { "calm" };
        write!(f, "{comes:?} on {held:?} {with} timestamps, {mode}")
    }
}

impl Case {
    /// DESIGN: while calm the kernel is asked, and its rules hold exactly; under pressure the bpf tier asks nobody before the
    /// handshake is complete, and the raw tier only where it remembers a connection. What lives gives way to form A alone.
    fn outcome(self) -> Outcome {
        let looks = !self.pressure || support::is_raw();
        let lives = self.held != Held::TimeWait;
        match self.comes {
            Comes::Cookie if self.timestamps => Outcome::Replaces,
            // The raw tier does not know in which state the connection is that the kernel holds.
            Comes::Cookie if lives || support::is_raw() => Outcome::Refused,
            Comes::Cookie => Outcome::Replaces,
            _ if looks && lives => Outcome::Challenged,
            _ if looks => Outcome::Answered,
            _ if lives && !self.timestamps => Outcome::Refused,
            _ => Outcome::Replaces,
        }
    }
}

/// Every case that there is for a service.
fn cases(service: &str, pressure: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for held in [Held::Established, Held::LastAck, Held::FinWait2, Held::TimeWait] {
        for timestamps in [true, false] {
            for comes in [Comes::Syn, Comes::LowerSyn, Comes::Cookie] {
                // Of a lower number without a timestamp nobody can tell whether it is new (RFC 1122 §4.2.2.13).
                let can_be_told = comes != Comes::LowerSyn || (held == Held::TimeWait && timestamps);
                // The service lets go of FIN-WAIT-2 after two seconds, too soon for a test that has to wait for the raw tier's next look.
                let lasts = held != Held::FinWait2 || comes != Comes::Cookie || !support::is_raw();
                if held.service() == service && can_be_told && lasts {
                    cases.push(Case { held, timestamps, comes, pressure });
                }
            }
        }
    }
    cases
}

fn script<'a>(host: &'a RawHost, port: u16, server: SocketAddr, case: &Case, iss: u32, clock: u32) -> Script<'a> {
    let script = host.script(port, server).with_iss(iss);
    if case.timestamps { script.with_timestamps(clock) } else { script }
}

/// Brings a connection to where the case wants it.
fn bring_to(old: &mut Script<'_>, held: Held) {
    old.handshake();
    if held.service() == "echo" {
        old.data(b"one");
        assert_eq!(old.expect_data(3), b"one");
        if held == Held::LastAck {
            old.fin();
            old.expect_fin(); // It is not acknowledged.
        }
        return;
    }
    old.data(REQUEST);
    while !read_page(old).flags.has(Flags::FIN) {}
    if held == Held::TimeWait {
        old.fin();
        old.expect_ack();
    }
}

/// Reads a segment of the page, or its end.
fn read_page(script: &mut Script<'_>) -> Frame {
    let expected = script.rcv_nxt;
    let frame = script.expect("the page", |frame| {
        frame.seq == expected && (!frame.payload.is_empty() || frame.flags.has(Flags::FIN))
    });
    let fin = u32::from(frame.flags.has(Flags::FIN));
    script.rcv_nxt = expected.wrapping_add(frame.payload.len() as u32 + fin);
    script.ack();
    frame
}

/// Sends the SYN, again while nothing comes, until it is answered or challenged.
fn knock(new: &mut Script<'_>) -> Frame {
    for _ in 0..3 {
        new.syn();
        while let Some(frame) = new.next(Duration::from_secs(1)) {
            if frame.flags.is_syn_ack() || (frame.flags == Flags::ACK && frame.payload.is_empty()) {
                return frame;
            }
        }
    }
    panic!("no answer to the SYN from {}", new.local());
}

/// Begins the new connection as far as its client can tell; whether it was challenged on the way.
fn arrive(new: &mut Script<'_>, old: &Script<'_>, server: SocketAddr) -> bool {
    let answer = knock(new);
    let challenged = !answer.flags.is_syn_ack();
    if challenged {
        assert_eq!((answer.seq, answer.ack), (old.rcv_nxt, old.snd_nxt), "the old connection's own numbers");
        // RFC 9293 §3.10.7.3: in SYN-SENT an ACK of something never sent is answered with a RST.
        new.send(&Segment::new(new.local(), server, Flags::RST).seq(answer.ack));
        let answer = knock(new);
        assert!(answer.flags.is_syn_ack(), "challenged twice: {answer:?}");
        new.rcv_nxt = answer.seq.wrapping_add(1);
    } else {
        new.rcv_nxt = answer.seq.wrapping_add(1);
    }
    new.ack();
    challenged
}

/// Whether the service answers, be it to the request's second or third repetition.
fn is_served(new: &mut Script<'_>, host: &RawHost, request: &[u8], patience: &[Duration]) -> bool {
    let (expected, local) = (new.rcv_nxt, new.local());
    let first = new.snd_nxt;
    patience.iter().any(|&patience| {
        new.snd_nxt = first;
        new.data(request);
        // Past the script: what the old connection still says lies outside the window, and its timestamps are not echoed (RFC 7323 §4.3).
        let is_answer = |frame: &Frame| frame.dst == local && frame.seq == expected && !frame.payload.is_empty();
        host.tap().find(patience, is_answer).is_some()
    })
}

/// Waits until no connection is left, and no handshake but the one that is the pressure. `ss` is asked, which is quicker than /metrics.
fn settle(lab: &Lab, door: &Door, pressure: bool) {
    eventually("nothing is left", PATIENCE, || {
        let mut sockets = states(&lab.server, PORT);
        sockets.remove("listen");
        sockets.is_empty() && door.metric("portcullis_half_open") == f64::from(u8::from(pressure))
    });
}

/// Handshakes refused because the tuple is busy, and old sockets destroyed.
fn counted(door: &Door) -> (f64, f64) {
    let metrics = door.metrics();
    let busy = metrics.get("portcullis_handshakes_refused_total", &[("reason", "tuple_busy")]);
    (busy.expect("a metric"), metrics.get("portcullis_old_sockets_destroyed_total", &[]).expect("a metric"))
}

/// Both tiers look away from a connection's segments for up to a second. By the bpf tier the client's own SYN, once more, has it look
/// again; else, and where the kernel would take that for a new connection, it takes waiting.
fn make_look(new: &mut Script<'_>, old: &mut Script<'_>, case: &Case) {
    if support::is_raw() || (case.held == Held::TimeWait && !case.pressure) {
        thread::sleep(Duration::from_millis(1100));
    } else {
        new.syn();
        old.drain(Duration::from_millis(50)); // The challenge, or the SYN-ACK.
    }
}

fn try_case(case: Case, lab: &Lab, door: &Door, host: &RawHost, (server, port): (SocketAddr, u16)) {
    let stands = || states(&lab.server, PORT).contains_key(case.held.name());
    let iss = if case.comes == Comes::LowerSyn { 0x1000_0000 } else { 0x6000_0000 };
    let mut old = script(host, port, server, &case, 0x2000_0000, 1_000_000);
    let mut new = script(host, port, server, &case, iss, 500_000_000);
    if case.comes == Comes::Cookie {
        // The cookie stays good; but no entry is to remember it.
        new.syn();
        new.expect_syn_ack();
        new.send(&Segment::new(new.local(), server, Flags::RST).seq(new.snd_nxt));
        settle(lab, door, case.pressure);
    }
    bring_to(&mut old, case.held);
    eventually(case.held.name(), PATIENCE, stands);
    old.drain(Duration::from_millis(50));
    if case.comes == Comes::Cookie {
        make_look(&mut new, &mut old, &case);
    }

    let before = counted(door);
    let outcome = case.outcome();
    if case.comes == Comes::Cookie {
        new.ack();
    } else {
        assert_eq!(arrive(&mut new, &old, server), outcome == Outcome::Challenged, "{case}");
    }
    let request = if case.held.service() == "echo" { b"two" } else { REQUEST };
    if outcome == Outcome::Refused {
        assert!(!is_served(&mut new, host, request, &[QUIET]), "{case}");
        assert!(stands(), "{case}: the old connection is gone");
        if case.held == Held::Established {
            old.data(b"three");
            assert_eq!(old.expect_data(5), b"three", "{case}");
        }
        old.send(&old.segment(Flags::RST));
    } else {
        let second = Duration::from_secs(1);
        assert!(is_served(&mut new, host, request, &[second; 3]), "{case}: not served, {:?}", door.states());
        new.send(&new.segment(Flags::RST));
    }
    settle(lab, door, case.pressure);
    let expected = (outcome == Outcome::Refused, outcome == Outcome::Replaces);
    eventually(&format!("{case}: counted as it is {outcome:?}"), PATIENCE, || {
        let after = counted(door);
        (after.0 > before.0, after.1 > before.1) == expected
    });
}

/// For pressure a queue of one entry, which one SYN fills for the minute that all cases take.
fn config(service: &str, pressure: bool) -> String {
    let bind = format!("[[listener]]\nbind = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\nservice = \"{service}\"\n");
    let queue = if pressure { "[listener.half_open]\nmax = 1\nsynack_retries = 5\n" } else { "" };
    bind + queue
}

/// Opens a door, and puts it under pressure if that is wanted.
fn open(lab: &Lab, service: &str, pressure: bool) -> Door {
    let scratch = Scratch::new();
    let door = Door::configured(lab, &scratch.file("portcullis.toml", &config(service, pressure)));
    if pressure {
        lab.raw_host(V4).script(1999, V4).syn();
        eventually("pressure", PATIENCE, || door.metric("portcullis_syncookies_active") == 1.0);
    }
    door
}

/// Opens a door for each service, and tries all its cases.
fn try_all(pressure: bool) {
    if support::is_kernel() {
        return; // It has rules of its own under pressure.
    }
    for service in ["echo", "http"] {
        let lab = Lab::new();
        let door = open(&lab, service, pressure);
        for server in BOTH {
            let host = lab.raw_host(server);
            for (case, port) in cases(service, pressure).into_iter().zip(2000..) {
                eprintln!("{server}: {case}");
                try_case(case, &lab, &door, &host, (server, port));
            }
        }
    }
}

#[test]
fn while_calm_the_kernel_says_what_becomes_of_a_new_connection_on_a_held_tuple() {
    isolated!(|| try_all(false));
}

#[test]
fn under_pressure_a_finished_handshake_says_so() {
    isolated!(|| try_all(true));
}

/// Neither a SYN nor a guess is proof of anything.
#[test]
fn a_stranger_ends_nobodys_connection() {
    isolated!(|| {
        for pressure in [false, true] {
            let lab = Lab::new();
            let door = open(&lab, "echo", pressure);
            for (server, timestamps) in BOTH.into_iter().flat_map(|server| [(server, true), (server, false)]) {
                let case = Case { held: Held::Established, timestamps, comes: Comes::Syn, pressure };
                let host = lab.raw_host(server);
                let mut old = script(&host, 2000, server, &case, 0x2000_0000, 1_000_000);
                bring_to(&mut old, case.held);
                for iss in [0x1000_0000, 0x6000_0000] {
                    let mut stranger = script(&host, 2000, server, &case, iss, 500_000_000);
                    stranger.syn();
                    stranger.rcv_nxt = 0x1234_5678;
                    stranger.ack();
                    stranger.data(b"mine");
                    old.drain(QUIET);
                    old.data(b"still");
                    assert_eq!(old.expect_data(5), b"still", "{server}, {case}, a stranger's {iss:#x}");
                }
                old.send(&old.segment(Flags::RST));
                settle(&lab, &door, pressure);
            }
            assert_eq!(counted(&door), (0.0, 0.0), "nobody has proved anything");
        }
    });
}
