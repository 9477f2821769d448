//! The program itself, at work on sockets of this host.

use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::MutexGuard;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use testnet::eventually_seen;

use super::*;
use crate::state::TcpState::{self, *};
use crate::transition::Transition;

/// A counter; `None` where tests that need rights are to be skipped.
fn counter() -> Option<TransitionCounter> {
    const SKIP: &str = "PORTCULLIS_SKIP_PRIVILEGED";
    if std::env::var(SKIP).is_ok_and(|value| value == "1") {
        println!("skipped, because {SKIP}=1");
        return None;
    }
    Some(
        TransitionCounter::open()
            .unwrap_or_else(|error| panic!("needs CAP_BPF and CAP_PERFMON (or {SKIP}=1): {error}")),
    )
}

/// The places of a process are few: one test at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A listening socket of the kernel's, at an address of this test's own.
fn listener(address: [u8; 4]) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::from(address), 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn accepted(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// A connection that its client closes first.
fn live_and_die(listener: &TcpListener) {
    let (mut client, mut server) = accepted(listener);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

const LIVED_AND_DIED: [(TcpState, TcpState); 3] = [(Established, CloseWait), (CloseWait, LastAck), (LastAck, Closed)];

/// Waits until these steps were counted, and no others.
fn expect(counter: &TransitionCounter, expected: &[((TcpState, TcpState), u64)]) {
    let mut counts = TransitionCounts::default();
    for ((from, to), count) in expected {
        counts[Transition { from: *from, to: *to }.index().unwrap()] = *count;
    }
    let what = format!("{counts:?} counted");
    eventually_seen(&what, Duration::from_secs(10), || counter.counts(), |counted| *counted == counts);
}

#[test]
fn a_key_is_laid_out_as_the_program_reads_it() {
    let key = guard_key(&"192.0.2.1:80".parse().unwrap(), 0x0102_0304);
    assert_eq!(key[..16], "::ffff:192.0.2.1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    assert_eq!(key[16..20], 0x0102_0304_u32.to_ne_bytes());
    assert_eq!(key[20..], [0, 80, 0, 0]);
    assert_eq!(port_of(&key), 80);
}

#[test]
fn steps_are_the_owners_of_the_local_address() {
    let _turn = turn();
    let Some(counter) = counter() else { return };
    let ((guarded, addr), (other, _)) = (listener([127, 77, 0, 1]), listener([127, 77, 0, 2]));
    counter.guard(&[addr], Handshakes::Ours).unwrap();
    live_and_die(&guarded);
    live_and_die(&other);
    expect(&counter, &LIVED_AND_DIED.map(|step| (step, 1)));
}

#[test]
fn the_kernels_handshakes_count_where_we_do_none() {
    let _turn = turn();
    let Some(counter) = counter() else { return };
    let (guarded, addr) = listener([127, 77, 0, 3]);
    counter.guard(&[addr], Handshakes::Kernels).unwrap();
    let _open = accepted(&guarded);
    expect(&counter, &[((Listen, SynReceived), 1), ((SynReceived, Established), 1)]);
}

#[test]
fn a_named_address_goes_before_the_wildcard_and_the_last_claim_before_both() {
    let _turn = turn();
    let (Some(any), Some(named), Some(late)) = (counter(), counter(), counter()) else { return };
    let (guarded, addr) = listener([127, 77, 0, 4]);
    any.guard(&[SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port())], Handshakes::Ours).unwrap();
    live_and_die(&guarded);
    expect(&any, &LIVED_AND_DIED.map(|step| (step, 1)));
    named.guard(&[addr], Handshakes::Ours).unwrap();
    live_and_die(&guarded);
    expect(&named, &LIVED_AND_DIED.map(|step| (step, 1)));
    late.guard(&[addr], Handshakes::Ours).unwrap();
    drop(named); // It no longer has what it could give back.
    live_and_die(&guarded);
    expect(&late, &LIVED_AND_DIED.map(|step| (step, 1)));
    expect(&any, &LIVED_AND_DIED.map(|step| (step, 1)));
    drop(late);
    live_and_die(&guarded);
    expect(&any, &LIVED_AND_DIED.map(|step| (step, 2)));
}

#[test]
fn a_place_that_is_taken_again_begins_at_nothing() {
    let _turn = turn();
    let Some(counter) = counter() else { return };
    let (guarded, addr) = listener([127, 77, 0, 5]);
    counter.guard(&[addr], Handshakes::Ours).unwrap();
    live_and_die(&guarded);
    expect(&counter, &LIVED_AND_DIED.map(|step| (step, 1)));
    let TransitionCounter { program, slot, .. } = &counter;
    program.guard(*slot, &[], false).unwrap();
    let (program, slot) = (program.clone(), *slot);
    drop(counter);
    assert_eq!(program.take_slot().unwrap(), slot, "the lowest that is free");
    assert_eq!(program.counts(slot).unwrap(), TransitionCounts::default());
    program.give_back(slot);
}

#[test]
fn one_listener_too_many_is_told_so() {
    let _turn = turn();
    let Some(first) = counter() else { return };
    let mut others = Vec::new();
    let error = loop {
        match TransitionCounter::open() {
            Ok(counter) => others.push(counter),
            Err(error) => break error,
        }
        assert!(others.len() < 64);
    };
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("64 listeners"), "{error}");
    drop((first, others));
}

#[test]
fn a_socket_that_vanishes_in_repair_was_no_connection() {
    let _turn = turn();
    let Some(counter) = counter() else { return };
    let ((_taken, addr), (_peer, peer)) = (listener([127, 77, 0, 6]), listener([127, 77, 0, 7]));
    counter.guard(&[SocketAddr::new(addr.ip(), addr.port() ^ 1)], Handshakes::Kernels).unwrap();
    for (repair, expected) in [(true, 0), (false, 1)] {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        setsockopt(&socket, sockopt::TcpRepair, &1).unwrap_or_else(|error| panic!("needs CAP_NET_ADMIN: {error}"));
        socket.bind(&SocketAddr::new(addr.ip(), addr.port() ^ 1).into()).unwrap();
        socket.connect(&peer.into()).unwrap();
        if !repair {
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            setsockopt(&socket, sockopt::TcpRepair, &u32::MAX).unwrap();
        }
        drop(socket);
        expect(&counter, &[((Established, Closed), expected)]);
    }
}
