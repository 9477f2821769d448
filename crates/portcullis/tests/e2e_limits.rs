//! At the bounds and at the end: too many clients, too few descriptors, a deadline, a log nobody reads, a cable pulled.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use support::{BOTH, Door, Lab, PATIENCE, PORT, Scratch, V4, V6, connect_from, echo};
use testnet::{Flags, RawHost, Script, Signal, eventually, isolated, states};

/// Long enough for an answer that should not come.
const QUIET: Duration = Duration::from_millis(300);

/// A configuration of one `echo` listener on every address, with these lines more.
struct Settings {
    _scratch: Scratch,
    path: PathBuf,
}

impl Settings {
    /// `top` goes before the listener's table, `listener` into it.
    fn new(top: &str, listener: &str) -> Settings {
        let bind = format!("[[listener]]\nbind = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\nservice = \"echo\"\n");
        let scratch = Scratch::new();
        let path = scratch.file("portcullis.toml", &format!("{top}\n{bind}{listener}\n"));
        Settings { _scratch: scratch, path }
    }

    fn open(&self, lab: &Lab) -> Door {
        Door::configured(lab, &self.path)
    }
}

/// A client that the service answers.
fn served(lab: &Lab, server: SocketAddr) -> TcpStream {
    let mut stream = lab.connect(server);
    assert_eq!(echo(&mut stream, b"hello").expect("a served client"), b"hello");
    stream
}

/// A client that has said something and gets no answer, for now: the kernel here believes that it is connected.
fn waiting(lab: &Lab, server: SocketAddr, says: &[u8]) -> TcpStream {
    let mut stream = lab.connect(server);
    stream.write_all(says).expect("say something");
    stream
}

fn assert_unanswered(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(QUIET)).expect("a timeout");
    let read = stream.read(&mut [0]);
    assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock), "it should wait");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
}

fn expect_answer(stream: &mut TcpStream, expected: &[u8]) {
    let mut back = vec![0; expected.len()];
    stream.read_exact(&mut back).expect("the answer to what was said before");
    assert_eq!(back, expected);
}

/// A scripted client that the service answers.
fn scripted<'a>(host: &'a RawHost, server: SocketAddr) -> Script<'a> {
    let mut script = host.script(2000, server).with_timestamps(1_000_000);
    script.handshake();
    script.data(b"hello");
    assert_eq!(script.expect_data(5), b"hello");
    script
}

/// Waits for a RST that the client's kernel would believe: RFC 5961 §3.2 wants exactly the next number.
fn expect_reset(script: &mut Script<'_>) {
    let reset = script.expect("a RST", |frame| frame.flags.has(Flags::RST));
    assert_eq!(reset.seq, script.rcv_nxt, "{reset:?}");
}

/// Waits until this many connections exist, of which this many wait to be accepted.
fn expect_connections(lab: &Lab, door: &Door, count: usize, accept_queue: usize) {
    eventually(&format!("{count} connections, {accept_queue} of them in the accept queue"), PATIENCE, || {
        states(&lab.server, PORT).get("established") == Some(&count)
            && door.metric("portcullis_accept_queue") == accept_queue as f64
    });
}

#[test]
fn at_the_deadline_comes_fin_and_a_second_later_reset() {
    isolated!(|| {
        const DEADLINE: Duration = Duration::from_secs(1);
        const GRACE: Duration = Duration::from_secs(1);
        // What a busy machine may add.
        const SLACK: Duration = Duration::from_secs(5);
        let lab = Lab::new();
        let mut door = Settings::new("shutdown_deadline_seconds = 1", "").open(&lab);
        let hosts = BOTH.map(|server| lab.raw_host(server));
        let mut scripts = [scripted(&hosts[0], V4), scripted(&hosts[1], V6)];
        let began = Instant::now();
        door.signal(Signal::SIGTERM);
        for script in &mut scripts {
            let end = script.expect("the end", |frame| frame.flags.has(Flags::FIN) || frame.flags.has(Flags::RST));
            assert_eq!((end.flags, end.seq), (Flags::FIN | Flags::ACK, script.rcv_nxt), "orderly: {end:?}");
            assert!((DEADLINE..DEADLINE + SLACK).contains(&began.elapsed()), "FIN after {:?}", began.elapsed());
            script.rcv_nxt = script.rcv_nxt.wrapping_add(1);
            script.ack(); // And no FIN of our own.
        }
        for script in &mut scripts {
            expect_reset(script);
            let took = began.elapsed();
            assert!((DEADLINE + GRACE..DEADLINE + GRACE + SLACK).contains(&took), "RST after {took:?}");
        }
        assert_eq!(door.wait(PATIENCE).code(), Some(0));
    });
}

#[test]
fn clients_that_close_at_the_deadline_are_not_reset() {
    isolated!(|| {
        let lab = Lab::new();
        let mut door = Settings::new("shutdown_deadline_seconds = 1", "").open(&lab);
        let mut streams = [served(&lab, V4), served(&lab, V4), served(&lab, V6)];
        door.signal(Signal::SIGTERM);
        for stream in &mut streams {
            assert_eq!(stream.read(&mut [0]).expect("an orderly end"), 0);
        }
        drop(streams);
        assert_eq!(door.wait(PATIENCE).code(), Some(0));
        door.assert_no_resets();
    });
}

#[test]
fn a_second_sigterm_resets_the_served_and_the_waiting() {
    isolated!(|| {
        let lab = Lab::new();
        let mut door = Settings::new("shutdown_deadline_seconds = 600", "connections_max = 2").open(&lab);
        let hosts = BOTH.map(|server| lab.raw_host(server));
        let mut scripts = [scripted(&hosts[0], V4), scripted(&hosts[1], V6)];
        let mut queued = waiting(&lab, V4, b"me too");
        expect_connections(&lab, &door, 3, 1);
        door.signal(Signal::SIGTERM);
        eventually("draining", PATIENCE, || !door.is_ready());
        assert!(!door.has_ended(), "connections are still open");
        door.signal(Signal::SIGTERM);
        scripts.iter_mut().for_each(expect_reset);
        assert_eq!(queued.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        assert_eq!(door.wait(PATIENCE).code(), Some(0));
    });
}

#[test]
fn connections_beyond_the_limit_wait_in_the_accept_queue() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Settings::new("", "connections_max = 1").open(&lab);
        for server in BOTH {
            let first = served(&lab, server);
            let mut second = waiting(&lab, server, b"me too");
            expect_connections(&lab, &door, 2, 1);
            assert_unanswered(&mut second);
            drop(first);
            expect_answer(&mut second, b"me too");
            drop(second);
            door.expect_states(&[]);
        }
        assert_eq!(door.metric("portcullis_accept_queue_overflows_total"), 0.0);
        door.assert_no_resets();
    });
}

#[test]
fn a_client_beyond_the_accept_queue_gets_in_when_there_is_room() {
    isolated!(|| {
        let lab = Lab::new();
        let limits = "connections_max = 1\naccept_queue = 1\n[listener.half_open]\nsynack_retries = 5";
        let door = Settings::new("", limits).open(&lab);
        for (server, before) in [(V4, 0.0), (V6, 1.0)] {
            let first = served(&lab, server);
            let mut second = waiting(&lab, server, b"second");
            expect_connections(&lab, &door, 2, 1);
            let mut third = waiting(&lab, server, b"third");
            eventually("the accept queue overflows", PATIENCE, || {
                door.metric("portcullis_accept_queue_overflows_total") > before
            });
            // It has an entry that asks on its behalf, and no socket.
            assert_eq!((door.half_open(), states(&lab.server, PORT).get("established")), (1.0, Some(&2)));
            assert_unanswered(&mut third);
            drop(first);
            expect_answer(&mut second, b"second");
            drop(second);
            expect_answer(&mut third, b"third");
            drop(third);
            door.expect_states(&[]);
        }
        door.assert_no_resets();
    });
}

#[test]
fn a_client_for_whom_there_never_is_room_is_told() {
    isolated!(|| {
        let lab = Lab::new();
        let limits = "connections_max = 1\naccept_queue = 1\n[listener.half_open]\nsynack_retries = 1";
        let door = Settings::new("", limits).open(&lab);
        let _first = served(&lab, V4);
        let _second = waiting(&lab, V4, b"second");
        expect_connections(&lab, &door, 2, 1);
        // The kernel has a queue for each address.
        let full = if support::is_raw() { &BOTH[..] } else { &[V4] };
        for &server in full {
            let host = lab.raw_host(server);
            let mut script = host.script(2000, server);
            script.handshake();
            script.expect_syn_ack(); // Once more, which asks for another ACK.
            script.ack();
            expect_reset(&mut script);
        }
        let overflows = door.metric("portcullis_accept_queue_overflows_total");
        assert!(overflows >= 2.0 * full.len() as f64, "each asked twice: {overflows}");
        let mut kernel = waiting(&lab, V4, b"third");
        assert_eq!(kernel.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        eventually("nothing is left of them", PATIENCE, || door.half_open() == 0.0);
        door.expect_states(&[("established", 2)]);
    });
}

#[test]
fn a_client_that_cannot_even_be_kept_waiting_is_told_at_once() {
    isolated!(|| {
        if !support::is_raw() {
            return; // Such a client gets in by the data it repeats.
        }
        let lab = Lab::new();
        // Two entries, and cookies alone from the second on.
        let limits = "connections_max = 1\naccept_queue = 1\n\
                      [listener.half_open]\nmax = 2\nhigh_percent = 50\nprefix_share_percent = 100\nsynack_retries = 5";
        let door = Settings::new("workers = 1", limits).open(&lab);
        let _first = served(&lab, V4);
        let _second = waiting(&lab, V4, b"second");
        expect_connections(&lab, &door, 2, 1);
        let host = lab.raw_host(V4);
        let mut scripts: Vec<_> = (2000..2004).map(|port| host.script(port, V4).with_timestamps(1_000_000)).collect();
        let (mut told, mut kept) = (0, 0);
        for script in &mut scripts {
            script.handshake();
            eventually("kept, or told", PATIENCE, || {
                match script.next(QUIET) {
                    Some(frame) if frame.flags.has(Flags::RST) => told += 1,
                    Some(frame) if frame.flags.is_syn_ack() => return false,
                    Some(frame) => panic!("neither kept nor told: {frame:?}"),
                    None if door.half_open() > f64::from(kept) => kept += 1,
                    None => return false,
                }
                true
            });
        }
        assert!(kept >= 1 && told >= 2, "{kept} kept, {told} told");
    });
}

/// A configuration in which nobody who waits is given up while a test lasts.
fn patient() -> Settings {
    Settings::new("workers = 1", "[listener.half_open]\nsynack_retries = 5")
}

/// More clients than there is room for: some have to wait until others leave, and all are served in the end.
///
/// Nobody leaves before `full` says that there is no room, and `meanwhile` has looked at it.
fn serve_a_crowd(lab: &Lab, door: &Door, clients: usize, full: impl Fn() -> bool, meanwhile: impl Fn()) {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // Opens the gate when it is dropped: by a panic, too.
        let shut = gate.lock().expect("nobody has it yet");
        for client in 0..clients {
            let gate = &gate;
            scope.spawn(move || {
                let said = format!("client {client:02} says this");
                let mut stream = waiting(lab, BOTH[client % 2], said.as_bytes());
                drop(gate.lock());
                stream.set_read_timeout(Some(3 * PATIENCE)).expect("a timeout");
                expect_answer(&mut stream, said.as_bytes());
            });
        }
        eventually("there is no room for more", PATIENCE, full);
        assert_calm(door, meanwhile);
        drop(shut);
    });
    door.expect_states(&[]);
    door.assert_no_resets();
}

/// Checks for a while that the door uses far less than a core.
fn assert_calm(door: &Door, meanwhile: impl Fn()) {
    let (began, used_before) = (Instant::now(), door.cpu_time());
    while began.elapsed() < Duration::from_secs(2) {
        meanwhile();
        thread::sleep(Duration::from_millis(100));
    }
    let (used, took) = (door.cpu_time() - used_before, began.elapsed());
    assert!(used < took / 2, "{used:?} of processor time in {took:?}");
}

#[test]
fn with_few_descriptors_clients_wait_and_metrics_are_told() {
    isolated!(|| {
        /// Descriptors beside those of an idle door: some 50 are kept for other things than connections.
        const ROOM: usize = 90;
        let lab = Lab::new();
        let settings = patient();
        let idle = settings.open(&lab);
        let limit = idle.open_descriptors() + ROOM;
        idle.kill();
        let door = Door::through(&lab, &format!("ulimit -n {limit}"), &settings.path);
        let full = || door.metric("portcullis_accept_queue_overflows_total") > 0.0;
        serve_a_crowd(&lab, &door, ROOM + 10, full, || {
            assert!(door.is_ready());
            assert_eq!(door.metric("portcullis_half_open_limit"), 4096.0);
        });
        assert_eq!(no_descriptors(&door), 0.0, "it reckons with the limit");
    });
}

#[test]
fn without_descriptors_clients_wait_and_nothing_spins() {
    isolated!(|| {
        const ROOM: usize = 24;
        let lab = Lab::new();
        let door = patient().open(&lab);
        // Only now, so that the door has not reckoned with it.
        let limit = door.open_descriptors() + ROOM;
        door.limit_descriptors(limit);
        // Seen from outside: the admin server's clients need descriptors as well.
        let full = || door.open_descriptors() >= limit;
        serve_a_crowd(&lab, &door, 64, full, || ());
        // The kernel's own queue tells nobody why it is not emptied.
        assert!(no_descriptors(&door) > 0.0 || !support::is_raw());
        assert!(door.open_descriptors() < limit, "they are given back");
    });
}

/// Handshakes for which there was no descriptor.
fn no_descriptors(door: &Door) -> f64 {
    let refused = door.metrics().get("portcullis_handshakes_refused_total", &[("reason", "no_descriptors")]);
    refused.expect("portcullis_handshakes_refused_total")
}

/// Opens and closes, with a switch of mode logged by a worker and a drain logged by the rest in between.
fn assert_lives(lab: &Lab, mut door: Door) {
    served(lab, V4);
    let host = lab.raw_host(V4);
    let mut scripts: Vec<_> = (2000..2020).map(|port| host.script(port, V4)).collect();
    scripts.iter_mut().for_each(Script::syn);
    eventually("cookie mode, which is logged", PATIENCE, || door.metric("portcullis_syncookies_active") == 1.0);
    scripts.iter().for_each(|script| script.send(&script.segment(Flags::RST))); // A drain would wait for them.
    let stream = served(lab, V6);
    door.signal(Signal::SIGTERM);
    eventually("draining", PATIENCE, || !door.is_ready());
    assert!(!door.has_ended(), "a connection is still open");
    drop(stream);
    assert_eq!(door.wait(PATIENCE).code(), Some(0));
}

/// A queue so short that a few SYNs turn the mode, in this log format.
fn short_queue(format: &str) -> Settings {
    let log = format!("workers = 1\n[log]\nformat = \"{format}\"");
    Settings::new(&log, "[listener.half_open]\nmax = 8\nprefix_share_percent = 100")
}

#[test]
fn closed_standard_streams_do_not_matter() {
    isolated!(|| {
        let lab = Lab::new();
        for format in ["text", "json"] {
            for closed in ["exec 2>&-", "exec >&-", "exec <&- >&- 2>&-", "exec 2>/dev/full"] {
                assert_lives(&lab, Door::through(&lab, closed, &short_queue(format).path));
            }
        }
    });
}

#[test]
fn a_log_whose_reader_is_gone_does_not_matter() {
    isolated!(|| {
        let lab = Lab::new();
        for format in ["text", "json"] {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            assert_lives(&lab, Door::with_stderr(&lab, writer, &short_queue(format).path, &[]));

            let (reader, writer) = std::io::pipe().expect("a pipe");
            let door = Door::with_stderr(&lab, writer, &short_queue(format).path, &[]);
            drop(reader); // Only now.
            assert_lives(&lab, door);
        }
    });
}

#[test]
fn a_cable_that_is_pulled_and_laid_again_is_served_again() {
    isolated!(|| {
        for only in ["", "interfaces = [\"srv0\"]"] {
            let mut lab = Lab::new();
            let _door = Settings::new("", only).open(&lab);
            for round in 0..3 {
                for server in BOTH {
                    served(&lab, server);
                }
                lab.replace_cable(|lab| {
                    if only.is_empty() {
                        let mut local = connect_from(&lab.server, "127.0.0.1:8080".parse().unwrap()).expect("over lo");
                        assert_eq!(echo(&mut local, b"local").expect("served meanwhile"), b"local", "round {round}");
                    }
                });
            }
            BOTH.iter().for_each(|server| drop(served(&lab, *server)));
        }
    });
}

#[test]
fn an_interface_that_goes_down_and_up_is_served_again() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let mut lasting = served(&lab, V4);
        for round in 0..3 {
            lab.server_end.down();
            lab.server_end.up();
            lab.server.ip("addr add 2001:db8::1/64 dev srv0 nodad"); // Down took it away.
            lab.server_end.wait_until_up();
            lab.client_end.wait_until_up();
            for server in BOTH {
                served(&lab, server);
            }
            assert_eq!(echo(&mut lasting, b"still").expect("an old connection"), b"still", "round {round}");
        }
        door.assert_no_resets();
    });
}
