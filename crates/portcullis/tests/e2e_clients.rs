//! Ordinary clients: whatever kernel or order of segments they come with, every byte comes back, once and in order.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use support::{BOTH, Door, Lab, PATIENCE, PORT, V4, connect_from, exchange};
use testnet::{Counters, Flags, Namespace, Tap, XorShift, connect_with_late_ack, eventually, isolated};

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

/// Bytes that clients send at once: a bare request, one segment, two, three, and a request with many cookies.
const EARLY_LENS: [usize; 5] = [18, 1400, 1800, 4000, 8000];
/// Clients of each size and family.
const EARLY_ROUNDS: usize = 20;

/// A way to connect.
type Connect = fn(&Lab, SocketAddr) -> TcpStream;

/// The client's first data comes right behind its third ACK ...
fn data_behind_the_ack(lab: &Lab, server: SocketAddr) -> TcpStream {
    lab.connect(server)
}

/// ... or on it.
fn data_on_the_ack(lab: &Lab, server: SocketAddr) -> TcpStream {
    connect_with_late_ack(&lab.client, server, PATIENCE).unwrap_or_else(|error| panic!("connect to {server}: {error}"))
}

/// What clients had to do more than once.
#[derive(Debug, PartialEq, Eq)]
struct Repeats {
    segments: i64,
    /// Those that waited for a timer.
    timeouts: i64,
}

/// Clients that send so many bytes at once and read them back.
fn early_repeats(lab: &Lab, server: SocketAddr, len: usize, connect: Connect) -> Repeats {
    let before = Counters::of(&lab.client);
    for round in 0..EARLY_ROUNDS {
        let bytes = XorShift::new((len + round) as u64).bytes(len);
        let back = support::echo(&mut connect(lab, server), &bytes);
        let back = back.unwrap_or_else(|error| panic!("{len} bytes to {server}: {error}"));
        assert!(back == bytes, "{len} bytes to {server} came back as others");
    }
    let after = Counters::of(&lab.client);
    let more = |name| after.get(name) - before.get(name);
    Repeats { segments: more("TcpRetransSegs"), timeouts: more("TcpExtTCPTimeouts") }
}

fn assert_no_early_repeats(lab: &Lab, lens: &[usize], connect: Connect) {
    for server in BOTH {
        for len in lens {
            let repeats = early_repeats(lab, server, *len, connect);
            assert_eq!(repeats, Repeats { segments: 0, timeouts: 0 }, "{len} bytes to {server}");
        }
    }
}

/// Has the client's kernel repeat a segment only after two seconds without an ACK: one that was lost, and not one whose
/// ACK a busy machine delayed.
fn never_repeat_in_vain(lab: &Lab) {
    let name = lab.client_end.name();
    lab.client.ip(&format!("route replace 198.18.0.0/24 dev {name} proto kernel scope link rto_min 2s"));
    lab.client.ip(&format!("-6 route replace 2001:db8::/64 dev {name} proto kernel metric 256 rto_min 2s"));
    lab.client.sysctl("net.ipv4.tcp_early_retrans", "0"); // No tail loss probes.
}

#[test]
fn data_sent_at_once_waits_for_no_retransmission() {
    isolated!(|| {
        let lab = Lab::new();
        never_repeat_in_vain(&lab);
        let door = Door::open(&lab, "echo");
        assert_no_early_repeats(&lab, &EARLY_LENS, data_behind_the_ack);
        assert_no_early_repeats(&lab, &EARLY_LENS, data_on_the_ack);
        door.assert_no_resets();
    });
}

#[test]
fn data_sent_at_once_in_single_segments_waits_for_no_retransmission() {
    isolated!(|| {
        let lab = Lab::new();
        lab.client_end.send_single_segments();
        never_repeat_in_vain(&lab);
        let door = Door::open(&lab, "echo");
        let [few @ .., many] = EARLY_LENS;
        assert_no_early_repeats(&lab, &few, data_behind_the_ack);
        assert_no_early_repeats(&lab, &EARLY_LENS, data_on_the_ack);
        for server in BOTH {
            // What comes in the last microsecond of the socket's making is left to the client, which learns of the gap
            // at once, from what came behind it. That is rare, but of six segments one is hit more easily.
            let repeats = early_repeats(&lab, server, many, data_behind_the_ack);
            let clients = EARLY_ROUNDS as i64;
            assert!(
                repeats.timeouts == 0 && repeats.segments <= clients / 2,
                "{repeats:?} of {clients} clients, {many} bytes to {server}"
            );
        }
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
            let large = tap.find(PATIENCE, |frame| frame.ip_len > 1500);
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
            support::expect_no_more_than_acks(&mut script, Duration::from_millis(300));
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
