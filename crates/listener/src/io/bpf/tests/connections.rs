//! The whole way: the program stands at the loopback device of the test's own namespace, and a client that is no socket
//! sends the last segments of handshakes that never began.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::super::attach::{Attached, BpfHook};
use super::super::layout::{Kind, TOOK};
use super::acks::{IRS, LOOKS_UP, OFFER_A, OFFER_B, OFFERS, listen, third_ack};
use super::*;
use crate::cookie::{Cookie, clock_time};
use crate::io::interfaces::Interfaces;
use crate::io::worker::clock;

const DEADLINE: Duration = Duration::from_secs(10);

/// Puts the program at the loopback device, for as long as the value lives.
fn attach(bench: &mut Bench) -> Attached {
    let mut attached = Attached::new(None, None);
    let interfaces = Interfaces::read().unwrap();
    attached.update(&mut bench.programs, &interfaces, &["lo".to_owned()], BpfHook::Tc).unwrap();
    attached
}

/// Sends the packet in a frame over loopback.
fn send(frame: &[u8]) {
    let parsed = Packet::parse_ip(&frame[14..], frame.len() - 14, Checksums::Trust).unwrap();
    let to = SocketAddr::new(parsed.tuple.local.addr, 0);
    let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
    assert_eq!(socket.send_to(&frame[14..], &to.into()).unwrap(), frame.len() - 14);
}

fn accept(listener: &TcpListener) -> (TcpStream, FourTuple) {
    let timeout = PollTimeout::try_from(DEADLINE).unwrap();
    assert_eq!(poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], timeout), Ok(1), "no connection");
    let (stream, peer) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let local = Endpoint::from(listener.local_addr().unwrap());
    (stream, FourTuple { local, peer: Endpoint::from(peer) })
}

/// Client `number`'s flow; each is used once.
fn flow_of(family: usize, number: u16) -> FourTuple {
    let (client, server) = PAIRS[family];
    let mut flow = tuple(client, server);
    flow.peer.port += number;
    flow
}

fn minted_now(bench: &mut Bench, flow: &FourTuple, irs: SeqNum, offer: &crate::cookie::Offer) -> Cookie {
    bench.jar.mint(flow, irs, offer, clock())
}

#[test]
fn a_good_cookie_becomes_a_connection_with_the_clients_options() {
    on_bench(CALM, |bench| {
        let _attached = attach(bench);
        for (family, listener) in listen().into_iter().enumerate() {
            for (number, (words, offer)) in
                (0..).zip([CALM, PRESSED].into_iter().flat_map(|words| OFFERS.map(|offer| (words, offer))))
            {
                bench.order(words);
                let flow = flow_of(family, number);
                let cookie = minted_now(bench, &flow, IRS, &offer);
                let before = bench.counted();
                send(&third_ack(&flow, IRS, &cookie, b"hello"));
                let (mut stream, accepted) = accept(&listener);
                assert_eq!(accepted, flow);
                let mut data = [0; 5];
                stream.read_exact(&mut data).unwrap();
                assert_eq!(&data, b"hello", "the data behind the handshake");
                assert_eq!(SockRef::from(&stream).tcp_mss().unwrap(), segment_of(family, &offer));
                let mut counted = bench.counted_since(&before);
                counted.retain(|&what| what < Counted::Took as usize);
                assert_eq!(counted, [Counted::CookiesValid as usize]);
                let told = bench.take_reports();
                let told: Vec<_> = told.iter().map(|r| (r.kind, r.tuple, r.irs, r.iss, r.offer.tsval)).collect();
                // Its clock says how long the handshake took.
                let expected = [(Kind::Accepted, flow, IRS, cookie.isn, cookie.tsval)];
                assert_eq!(told, &expected[..usize::from(words.reports)]);
            }
        }
    });
}

/// What is counted when this client's handshake is completed, at a moment that is always the same.
fn counted_at(
    bench: &mut Bench,
    listener: &TcpListener,
    flow: &FourTuple,
    offer: &crate::cookie::Offer,
    began: Time,
) -> Vec<usize> {
    let cookie = bench.jar.mint(flow, IRS, offer, began);
    let before = bench.counted();
    send(&third_ack(flow, IRS, &cookie, &[]));
    let _connection = accept(listener);
    bench.counted_since(&before)
}

/// By the clock in the cookie, if it has one, and only where nobody is told of the handshake.
#[test]
fn under_pressure_it_is_counted_how_long_handshakes_took() {
    const VALID: usize = Counted::CookiesValid as usize;
    on_bench(PRESSED, |bench| {
        let _attached = attach(bench);
        for (family, listener) in listen().into_iter().enumerate() {
            for (number, (step, units)) in (200..).zip((0..).zip(TOOK)) {
                let began = NOW - clock_time(units);
                let counted = counted_at(bench, &listener, &flow_of(family, number), &OFFER_A, began);
                let mut expected = vec![VALID, Counted::Took as usize + step];
                expected.extend(vec![Counted::TookUnits as usize; units as usize]);
                assert_eq!(counted, expected, "{units} units");
            }
            // Made by a clock that is ahead: it has taken no time, and not the whole of a round.
            let counted = counted_at(bench, &listener, &flow_of(family, 299), &OFFER_A, NOW + clock_time(3));
            assert_eq!(counted, [VALID, Counted::Took as usize]);
            for (number, (words, offer)) in (300..).zip([(PRESSED, OFFER_B), (CALM, OFFER_A)]) {
                bench.order(words);
                assert_eq!(counted_at(bench, &listener, &flow_of(family, number), &offer, NOW), [VALID]);
            }
            bench.order(PRESSED);
        }
    });
}

/// What fits into a segment: the client's MSS as the cookie has it, less the timestamps.
fn segment_of(family: usize, offer: &crate::cookie::Offer) -> u32 {
    match (family, offer.tsval) {
        (0, Some(_)) => 1460 - 12,
        (_, Some(_)) => 1440 - 12,
        (_, None) => 1440,
    }
}

/// The client's segment behind a handshake repeats the cookie, until it has seen ours: that proves nothing new.
#[test]
fn a_repeated_last_segment_is_the_connections_own() {
    on_bench(CALM, |bench| {
        let _attached = attach(bench);
        for (family, listener) in listen().into_iter().enumerate() {
            for (number, offer) in (0..).zip(OFFERS) {
                let flow = flow_of(family, 100 + number);
                let cookie = minted_now(bench, &flow, IRS, &offer);
                let ack = third_ack(&flow, IRS, &cookie, b"once");
                send(&ack);
                let (mut stream, _) = accept(&listener);
                stream.read_exact(&mut [0; 4]).unwrap();
                bench.take_reports();
                // Another handshake begins, so what was noted of the last one is forgotten.
                let irs = IRS + 100_000;
                let _ = bench.at(Hook::Loopback, &frame(&flow, Flags::SYN, irs, SeqNum::new(0), &[2, 4, 5, 180], &[]));
                bench.take_reports();
                let before = bench.counted();
                assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Passed);
                assert_eq!((bench.counted_since(&before), bench.take_reports()), (vec![], vec![]));
                // Its last segment is another matter.
                let cookie = minted_now(bench, &flow, irs, &offer);
                assert_eq!(bench.at(Hook::Loopback, &third_ack(&flow, irs, &cookie, &[])), Fate::Passed);
                if offer.tsval.is_none() {
                    // Form B is not proof enough against a socket that lives.
                    assert_eq!(bench.counted_since(&before), [Counted::TupleBusy as usize]);
                    assert_eq!(bench.take_reports(), []);
                    continue;
                }
                let [report] = bench.take_reports()[..] else { panic!("not one report") };
                assert_eq!((report.kind, report.tuple, report.irs, report.iss), (Kind::Held, flow, irs, cookie.isn));
            }
        }
    });
}

/// The kernel shows the programs all packets of a batch before it makes a connection of the first.
#[test]
fn what_comes_right_behind_the_last_segment_is_left_to_the_socket_in_the_making() {
    on_bench(CALM, |bench| {
        let _attached = attach(bench);
        for (family, listener) in listen().into_iter().enumerate() {
            for (number, (words, offer)) in
                (0..).zip([CALM, PRESSED, LOOKS_UP].into_iter().flat_map(|words| OFFERS.map(|offer| (words, offer))))
            {
                bench.order(words);
                let flow = flow_of(family, 400 + number);
                let cookie = minted_now(bench, &flow, IRS, &offer);
                send(&third_ack(&flow, IRS, &cookie, &[]));
                // Gone again with a RST: as far as the kernel knows, there is no connection.
                let (stream, _) = accept(&listener);
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                drop(stream);
                bench.take_reports();
                let before = bench.counted();
                for segment in [
                    third_ack(&flow, IRS, &cookie, b"hello"),
                    frame(&flow, Flags::ACK | Flags::FIN, IRS + 6, cookie.isn + 1, &[], &[]),
                ] {
                    assert_eq!(bench.at(Hook::Loopback, &segment), Fate::Passed, "{words:?}");
                }
                assert_eq!(bench.counted_since(&before), [Counted::UnknownPassed as usize; 2]);
                assert_eq!(bench.take_reports(), []);
            }
        }
    });
}

/// Where the kernel may find no room for the handshake, what follows would be met by its reset.
#[test]
fn what_comes_behind_a_last_segment_that_may_find_no_room_has_to_prove_itself() {
    on_bench(PRESSED, |bench| {
        let _attached = attach(bench);
        let listener = TcpListener::bind(SERVER).unwrap();
        SockRef::from(&listener).listen(16).unwrap();
        let flow = flow_of(0, 500);
        let cookie = minted_now(bench, &flow, IRS, &OFFER_A);
        send(&third_ack(&flow, IRS, &cookie, &[]));
        let (stream, _) = accept(&listener);
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        let fin = frame(&flow, Flags::ACK | Flags::FIN, IRS + 6, cookie.isn + 1, &[], &[]);
        assert_eq!(bench.at(Hook::Loopback, &fin), Fate::Dropped);
    });
}

/// The program does not check the sum of an ACK; the kernel does, before it makes anything of it.
#[test]
fn a_damaged_last_segment_makes_no_connection() {
    on_bench(CALM, |bench| {
        let _attached = attach(bench);
        for (family, listener) in listen().into_iter().enumerate() {
            for (number, offer) in (0..).step_by(2).zip([OFFER_A, OFFER_B]) {
                let [bad, good] = [200, 201].map(|first| flow_of(family, first + number));
                let cookie = minted_now(bench, &bad, IRS, &offer);
                let mut ack = third_ack(&bad, IRS, &cookie, b"hello");
                *ack.last_mut().unwrap() ^= 1;
                send(&ack);
                let cookie = minted_now(bench, &good, IRS, &offer);
                send(&third_ack(&good, IRS, &cookie, b"hello"));
                let (_stream, accepted) = accept(&listener);
                assert_eq!(accepted, good, "packets over loopback keep their order");
                listener.set_nonblocking(true).unwrap();
                assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
                listener.set_nonblocking(false).unwrap();
            }
        }
    });
}

/// Nobody gets in by a cookie for another's address.
#[test]
fn a_cookie_from_another_address_makes_no_connection() {
    on_bench(ListenerWords { looks_up: true, ..CALM }, |bench| {
        let _attached = attach(bench);
        let [listener, _] = listen();
        let [theirs, good] = [300, 301].map(|number| flow_of(0, number));
        let cookie = minted_now(bench, &theirs, IRS, &OFFER_A);
        let thief = FourTuple { peer: Endpoint { addr: IpAddr::from([127, 0, 0, 9]), ..theirs.peer }, ..theirs };
        send(&third_ack(&thief, IRS, &cookie, &[]));
        let cookie = minted_now(bench, &good, IRS, &OFFER_A);
        send(&third_ack(&good, IRS, &cookie, &[]));
        assert_eq!(accept(&listener).1, good);
        assert_eq!((bench.count(Counted::BadCookie), bench.count(Counted::CookiesValid)), (1, 1));
    });
}
