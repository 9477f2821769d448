//! Every TCP state: `ss` and `/metrics` agree on it, and each order of closing goes through the states it should.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use support::{BOTH, Door, Lab, PORT, V4, V6};
use testnet::{Counters, Flags, RawHost, Script, isolated, states};

/// Long enough for an answer that should not come.
const QUIET: Duration = Duration::from_millis(300);

/// A scripted connection in ESTABLISHED.
fn established<'a>(host: &'a RawHost, port: u16, server: SocketAddr) -> Script<'a> {
    let mut script = host.script(port, server).with_timestamps(1_000_000);
    script.handshake();
    script
}

/// A scripted client of the `http` service that asked for one page and read it up to the server's FIN, which it has
/// not acknowledged: the server closed first and is in FIN-WAIT-1.
fn served<'a>(host: &'a RawHost, port: u16, server: SocketAddr, timestamps: bool) -> Script<'a> {
    let mut script = host.script(port, server);
    if timestamps {
        script = script.with_timestamps(1_000_000);
    }
    script.handshake();
    script.data(b"GET / HTTP/1.0\r\n\r\n");
    loop {
        let expected = script.rcv_nxt;
        let frame = script.expect("the page", |frame| {
            frame.seq == expected && (!frame.payload.is_empty() || frame.flags.has(Flags::FIN))
        });
        script.rcv_nxt = expected.wrapping_add(frame.payload.len() as u32);
        if frame.flags.has(Flags::FIN) {
            script.rcv_nxt = script.rcv_nxt.wrapping_add(1);
            return script;
        }
        script.ack();
    }
}

#[test]
fn at_rest_metrics_tell_what_ss_sees() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let idle = [lab.connect(V4), lab.connect(V4), lab.connect(V6)];
        door.expect_states(&[("established", 3)]);
        assert_eq!(door.states(), states(&lab.server, PORT), "with the listening sockets");
        drop(idle);
        door.expect_states(&[]);
    });
}

#[test]
fn all_eleven_states_are_always_present() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let metrics = door.metrics();
        let found: Vec<_> = metrics.by_label("portcullis_connections", "state").into_keys().collect();
        let expected = [
            "close",
            "close_wait",
            "closing",
            "established",
            "fin_wait1",
            "fin_wait2",
            "last_ack",
            "listen",
            "syn_recv",
            "syn_sent",
            "time_wait",
        ];
        assert_eq!(found, expected);
    });
}

#[test]
fn a_handshake_left_open_is_syn_received() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let host = lab.raw_host(V4);
        let mut script = host.script(2000, V4);
        script.syn();
        script.expect_syn_ack();
        assert_eq!(door.half_open(), 1.0);
        let sockets = states(&lab.server, PORT);
        assert_eq!(sockets.contains_key("syn_recv"), support::is_kernel(), "ours has no socket: {sockets:?}");
        script.ack();
        door.expect_states(&[("established", 1)]);
    });
}

#[test]
fn the_peer_closes_first() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        for (server, port) in BOTH.into_iter().zip(2000..) {
            let host = lab.raw_host(server);
            let mut script = established(&host, port, server);
            script.data(b"last words");
            assert_eq!(script.expect_data(10), b"last words");
            script.fin();
            script.expect_fin();
            door.expect_states(&[("last_ack", 1)]);
            script.ack();
            door.expect_states(&[]);
        }
        door.assert_no_resets();
    });
}

#[test]
fn we_close_first() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "http");
        let host = lab.raw_host(V4);
        let mut script = served(&host, 2000, V4, true);
        door.expect_states(&[("fin_wait1", 1)]);
        script.ack();
        door.expect_states(&[("fin_wait2", 1)]);
        script.fin();
        script.expect_ack();
        door.expect_states(&[("time_wait", 1)]);
        door.assert_no_resets();
    });
}

#[test]
fn both_close_at_once() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "http");
        let host = lab.raw_host(V4);
        let mut script = served(&host, 2000, V4, true);
        door.expect_states(&[("fin_wait1", 1)]);
        // Our FIN leaves before we have seen the server's: it does not acknowledge it.
        script.rcv_nxt = script.rcv_nxt.wrapping_sub(1);
        script.fin();
        script.expect_ack();
        door.expect_states(&[("closing", 1)]);
        script.rcv_nxt = script.rcv_nxt.wrapping_add(1);
        script.ack();
        door.expect_states(&[("time_wait", 1)]);
        door.assert_no_resets();
    });
}

#[test]
fn a_fin_on_the_heels_of_the_handshake_is_not_lost() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let host = lab.raw_host(V4);
        for port in 2000..2020 {
            let mut script = established(&host, port, V4);
            script.send(&script.segment(Flags::FIN | Flags::PSH | Flags::ACK).payload(b"all I say"));
            script.snd_nxt = script.snd_nxt.wrapping_add(10);
            assert_eq!(script.expect_data(9), b"all I say");
            if !script.has_seen_fin() {
                script.expect_fin();
            }
            script.ack();
        }
        door.expect_states(&[]);
        door.assert_no_resets();
    });
}

#[test]
fn a_half_closed_client_still_receives_through_the_relay() {
    isolated!(|| {
        let lab = Lab::new();
        let (upstream, address) = lab.upstream();
        let door = Door::with(&lab, &["--upstream", &address.to_string()]);
        let mut client = lab.connect(V4);
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut server = upstream.accept().unwrap().0;
        let mut question = String::new();
        server.read_to_string(&mut question).unwrap(); // Returns only because the half-close was passed on.
        assert_eq!(question, "question");
        door.expect_states(&[("close_wait", 1)]);
        server.write_all(&[7; 200_000]).unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer == [7; 200_000]);
        door.expect_states(&[]);
        door.assert_no_resets();
    });
}

#[test]
fn a_half_closed_upstream_still_receives_through_the_relay() {
    isolated!(|| {
        let lab = Lab::new();
        let (upstream, address) = lab.upstream();
        let door = Door::with(&lab, &["--upstream", &address.to_string()]);
        let mut client = lab.connect(V4);
        let mut server = upstream.accept().unwrap().0;
        server.write_all(b"greeting").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let mut greeting = String::new();
        client.read_to_string(&mut greeting).unwrap(); // Returns only because the half-close was passed on.
        assert_eq!(greeting, "greeting");
        door.expect_states(&[("fin_wait2", 1)]);
        client.write_all(&[7; 200_000]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).unwrap();
        assert!(rest == [7; 200_000]);
        door.expect_states(&[("time_wait", 1)]);
        door.assert_no_resets();
    });
}

#[test]
fn a_lost_last_ack_makes_the_server_repeat_its_fin() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let host = lab.raw_host(V4);
        let mut script = established(&host, 2000, V4);
        script.fin();
        let fin = script.expect_fin();
        // The last ACK is lost: LAST-ACK stays, and the FIN comes again.
        door.expect_states(&[("last_ack", 1)]);
        let again = script.expect("the FIN once more", |frame| frame.flags.has(Flags::FIN));
        assert_eq!((again.seq, again.ack), (fin.seq, fin.ack));
        script.ack();
        door.expect_states(&[]);
        door.assert_no_resets();
    });
}

#[test]
fn a_repeated_fin_in_time_wait_is_acknowledged_again() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "http");
        let host = lab.raw_host(V4);
        let mut script = served(&host, 2000, V4, true);
        script.ack();
        script.fin();
        let first = script.expect_ack();
        door.expect_states(&[("time_wait", 1)]);
        script.snd_nxt = script.snd_nxt.wrapping_sub(1);
        script.fin();
        let second = script.expect_ack();
        assert_eq!((second.seq, second.ack, second.flags), (first.seq, first.ack, Flags::ACK));
        door.assert_no_resets();
    });
}

#[test]
fn a_newer_syn_in_time_wait_makes_a_new_connection() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "http");
        for (server, timestamps, port) in [(V4, true, 2000), (V4, false, 2001), (V6, true, 2002), (V6, false, 2003)] {
            let host = lab.raw_host(server);
            let mut old = served(&host, port, server, timestamps);
            old.ack();
            old.fin();
            old.expect_ack();
            testnet::eventually("TIME-WAIT", support::PATIENCE, || door.states().contains_key("time_wait"));

            let mut new = host.script(port, server).with_iss(old.snd_nxt.wrapping_add(100_000));
            if timestamps {
                new = new.with_timestamps(2_000_000);
            }
            new.handshake();
            new.data(b"GET / HTTP/1.0\r\n\r\n");
            let expected = new.rcv_nxt;
            let page = new.expect("the page again", |frame| frame.seq == expected && !frame.payload.is_empty());
            assert!(page.payload.starts_with(b"HTTP/1.0 200"), "{server} {timestamps}: {page:?}");
        }
        door.assert_no_resets();
    });
}

#[test]
fn a_reset_does_not_assassinate_time_wait() {
    isolated!(|| {
        let lab = Lab::new();
        lab.server.sysctl("net.ipv4.tcp_rfc1337", "1");
        let door = Door::open(&lab, "http");
        let host = lab.raw_host(V4);
        let mut script = served(&host, 2000, V4, true);
        script.ack();
        script.fin();
        script.expect_ack();
        door.expect_states(&[("time_wait", 1)]);
        script.send(&script.segment(Flags::RST));
        script.expect_silence(QUIET);
        door.expect_states(&[("time_wait", 1)]);
    });
}

#[test]
fn a_syn_on_an_established_tuple_gets_one_challenge_ack() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        for ((server, port), connections) in BOTH.into_iter().zip(2000..).zip(1..) {
            let host = lab.raw_host(server);
            let mut script = established(&host, port, server);
            // From here on the kernel acknowledges, before the service answers: nothing of ours comes late.
            door.expect_states(&[("established", connections)]);
            script.data(b"one");
            assert_eq!(script.expect_data(3), b"one");
            let before = Counters::of(&lab.server).get("TcpExtTCPSYNChallenge");

            let intruder =
                host.script(port, server).with_timestamps(3_000_000).with_iss(script.snd_nxt.wrapping_add(99));
            intruder.send(&intruder.syn_segment());
            let answer = script.next(support::PATIENCE).expect("an answer to the SYN");
            assert_eq!(answer.flags, Flags::ACK, "RFC 5961 §4.2: a challenge ACK, and no SYN-ACK: {answer:?}");
            assert_eq!((answer.seq, answer.ack), (script.rcv_nxt, script.snd_nxt));
            script.expect_silence(QUIET);
            assert_eq!(Counters::of(&lab.server).get("TcpExtTCPSYNChallenge"), before + 1, "the kernel's own answer");

            script.data(b"two");
            assert_eq!(script.expect_data(3), b"two", "the connection goes on");
        }
        door.assert_no_resets();
    });
}

#[test]
fn a_reset_in_established_ends_the_connection() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let host = lab.raw_host(V4);
        let script = established(&host, 2000, V4);
        door.expect_states(&[("established", 1)]);
        script.send(&script.segment(Flags::RST));
        door.expect_states(&[]);
    });
}

#[test]
fn a_reset_on_the_heels_of_the_handshake_leaves_nothing_behind() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let host = lab.raw_host(V4);
        for port in 2000..2050 {
            let script = established(&host, port, V4);
            script.send(&script.segment(Flags::RST));
        }
        door.expect_states(&[]);
    });
}
