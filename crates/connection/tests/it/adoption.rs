//! The adopted socket on the wire: it continues the handshake, exactly.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use ::connection::adopt::{adopt, probe};
use listener::{Negotiated, Refusal};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use testnet::{Counters, Flags, Namespace, isolated, veth};

use crate::support::*;

/// Two adopted sockets that are each other's peer, in two namespaces.
fn pair(a: &Namespace, b: &Namespace, addr_a: &str, addr_b: &str, options: Negotiated) -> (TcpStream, TcpStream) {
    let (addr_a, addr_b) = (addr_a.parse().unwrap(), addr_b.parse().unwrap());
    let of = |local, peer, iss, irs| handshake(local, peer, iss, irs, options);
    let left = a.run(|| adopt(&of(addr_a, addr_b, 1000, 0xffff_fff0), &mut NoData)).unwrap().stream;
    let right = b.run(|| adopt(&of(addr_b, addr_a, 0xffff_fff0, 1000), &mut NoData)).unwrap().stream;
    (left, right)
}

fn exchange_and_close(left: &mut TcpStream, right: &mut TcpStream) {
    left.write_all(b"question").unwrap();
    assert_eq!(read_exactly(right, 8), b"question");
    left.shutdown(Shutdown::Write).unwrap();
    right.write_all(b"answer after the FIN").unwrap();
    right.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(left).unwrap(), b"answer after the FIN");
    assert_eq!(read_to_end(right).unwrap(), b"");
}

#[test]
fn two_adopted_ends_talk_and_half_close_in_both_families() {
    isolated!(|| {
        let lab = Lab::new();
        let client = lab.near.namespace();
        for (server, peer) in [(SERVER_V4, "198.18.0.2:40000"), (SERVER_V6, "[2001:db8::2]:40000")] {
            let (mut left, mut right) = pair(&lab.server, client, server, peer, usual_options());
            assert_eq!(left.peer_addr().unwrap(), peer.parse().unwrap());
            assert_eq!(left.local_addr().unwrap(), server.parse().unwrap());
            exchange_and_close(&mut left, &mut right);
        }
        assert_eq!(Counters::of(&lab.server).get("TcpOutRsts") + Counters::of(client).get("TcpOutRsts"), 0);
    });
}

#[test]
fn link_local_peers_are_reached_through_their_interface() {
    isolated!(|| {
        let (a, b) = (Namespace::new(), Namespace::new());
        let (left_end, right_end) = veth((&a, "left", &["fe80::1/64"]), (&b, "right", &["fe80::2/64"]));
        let (addr_a, addr_b) = ("[fe80::1]:8080".parse().unwrap(), "[fe80::2]:40000".parse().unwrap());
        let mut of_a = handshake(addr_a, addr_b, 1, 2, usual_options());
        let mut of_b = handshake(addr_b, addr_a, 2, 1, usual_options());
        (of_a.scope_id, of_b.scope_id) = (left_end.index(), right_end.index());
        let mut left = a.run(|| adopt(&of_a, &mut NoData)).unwrap().stream;
        let mut right = b.run(|| adopt(&of_b, &mut NoData)).unwrap().stream;
        exchange_and_close(&mut left, &mut right);
    });
}

#[test]
fn bulk_data_passes_both_ways_unharmed() {
    isolated!(|| {
        const LEN: usize = 4 << 20;
        let lab = Lab::new();
        let options = with_timestamps(500_000, 900_000);
        let (mut left, mut right) = pair(&lab.server, lab.near.namespace(), SERVER_V4, "198.18.0.2:40000", options);
        let pattern: Vec<u8> = (0..LEN).map(|at| (at * 31 % 251) as u8).collect();
        std::thread::scope(|scope| {
            for stream in [&left, &right] {
                let (mut stream, pattern) = (stream.try_clone().unwrap(), &pattern);
                stream.set_nonblocking(false).unwrap();
                scope.spawn(move || {
                    stream.write_all(pattern).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                });
            }
            let from_left = scope.spawn(|| read_to_end(&mut right).unwrap());
            assert!(read_to_end(&mut left).unwrap() == pattern, "right to left");
            assert!(from_left.join().unwrap() == pattern, "left to right");
        });
        assert_eq!(Counters::of(&lab.server).get("TcpExtPAWSEstab"), 0);
        assert_eq!(Counters::of(&lab.server).get("TcpExtTCPRcvQDrop"), 0);
    });
}

/// All combinations of window scaling, SACK and timestamps.
fn eight_combinations() -> impl Iterator<Item = Negotiated> {
    (0..8u8).map(|bits| {
        let full = with_timestamps(7_000_001, 5);
        Negotiated {
            peer_mss: 1400,
            peer_wscale: full.peer_wscale.filter(|_| bits & 1 != 0),
            local_wscale: full.local_wscale.filter(|_| bits & 1 != 0),
            sack: bits & 2 != 0,
            timestamps: full.timestamps.filter(|_| bits & 4 != 0),
        }
    })
}

#[test]
fn first_segments_continue_the_handshake_under_every_combination_of_options() {
    isolated!(|| {
        let lab = Lab::new();
        lab.send_segment_by_segment();
        let host = lab.host();
        for (port, options) in (1025..).zip(eight_combinations()) {
            let mut script = host.script(port, SERVER_V4.parse().unwrap());
            let accepted = shaken(&mut script, SERVER_V4, options);
            let mut stream = lab.adopt(&accepted, &mut NoData).unwrap();
            script.expect_silence(Duration::from_millis(20));

            stream.write_all(&[7; 3000]).unwrap();
            let first = script.expect("the first data", |frame| !frame.payload.is_empty());
            assert_eq!((first.seq, first.ack), (ISS.wrapping_add(1), accepted.irs.value().wrapping_add(1)));
            assert_eq!(first.flags.0 & !Flags::PSH.0, Flags::ACK.0);

            let window = u32::from(first.window) << options.local_wscale.unwrap_or(0);
            assert!((LOCAL_WINDOW..LOCAL_WINDOW + 128).contains(&window), "{window} with {options:?}");
            match (options.timestamps, first.timestamps()) {
                (None, None) => {}
                (Some(agreed), Some((value, _echo))) => {
                    let ahead = value.wrapping_sub(agreed.local);
                    assert!(ahead < 5000, "TSval {value} is not a few milliseconds after {}", agreed.local);
                }
                (agreed, seen) => panic!("timestamps {agreed:?} agreed, {seen:?} sent"),
            }
            let said = ss(&lab.server);
            assert_eq!(first.payload.len(), 1400 - if options.timestamps.is_some() { 12 } else { 0 }, "{said}");
            assert_eq!(said.contains(" sack"), options.sack, "{said}");
            assert_eq!(said.contains(" ts "), options.timestamps.is_some(), "{said}");
            let shifts = format!(" wscale:{0},{0} ", options.local_wscale.unwrap_or(0));
            assert!(options.local_wscale.is_none() || said.contains(&shifts), "{said}");

            drop(stream);
            script.send(&script.segment(Flags::RST | Flags::ACK).seq(accepted.irs.value().wrapping_add(1)));
            testnet::eventually("the connection is gone", PATIENCE, || ss(&lab.server).is_empty());
        }
    });
}

#[test]
fn timestamps_tick_in_milliseconds_from_odd_and_even_values() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        for (port, local) in [(2000, 7_000_000), (2001, 7_000_001), (2002, u32::MAX)] {
            let mut script = host.script(port, SERVER_V4.parse().unwrap()).with_timestamps(40);
            let accepted = shaken(&mut script, SERVER_V4, with_timestamps(local, 40));
            let mut stream = lab.adopt(&accepted, &mut NoData).unwrap();
            let mut values = Vec::new();
            for _ in 0..2 {
                stream.write_all(b"tick").unwrap();
                let frame = script.expect("data", |frame| !frame.payload.is_empty());
                values.push(frame.timestamps().unwrap().0);
                script.rcv_nxt = script.rcv_nxt.wrapping_add(4);
                script.ack();
                std::thread::sleep(Duration::from_millis(100));
            }
            let between = values[1].wrapping_sub(values[0]);
            assert!(values[0].wrapping_sub(local) < 5000 && (50..5000).contains(&between), "{local}: {values:?}");
        }
    });
}

#[test]
fn mss_of_any_size_is_kept_to() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        lab.send_segment_by_segment();
        for (port, peer_mss, expected) in [(3001, 88, 88), (3002, 536, 536), (3003, 1460, 1460), (3004, 65535, 1460)] {
            let mut script = host.script(port, SERVER_V4.parse().unwrap());
            let accepted = shaken(&mut script, SERVER_V4, Negotiated { peer_mss, ..usual_options() });
            let mut stream = lab.adopt(&accepted, &mut NoData).unwrap();
            stream.write_all(&[7; 1500]).unwrap();
            let first = script.expect("data", |frame| !frame.payload.is_empty());
            assert_eq!(first.payload.len(), expected, "{}", ss(&lab.server));
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    });
}

#[test]
fn a_client_may_fill_the_promised_window_at_once() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let mut script = host.script(4000, SERVER_V4.parse().unwrap());
        let accepted = shaken(&mut script, SERVER_V4, usual_options());
        let mut stream = lab.adopt(&accepted, &mut NoData).unwrap();
        let flight: Vec<u8> = (0..LOCAL_WINDOW).map(|at| (at % 251) as u8).collect();
        flight.chunks(1460).for_each(|segment| script.data(segment));
        script.expect_ack();
        assert!(read_exactly(&mut stream, flight.len()) == flight);
        assert_eq!(Counters::of(&lab.server).get("TcpExtBeyondWindow"), 0);
    });
}

#[test]
fn nothing_is_sent_beyond_the_window_of_the_client() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let mut script = host.script(4001, SERVER_V4.parse().unwrap());
        let mut accepted = shaken(&mut script, SERVER_V4, usual_options());
        accepted.peer_window = 1000;
        let mut stream = lab.adopt(&accepted, &mut NoData).unwrap();
        stream.write_all(&[7; 3000]).unwrap();
        let first = script.expect("data", |frame| !frame.payload.is_empty());
        assert_eq!(first.payload.len(), 1000);
    });
}

#[test]
fn tuple_that_lives_is_busy_and_unharmed() {
    isolated!(|| {
        let lab = Lab::new();
        let (mut left, mut right) =
            pair(&lab.server, lab.near.namespace(), SERVER_V4, "198.18.0.2:40000", usual_options());
        let again = handshake(SERVER_V4.parse().unwrap(), "198.18.0.2:40000".parse().unwrap(), 5, 6, usual_options());
        assert_eq!(lab.adopt(&again, &mut NoData).unwrap_err(), Refusal::TupleBusy);
        exchange_and_close(&mut left, &mut right);
    });
}

#[test]
fn address_that_is_not_ours_is_not_taken_for_a_busy_tuple() {
    isolated!(|| {
        let lab = Lab::new();
        let foreign =
            handshake("198.18.0.9:8080".parse().unwrap(), "198.18.0.2:4".parse().unwrap(), 5, 6, usual_options());
        let refusal = lab.adopt(&foreign, &mut NoData).unwrap_err();
        assert_eq!(refusal, Refusal::System(nix::libc::EADDRNOTAVAIL));
    });
}

#[test]
fn listener_can_be_bound_beside_adopted_connections() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let accepted = shaken(&mut host.script(5000, SERVER_V4.parse().unwrap()), SERVER_V4, usual_options());
        let _open = lab.adopt(&accepted, &mut NoData).unwrap();
        lab.server.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SERVER_V4.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
            socket.listen(1).unwrap();
        });
    });
}

#[test]
fn adopted_connection_is_found_before_the_listener_that_reserves_the_port() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let _listener = lab.server.run(|| TcpListener::bind(SERVER_V4).unwrap());
        let mut script = host.script(5001, SERVER_V4.parse().unwrap());
        let mut stream = lab.adopt(&shaken(&mut script, SERVER_V4, usual_options()), &mut NoData).unwrap();
        script.data(b"hello");
        assert_eq!(read_exactly(&mut stream, 5), b"hello");
        script.expect_ack();
    });
}

#[test]
fn reset_after_the_adoption_reaches_the_application() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let mut script = host.script(5002, SERVER_V4.parse().unwrap());
        let mut stream = lab.adopt(&shaken(&mut script, SERVER_V4, usual_options()), &mut NoData).unwrap();
        script.send(&script.segment(Flags::RST));
        assert_eq!(read_to_end(&mut stream).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn without_descriptors_the_refusal_says_so_and_the_next_attempt_succeeds() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let accepted = shaken(&mut host.script(6000, SERVER_V4.parse().unwrap()), SERVER_V4, usual_options());
        let (refusal, adopted) = lab.server.run(|| {
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
            let refusal = adopt(&accepted, &mut NoData).map(|_| ());
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            (refusal, adopt(&accepted, &mut NoData))
        });
        assert_eq!(refusal, Err(Refusal::NoDescriptors));
        adopted.unwrap();
    });
}

#[test]
fn probe_tells_whether_adoption_is_allowed() {
    isolated!(|| {
        let lab = Lab::new();
        lab.server.run(|| {
            probe().unwrap();
            caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_ADMIN).unwrap();
            assert_eq!(probe().unwrap_err().kind(), ErrorKind::PermissionDenied);
        });
    });
}
