//! Bytes sent right behind the handshake: delivered once, in order, whichever way they came.

use std::io::Write;
use std::time::Duration;

use ::connection::adopt::adopt;
use listener::{EARLY_DATA_MAX_BYTES, EarlyData, Refusal, Timestamps};
use testnet::{Counters, Flags, Script, isolated, own_socket};

use crate::support::*;

/// A tap whose looks show what a closure says, given the number of the look, from 0.
struct Tap<F> {
    looks: usize,
    seen: Vec<u8>,
    look: F,
}

impl<F: FnMut(usize) -> Vec<u8>> Tap<F> {
    fn new(look: F) -> Tap<F> {
        Tap { looks: 0, seen: Vec::new(), look }
    }
}

impl<F: FnMut(usize) -> Vec<u8>> EarlyData for Tap<F> {
    fn collect(&mut self) -> &[u8] {
        self.seen = (self.look)(self.looks);
        self.looks += 1;
        &self.seen
    }
}

/// Runs the body with a lab, a script and the handshake between the two.
fn with_script(body: impl FnOnce(&Lab, Script<'_>, listener::Accepted)) {
    let lab = Lab::new();
    let host = lab.host();
    let mut script = host.script(7000, SERVER_V4.parse().unwrap());
    let accepted = shaken(&mut script, SERVER_V4, usual_options());
    body(&lab, script, accepted);
}

#[test]
fn early_data_is_read_once_and_what_follows_follows() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            let mut stream = lab.adopt(&accepted, &mut Tap::new(|_| b"GET / ".to_vec())).unwrap();
            // The client has no acknowledgment yet and sends it again, then goes on.
            script.data(b"GET / ");
            script.expect_ack();
            script.data(b"HTTP/1.1");
            script.expect_ack();
            assert_eq!(read_exactly(&mut stream, 14), b"GET / HTTP/1.1");
            assert_nothing_to_read(&mut stream);
        });
    });
}

#[test]
fn early_data_may_fill_its_bound() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            let bytes: Vec<u8> = (0..EARLY_DATA_MAX_BYTES).map(|at| (at * 7 % 253) as u8).collect();
            let adopted = lab.server.run(|| adopt(&accepted, &mut Tap::new(|_| bytes.clone()))).unwrap();
            assert_eq!(adopted.received_bytes as usize, bytes.len());
            let mut stream = adopted.stream;
            script.snd_nxt = script.snd_nxt.wrapping_add(bytes.len() as u32);
            script.data(b"more");
            script.expect_ack();
            assert!(read_exactly(&mut stream, bytes.len()) == bytes);
            assert_eq!(read_exactly(&mut stream, 4), b"more");
        });
    });
}

#[test]
fn window_is_what_the_client_was_promised_less_the_early_data() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            let early = vec![1; 10_000];
            let _stream = lab.adopt(&accepted, &mut Tap::new(|_| early.clone())).unwrap();
            script.snd_nxt = script.snd_nxt.wrapping_add(10_000);
            let rest = vec![2; LOCAL_WINDOW as usize - early.len()];
            rest.chunks(1460).for_each(|segment| script.data(segment));
            script.expect_ack();
            assert_eq!(Counters::of(&lab.server).get("TcpExtBeyondWindow"), 0);
        });
    });
}

#[test]
fn bytes_dropped_between_the_last_look_and_the_unmuting_are_found_by_the_next_look() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            let mut tap = Tap::new(|look| if look == 0 { b"abc".to_vec() } else { b"abcdef".to_vec() });
            let adopted = lab.server.run(|| adopt(&accepted, &mut tap)).unwrap();
            assert_eq!(adopted.received_bytes, 6);
            let mut stream = adopted.stream;
            script.data(b"abcdef");
            script.data(b"ghi");
            script.expect_ack();
            assert_eq!(read_exactly(&mut stream, 9), b"abcdefghi");
            assert_nothing_to_read(&mut stream);
        });
    });
}

/// The looks of one adoption: 0 before the unmuting, 1 after, then, since that one showed more, 2 compared with the socket.
#[test]
fn bytes_the_socket_got_itself_are_not_injected_again() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            script.snd_nxt = script.snd_nxt.wrapping_add(3);
            let mut tap = Tap::new(|look| match look {
                0 => b"abc".to_vec(),
                1 => {
                    script.data(b"def");
                    script.expect_ack(); // Now the socket has them.
                    b"abcdef".to_vec()
                }
                _ => b"abcdef".to_vec(),
            });
            let adopted = lab.server.run(|| adopt(&accepted, &mut tap)).unwrap();
            assert_eq!(adopted.received_bytes, 6);
            let mut stream = adopted.stream;
            assert_eq!(read_exactly(&mut stream, 6), b"abcdef");
            assert_nothing_to_read(&mut stream);
        });
    });
}

#[test]
fn only_what_the_socket_lacks_is_injected_and_later_losses_are_found_too() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            script.snd_nxt = script.snd_nxt.wrapping_add(3);
            let mut tap = Tap::new(|look| match look {
                0 => b"abc".to_vec(),
                1 => {
                    script.data(b"def");
                    script.expect_ack();
                    b"abcdefgh".to_vec() // "gh" was dropped.
                }
                2 | 3 => b"abcdefgh".to_vec(),
                _ => b"abcdefghij".to_vec(), // "ij" was dropped in the second round.
            });
            let mut stream = lab.adopt(&accepted, &mut tap).unwrap();
            script.data(b"ghij");
            script.data(b"k");
            script.expect_ack();
            assert_eq!(read_exactly(&mut stream, 11), b"abcdefghijk");
            assert_nothing_to_read(&mut stream);
        });
    });
}

/// Appends bytes to the receive queue of the socket in the making, as a segment does that had passed its filter before that
/// was closed.
fn append_late(accepted: &listener::Accepted, bytes: &[u8]) {
    let (local, peer) = (accepted.tuple.local.into(), accepted.tuple.peer.into());
    let mut socket = own_socket(local, peer).expect("the socket in the making");
    socket.write_all(bytes).unwrap(); // In repair mode this is what it means.
}

/// The looks of one adoption whose first bytes are dropped: 0 before the unmuting, 1 after, 2 compared with the socket, 3 with the
/// socket muted again, right before the bytes are injected.
#[test]
fn bytes_that_came_by_both_ways_are_delivered_once() {
    isolated!(|| {
        for clock in [None, Some(Timestamps { local: 1_000_000, peer: 5 })] {
            with_script(|lab, mut script, mut accepted| {
                accepted.options.timestamps = clock;
                if clock.is_some() {
                    script = script.with_timestamps(5);
                }
                let mut tap = Tap::new(|look| match look {
                    0 => Vec::new(),
                    3 => {
                        append_late(&accepted, b"abc");
                        b"abc".to_vec()
                    }
                    _ => b"abcd".to_vec(),
                });
                let adopted = lab.server.run(|| adopt(&accepted, &mut tap)).unwrap();
                assert!(tap.looks > 4, "the adoption did not start over: this proved nothing");
                assert_eq!(adopted.received_bytes, 4);
                script.snd_nxt = script.snd_nxt.wrapping_add(4);
                script.data(b"ef");
                let ack = script.expect_ack();
                if let Some(clock) = clock {
                    let (tsval, _) = ack.timestamps().expect("timestamps in use");
                    assert!((clock.local + 2..clock.local + 60_000).contains(&tsval), "{tsval}");
                }
                let mut stream = adopted.stream;
                assert_eq!(read_exactly(&mut stream, 6), b"abcdef");
                assert_nothing_to_read(&mut stream);
            });
        }
    });
}

#[test]
fn bytes_that_came_twice_and_that_the_tap_has_not_end_the_connection() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            let mut tap = Tap::new(|look| match look {
                0 => Vec::new(),
                3 => {
                    append_late(&accepted, b"abcd");
                    b"abc".to_vec()
                }
                _ => b"abc".to_vec(),
            });
            let refusal = lab.adopt(&accepted, &mut tap).unwrap_err();
            assert_eq!(refusal, Refusal::System(libc::ECONNABORTED));
            script.expect("a reset", |frame| frame.flags.has(Flags::RST));
        });
    });
}

#[test]
fn bytes_that_came_twice_each_time_end_the_connection() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            let mut sockets = 0;
            let mut tap = Tap::new(|look| match look % 5 {
                // Of one socket after the other; the last look decides whether there is another one.
                0 => Vec::new(),
                3 => {
                    sockets += 1;
                    append_late(&accepted, b"abc");
                    b"abc".to_vec()
                }
                _ => b"abc".to_vec(),
            });
            let refusal = lab.adopt(&accepted, &mut tap).unwrap_err();
            assert_eq!(refusal, Refusal::System(libc::ECONNABORTED));
            script.expect("a reset", |frame| frame.flags.has(Flags::RST));
            assert_eq!(sockets, 3);
        });
    });
}

#[test]
fn the_search_is_bounded_and_the_rest_is_left_to_retransmission() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            // Every look shows one byte more, as if each had been dropped just before.
            let mut looks = 0;
            let adopted = lab.server.run(|| {
                adopt(
                    &accepted,
                    &mut Tap::new(|look| {
                        looks = look;
                        vec![b'x'; look + 1]
                    }),
                )
            });
            let adopted = adopted.unwrap();
            assert!(looks < 20, "{looks} looks");
            let mut stream = adopted.stream;
            let has = adopted.received_bytes as usize;
            script.data(&[b'x'; 30]);
            script.expect_ack();
            assert_eq!(read_exactly(&mut stream, 30), [b'x'; 30]);
            assert!((1..30).contains(&has));
            assert_nothing_to_read(&mut stream);
        });
    });
}

/// What arrives while the socket is muted is neither acknowledged nor queued by the kernel; the tap alone counts.
fn muted_socket_hears_nothing() {
    with_script(|lab, mut script, accepted| {
        let mut tap = Tap::new(|look| {
            if look == 0 {
                script.data(b"abc");
                script.expect_silence(Duration::from_millis(50));
                return Vec::new();
            }
            b"abc".to_vec()
        });
        let mut stream = lab.adopt(&accepted, &mut tap).unwrap();
        script.data(b"def");
        script.expect_ack();
        assert_eq!(read_exactly(&mut stream, 6), b"abcdef");
        assert_nothing_to_read(&mut stream);
    });
}

#[test]
fn muted_socket_hears_nothing_by_a_filter_of_its_own() {
    isolated!(muted_socket_hears_nothing);
}

/// In a user namespace nobody may load the eBPF program that sockets share; this test has the rights of the host, if it has them.
#[test]
fn muted_socket_hears_nothing_by_the_shared_filter() {
    let has = |capability| caps::has_cap(None, caps::CapSet::Effective, capability).unwrap();
    if has(caps::Capability::CAP_SYS_ADMIN) && has(caps::Capability::CAP_NET_ADMIN) {
        muted_socket_hears_nothing();
    }
}

#[test]
fn fin_that_arrives_after_the_unmuting_is_an_end_and_not_a_byte() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            script.snd_nxt = script.snd_nxt.wrapping_add(1);
            let mut tap = Tap::new(|look| match look {
                0 => b"a".to_vec(),
                1 => {
                    script.data(b"b");
                    script.fin();
                    script.expect_ack();
                    b"ab".to_vec()
                }
                _ => b"ab".to_vec(),
            });
            let mut stream = lab.adopt(&accepted, &mut tap).unwrap();
            assert_eq!(read_to_end(&mut stream).unwrap(), b"ab");
        });
    });
}

#[test]
fn bytes_that_wait_out_of_order_for_a_dropped_one_are_not_doubled() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            script.snd_nxt = script.snd_nxt.wrapping_add(3);
            let mut tap = Tap::new(|look| match look {
                0 => b"ab".to_vec(),
                1 => {
                    script.data(b"d"); // "c" was dropped; this one the socket keeps aside, and says so.
                    script.expect("a duplicate acknowledgment", |frame| frame.flags.has(Flags::ACK));
                    b"abcd".to_vec()
                }
                _ => b"abcd".to_vec(),
            });
            let mut stream = lab.adopt(&accepted, &mut tap).unwrap();
            script.data(b"e");
            script.expect_ack();
            assert_eq!(read_exactly(&mut stream, 5), b"abcde");
            assert_nothing_to_read(&mut stream);
        });
    });
}

#[test]
fn a_refused_adoption_sends_nothing_and_can_be_repeated() {
    isolated!(|| {
        with_script(|lab, mut script, accepted| {
            let first = lab.adopt(&accepted, &mut NoData).unwrap();
            let second = lab.adopt(&accepted, &mut Tap::new(|_| b"early".to_vec()));
            assert_eq!(second.unwrap_err(), Refusal::TupleBusy);
            script.expect_silence(Duration::from_millis(50));
            drop(first);
        });
    });
}
