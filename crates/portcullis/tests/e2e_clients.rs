//! Ordinary clients: whatever kernel or order of segments they come with, every byte comes back, once and in order.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use support::{BOTH, Door, Lab, PATIENCE, PORT, V4, connect_from, exchange};
use testnet::{Flags, Namespace, Tap, XorShift, eventually, isolated};

/// Sends `len` bytes at once, half-closes, and checks what the echo service gives back.
fn echo(namespace: &Namespace, server: SocketAddr, len: usize) {
    let bytes = XorShift::new(len as u64).bytes(len);
    let mut stream = connect_from(namespace, server).unwrap_or_else(|error| panic!("connect to {server}: {error}"));
    let back = exchange(&mut stream, &bytes).unwrap_or_else(|error| panic!("{len} bytes to {server}: {error}"));
    assert!(back == bytes, "{len} bytes to {server}: {} came back, not the same", back.len());
}

#[test]
fn every_size_comes_back_whole_after_a_half_close() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        for server in BOTH {
            for len in [0, 1, 2, 535, 1427, 1428, 1448, 1460, 4096, 14_480, 65_535, 65_536, 1 << 20] {
                echo(&lab.client, server, len);
            }
        }
        door.assert_no_resets();
    });
}

#[test]
fn timestamps_sack_and_window_scaling_are_negotiated_in_all_combinations() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        for combination in 0..8 {
            let wanted: Vec<_> =
                OPTIONS.iter().enumerate().map(|(bit, option)| (option, combination >> bit & 1)).collect();
            for ((key, _), on) in &wanted {
                lab.client.sysctl(&format!("net.ipv4.{key}"), &on.to_string());
            }
            for server in BOTH {
                let stream = lab.connect(server);
                let info = socket_info(&lab, stream.local_addr().unwrap().port());
                for ((key, word), on) in &wanted {
                    // An adopted socket says "wscale:0,0" where nothing is scaled.
                    let mut fields = info.split_whitespace().filter(|field| *field != "wscale:0,0");
                    let found = fields.any(|field| field.split(':').next() == Some(word));
                    assert_eq!(u8::from(found), *on, "{key} at {server}: {info}");
                }
                drop(stream);
                echo(&lab.client, server, 300_000);
            }
        }
        door.assert_no_resets();
    });
}

/// Kernel parameters of the client, and the words by which `ss` shows that the server's socket uses the option.
const OPTIONS: [(&str, &str); 3] = [("tcp_timestamps", "ts"), ("tcp_sack", "sack"), ("tcp_window_scaling", "wscale")];

/// What `ss` tells of the server's socket for the client at this port.
fn socket_info(lab: &Lab, client_port: u16) -> String {
    let filter = format!("--numeric --tcp --info --options --no-header sport = :{PORT} dport = :{client_port}");
    let mut info = String::new();
    eventually("the server's socket", PATIENCE, || {
        info = lab.server.output("ss", &filter);
        !info.is_empty()
    });
    info
}

#[test]
fn local_clients_reach_every_address_over_loopback() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        for server in ["127.0.0.1:8080", "[::1]:8080", "198.18.0.1:8080", "[2001:db8::1]:8080"] {
            for len in [1, 100_000] {
                echo(&lab.server, server.parse().unwrap(), len);
            }
        }
        door.assert_no_resets();
    });
}

#[test]
fn a_thousand_connections_at_once_are_all_served() {
    isolated!(|| {
        const CONNECTIONS: usize = 1000;
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let connect = |index: usize| lab.connect(BOTH[index % 2]);
        let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(connect).collect();
        door.expect_states(&[("established", CONNECTIONS)]);
        for (index, stream) in streams.iter_mut().enumerate() {
            stream.write_all(format!("{index:04}").as_bytes()).unwrap();
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            let mut back = [0; 4];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back, format!("{index:04}").as_bytes());
        }
        drop(streams);
        door.expect_states(&[]);
        door.assert_no_resets();
    });
}

#[test]
fn many_clients_that_connect_at_the_same_time_all_get_in() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        thread::scope(|scope| {
            for worker in 0..16 {
                let lab = &lab;
                scope.spawn(move || (0..25).for_each(|len| echo(&lab.client, BOTH[worker % 2], len)));
            }
        });
        door.assert_no_resets();
    });
}

#[test]
fn data_sent_at_once_waits_for_no_retransmission() {
    isolated!(|| {
        const ROUNDS: usize = 100;
        // The least retransmission timeout of Linux: what a lost first segment would cost.
        const TIMEOUT: Duration = Duration::from_millis(200);
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let mut slow = Vec::new();
        for round in 0..ROUNDS {
            let start = Instant::now();
            let mut stream = lab.connect(BOTH[round % 2]);
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 18]).unwrap();
            let took = start.elapsed();
            if took >= TIMEOUT {
                slow.push(took);
            }
        }
        // A busy machine may stall a round or two; a lost first segment would stall many.
        assert!(slow.len() <= 2, "{} of {ROUNDS} took a timeout: {slow:?}", slow.len());
        door.assert_no_resets();
    });
}

#[test]
fn a_first_flight_larger_than_the_mtu_arrives_whole() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        for server in BOTH {
            let tap = Tap::new(&lab.server_end);
            echo(&lab.client, server, 14_000);
            let large = tap.find(Duration::from_millis(100), |frame| frame.ip_len > 1500);
            assert!(large.is_some(), "no frame was larger than the MTU: this proved nothing");
        }
        door.assert_no_resets();
    });
}

#[test]
fn a_small_mtu_at_the_client_is_respected() {
    isolated!(|| {
        let lab = Lab::new();
        lab.client_end.set_mtu(1280);
        let door = Door::open(&lab, "echo");
        BOTH.iter().for_each(|server| echo(&lab.client, *server, 200_000));
        door.assert_no_resets();
    });
}

#[test]
fn data_on_the_third_ack_is_delivered_once() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        for (server, timestamps) in [(V4, true), (V4, false), (support::V6, true), (support::V6, false)] {
            let host = lab.raw_host(server);
            let mut script = host.script(2000 + u16::from(timestamps), server);
            if timestamps {
                script = script.with_timestamps(1_000_000);
            }
            script.syn();
            script.expect_syn_ack();
            script.data(b"on the third ACK");
            assert_eq!(script.expect_data(16), b"on the third ACK");
            script.fin();
            script.expect_fin();
            script.ack();
            while let Some(late) = script.next(Duration::from_millis(300)) {
                // The ACK for the first data may be late, as any may be on a network.
                assert!(late.flags == Flags::ACK && late.payload.is_empty(), "after the end: {late:?}");
            }
        }
        door.assert_no_resets();
    });
}

#[test]
fn data_right_behind_the_third_ack_is_delivered_in_order() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let host = lab.raw_host(V4);
        let mut repeats = 0;
        for round in 0..50 {
            let mut script = host.script(2000 + round, V4).with_timestamps(1_000_000);
            script.syn();
            script.expect_syn_ack();
            script.ack();
            let (bytes, repeated) = script.exchange(&[b"first ", b"second ", b"third"], 18);
            assert_eq!(bytes, b"first second third", "round {round}");
            repeats += usize::from(repeated > 0);
        }
        // What comes in the last microsecond of the socket's making is left to the client, and that is rare.
        assert!(repeats <= 5, "{repeats} of 50 clients had to send again");
        door.assert_no_resets();
    });
}

#[test]
fn segments_in_the_wrong_order_right_behind_the_handshake_are_sorted() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let host = lab.raw_host(V4);
        let mut script = host.script(2000, V4);
        script.handshake();
        let second = script.segment(Flags::ACK | Flags::PSH).seq(script.snd_nxt + 6).payload(b"second");
        script.send(&second);
        let (bytes, _) = script.exchange(&[b"first ", b"second"], 12);
        assert_eq!(bytes, b"first second");
        door.assert_no_resets();
    });
}

#[test]
fn data_in_the_syn_is_not_acknowledged_and_delivered_when_repeated() {
    isolated!(|| {
        let lab = Lab::new();
        let door = Door::open(&lab, "echo");
        let host = lab.raw_host(V4);
        let mut script = host.script(2000, V4);
        script.send(&script.syn_segment().payload(b"early"));
        script.expect_syn_ack(); // Checks that it acknowledges the SYN alone.
        script.snd_nxt = script.iss() + 1;
        script.data(b"early");
        assert_eq!(script.expect_data(5), b"early");
        door.assert_no_resets();
    });
}

#[test]
fn a_server_that_speaks_first_survives_a_lost_third_ack() {
    isolated!(|| {
        let lab = Lab::new();
        let (upstream, address) = lab.upstream();
        let door = Door::with(&lab, &["--upstream", &address.to_string()]);
        for server in BOTH {
            let host = lab.raw_host(server);
            let mut script = host.script(2000, server).with_timestamps(1_000_000);
            script.syn();
            let first = script.expect_syn_ack();
            // The third ACK is lost. The client waits for the greeting; only the server can go on.
            let second = script.expect_syn_ack();
            assert!(support::say_the_same(&first, &second), "{first:?} then {second:?}");
            script.ack();
            upstream.accept().unwrap().0.write_all(b"220 hello\r\n").unwrap();
            assert_eq!(script.expect_data(11), b"220 hello\r\n");
        }
        door.assert_no_resets();
    });
}
