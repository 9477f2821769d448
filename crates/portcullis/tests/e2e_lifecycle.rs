//! Start, stop, crash and restart, as a client in the middle sees them.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use support::{BOTH, Door, Lab, PATIENCE, PORT, Scratch, V4, echo, exchange, expect_no_more_than_acks, is_closed};
use testnet::{Flags, Frame, RawHost, Signal, eventually, isolated};

const KEY: &str = "0011223344556677889900aabbccddeeff0011223344556677889900aabbccdd";
const OTHER_KEY: &str = "ff11223344556677889900aabbccddeeff0011223344556677889900aabbccdd";

/// Long enough for an answer that should not come.
const QUIET: Duration = Duration::from_millis(300);

/// Long enough for an answer that comes at once, on a busy machine.
const PROMPT: Duration = Duration::from_secs(2);

/// What a server answers to a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    SynAck,
    Reset,
    Nothing,
}

/// Sends a SYN from this port, and waits for an answer.
fn knock(host: &RawHost, port: u16, server: SocketAddr, within: Duration) -> Answer {
    let mut script = host.script(port, server);
    script.syn();
    match script.next(within) {
        Some(Frame { flags, .. }) if flags.is_syn_ack() => Answer::SynAck,
        Some(Frame { flags, .. }) if flags.has(Flags::RST) => Answer::Reset,
        Some(frame) => panic!("neither SYN-ACK nor RST: {frame:?}"),
        None => Answer::Nothing,
    }
}

#[test]
fn a_start_goes_from_closed_to_open_without_a_reset_in_between() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.raw_host(V4);
        assert_eq!(knock(&host, 1999, V4, PROMPT), Answer::Reset, "nobody is there yet");
        let mut door = Door::start(&lab, KEY, &["--service", "echo"]);
        let mut answers = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(30);
        for port in (2000..60_000).cycle().take_while(|_| Instant::now() < deadline) {
            answers.push(knock(&host, port, V4, PROMPT));
            if answers.iter().filter(|answer| **answer == Answer::SynAck).count() == 100 {
                break;
            }
        }
        door.wait_until_ready();
        let open = answers.iter().position(|answer| *answer != Answer::Reset).expect("the door opened");
        let resets_later = answers[open..].iter().filter(|answer| **answer == Answer::Reset).count();
        assert_eq!(resets_later, 0, "{answers:?}");
        assert_eq!(answers.last(), Some(&Answer::SynAck));
    });
}

#[test]
fn it_is_ready_exactly_when_it_answers() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        for server in BOTH {
            assert_eq!(knock(&lab.raw_host(server), 2000, server, PROMPT), Answer::SynAck);
        }
        assert!(door.is_ready());
    });
}

#[test]
fn a_killed_server_answers_reset_as_any_dead_one() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let mut streams = BOTH.map(|server| lab.connect(server));
        for stream in &mut streams {
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
        door.kill();
        assert!(streams.iter_mut().all(is_closed), "the clients learn that their server died");
        for server in BOTH {
            assert_eq!(knock(&lab.raw_host(server), 2000, server, PROMPT), Answer::Reset);
        }
    });
}

#[test]
fn a_restart_after_a_crash_serves_again() {
    isolated!(|| {
        let lab = Lab::new();
        for _ in 0..3 {
            let door = Door::open(&lab, "echo");
            for server in BOTH {
                let mut stream = lab.connect(server);
                assert_eq!(exchange(&mut stream, b"hello").unwrap(), b"hello");
            }
            door.kill();
        }
    });
}

/// Connects from this port of the client's.
fn connect_by(lab: &Lab, port: u16, server: SocketAddr) -> TcpStream {
    let stream = lab.client.run(|| {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        socket.bind(&SocketAddr::new(any, port).into())?;
        socket.connect_timeout(&server.into(), PATIENCE)?;
        Ok::<_, std::io::Error>(TcpStream::from(socket))
    });
    let stream = stream.unwrap_or_else(|error| panic!("connect from port {port} to {server}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream
}

/// The very same ports come again, whatever the server's kernel still holds on them: TIME-WAIT, FIN-WAIT, or nothing.
#[test]
fn after_kill_9_no_tuple_stays_blocked() {
    isolated!(|| {
        let lab = Lab::new();
        let ports = [30_000, 30_001, 30_002, 30_003];
        for round in 0..3 {
            let door = Door::open(&lab, "echo");
            let mut streams = Vec::new();
            for server in BOTH {
                for port in ports {
                    let mut stream = connect_by(&lab, port, server);
                    assert_eq!(
                        echo(&mut stream, b"held").expect("an echo"),
                        b"held",
                        "round {round}, {port}, {server}"
                    );
                    streams.push(stream);
                }
            }
            // Half of them with bytes on the way, for which the dying kernel sockets answer RST instead of FIN.
            streams.iter_mut().step_by(2).for_each(|stream| stream.write_all(b"unread").expect("write"));
            door.kill();
        }
    });
}

#[test]
fn a_handshake_begun_before_a_crash_is_finished_after_it() {
    isolated!(|| {
        let lab = Lab::new();
        for server in BOTH {
            for timestamps in [true, false] {
                let host = lab.raw_host(server);
                let mut script = host.script(2000 + u16::from(timestamps), server);
                if timestamps {
                    script = script.with_timestamps(1_000_000);
                }
                let mut first = Door::start(&lab, KEY, &["--service", "echo"]);
                first.wait_until_ready();
                script.syn();
                script.expect_syn_ack();
                first.kill();

                let mut second = Door::start(&lab, KEY, &["--service", "echo"]);
                second.wait_until_ready();
                script.data(b"still here");
                assert_eq!(script.expect_data(10), b"still here", "{server}, timestamps: {timestamps}");
            }
        }
    });
}

#[test]
fn another_key_accepts_no_cookie_of_the_old_one() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.raw_host(V4);
        let mut script = host.script(2000, V4).with_timestamps(1_000_000);
        let mut first = Door::start(&lab, KEY, &["--service", "echo"]);
        first.wait_until_ready();
        script.syn();
        script.expect_syn_ack();
        first.kill();

        let mut second = Door::start(&lab, OTHER_KEY, &["--service", "echo"]);
        second.wait_until_ready();
        script.ack();
        let answer = script.expect("a RST", |_| true);
        assert_eq!((answer.flags, answer.seq), (Flags::RST, script.rcv_nxt), "{answer:?}");
        second.expect_states(&[]);
    });
}

#[test]
fn sigterm_lets_connections_finish_and_answers_no_new_ones() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.raw_host(V4);
        let mut door = Door::open(&lab, "echo");
        let mut stream = lab.connect(V4);
        stream.write_all(b"before").unwrap();
        stream.read_exact(&mut [0; 6]).unwrap();

        door.signal(Signal::SIGTERM);
        eventually("not ready while draining", PATIENCE, || !door.is_ready());
        // It says so before the last worker knows: load balancers should learn it first.
        let mut ports = 2000..;
        let mut knock_again = || knock(&host, ports.next().expect("a port"), V4, QUIET);
        eventually("new clients are not answered", PATIENCE, || match knock_again() {
            Answer::SynAck => false,
            Answer::Nothing => true,
            Answer::Reset => panic!("a RST while draining"),
        });
        for _ in 0..5 {
            assert_eq!(knock_again(), Answer::Nothing, "a new client while draining");
        }
        stream.write_all(b"after").unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"after");
        assert!(!door.has_ended(), "a connection is still open");

        assert_eq!(exchange(&mut stream, b"bye").unwrap(), b"bye");
        assert_eq!(door.wait(PATIENCE).code(), Some(0));
    });
}

#[test]
fn sigterm_without_connections_ends_at_once() {
    isolated!(|| {
        let lab = Lab::new();
        let mut door = Door::open(&lab, "echo");
        door.signal(Signal::SIGTERM);
        assert_eq!(door.wait(PATIENCE).code(), Some(0)); // Less than the deadline of 30 s.
    });
}

#[test]
fn a_second_sigterm_ends_now() {
    isolated!(|| {
        let lab = Lab::new();
        let mut door = Door::open(&lab, "echo");
        let mut stream = lab.connect(V4);
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        door.signal(Signal::SIGTERM);
        eventually("draining", PATIENCE, || !door.is_ready());
        assert!(!door.has_ended(), "a connection is still open");
        door.signal(Signal::SIGTERM);
        // The deadline, which is not waited for, is 30 s.
        assert_eq!(door.wait(PATIENCE).code(), Some(0));
        assert!(is_closed(&mut stream));
    });
}

#[test]
fn handshakes_answered_before_sigterm_are_served() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.raw_host(V4);
        let mut door = Door::open(&lab, "echo");
        let _keeps_it_open = lab.connect(V4);
        let mut script = host.script(2000, V4);
        script.syn();
        script.expect_syn_ack();
        door.signal(Signal::SIGTERM);
        eventually("draining", PATIENCE, || !door.is_ready());
        script.data(b"I was first");
        assert_eq!(script.expect_data(11), b"I was first");
        script.fin();
        script.expect_fin();
        script.ack();
        expect_no_more_than_acks(&mut script, QUIET);
    });
}

#[test]
fn a_door_that_fails_closed_stays_shut_after_a_crash_and_opens_again() {
    isolated!(|| {
        let lab = Lab::new();
        let scratch = Scratch::new();
        let listener = format!("[[listener]]\nbind = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\nservice = \"echo\"\n");
        let config = scratch.file("portcullis.toml", &(listener + "fail_closed = true\n"));
        for round in 0..2 {
            let door = Door::configured(&lab, &config);
            for server in BOTH {
                assert_eq!(exchange(&mut lab.connect(server), b"hello").unwrap(), b"hello");
            }
            door.kill();
            for (server, port) in BOTH.into_iter().zip(2000 + 2 * round..) {
                assert_eq!(knock(&lab.raw_host(server), port, server, QUIET), Answer::Nothing, "round {round}");
            }
        }
    });
}
