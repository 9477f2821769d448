//! Segments on a 4-tuple for which the kernel has a socket already, and a listening socket that is full.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::super::layout::Kind;
use super::acks::{IRS, OFFER_A, OFFER_B, OFFERS, listen, third_ack, third_ack_at};
use super::*;

/// A connection of the kernel's with itself, and its tuple as the server sees it.
struct Connected {
    _ends: [TcpStream; 2],
    flow: FourTuple,
}

fn connect(listener: &TcpListener) -> Connected {
    let local = listener.local_addr().unwrap();
    let client = TcpStream::connect(local).unwrap();
    let (server, peer) = listener.accept().unwrap();
    let flow = FourTuple { local: Endpoint::from(local), peer: Endpoint::from(peer) };
    Connected { _ends: [client, server], flow }
}

/// RFC 5961 §4: what becomes of a SYN for a connection is the connection's to say, while there is time to ask.
#[test]
fn a_syn_for_a_connection_is_left_to_the_kernel_while_calm() {
    on_bench(CALM, |bench| {
        for listener in listen() {
            let connected = connect(&listener);
            for hook in HOOKS {
                let syn = syn(&connected.flow, IRS, LINUX);
                bench.order(CALM);
                let before = bench.counted();
                assert_eq!(bench.at(hook, &syn), Fate::Passed, "{hook:?}");
                assert_eq!(bench.counted_since(&before), []);
                assert_eq!(bench.take_reports(), []);
                bench.order(PRESSED);
                assert!(matches!(bench.at(hook, &syn), Fate::Sent(_)), "under pressure nobody looks");
            }
        }
    });
}

/// Whatever is dropped while guesses come in numbers, it is nothing of a connection's.
#[test]
fn segments_of_a_connection_always_pass() {
    on_bench(CALM, |bench| {
        for listener in listen() {
            let connected = connect(&listener);
            for words in [CALM, PRESSED, ListenerWords { looks_up: true, ..CALM }] {
                bench.order(words);
                let flags = [Flags::ACK, Flags::ACK | Flags::FIN, Flags::RST, Flags::RST | Flags::ACK];
                for flags in flags.into_iter().chain([Flags::SYN | Flags::ACK]) {
                    for seq in [0, 0x8000_0000] {
                        let segment = frame(&connected.flow, flags, SeqNum::new(seq), SeqNum::new(77), &[], b"data");
                        assert_eq!(bench.at(Hook::Loopback, &segment), Fate::Passed, "{flags:?}");
                    }
                }
            }
        }
        assert_eq!(bench.count(Counted::SampledBogus), 0);
        assert_eq!((bench.count(Counted::BadCookie), bench.count(Counted::Reset)), (0, 0));
    });
}

/// Once seen to be a connection's, a flow's segments pass for a second without being judged, and no longer; nor once a SYN came.
#[test]
fn a_connection_is_known_for_a_second_or_until_a_syn() {
    const SECOND: Duration = Duration::from_millis(1100);
    on_bench(CALM, |bench| {
        bench.order(ListenerWords { looks_up: true, ..CALM });
        for listener in listen() {
            let connected = connect(&listener);
            let segment = frame(&connected.flow, Flags::ACK, SeqNum::new(5), SeqNum::new(77), &[], b"data");
            let is_known = |bench: &mut Bench| {
                let before = bench.count(Counted::UnknownPassed);
                assert_eq!(bench.at(Hook::Loopback, &segment), Fate::Passed);
                bench.count(Counted::UnknownPassed) > before
            };
            assert!(!is_known(bench), "it is looked up");
            assert!(is_known(bench));
            bench.set_time(bench.now + SECOND);
            assert!(!is_known(bench), "a second later it is looked up again");
            assert!(is_known(bench));
            for hook in HOOKS {
                bench.at(hook, &syn(&connected.flow, IRS, LINUX));
                assert!(!is_known(bench), "a SYN has come by {hook:?}");
                assert!(is_known(bench));
            }
            // Of a flow that nobody holds nothing is remembered, whatever is sent.
            let mut nobody = connected.flow;
            nobody.peer.port ^= 1;
            let segment = frame(&nobody, Flags::ACK, SeqNum::new(5), SeqNum::new(77), &[], b"data");
            for _ in 0..3 {
                assert_eq!(bench.at(Hook::Loopback, &segment), Fate::Dropped);
            }
        }
    });
}

/// A good cookie for the tuple of another connection: the peer has moved on, and user space is told.
#[test]
fn a_good_cookie_for_another_connections_tuple_is_told() {
    on_bench(CALM, |bench| {
        for listener in listen() {
            let connected = connect(&listener);
            for (words, offer) in [CALM, PRESSED].into_iter().flat_map(|words| OFFERS.map(|offer| (words, offer))) {
                bench.order(words);
                let cookie = bench.jar.mint(&connected.flow, IRS, &offer, NOW);
                let before = bench.counted();
                let ack = third_ack(&connected.flow, IRS, &cookie, &[]);
                assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Passed);
                if offer.tsval.is_none() {
                    // Form B is not proof enough against a socket that lives.
                    assert_eq!(bench.counted_since(&before), [Counted::TupleBusy as usize]);
                    assert_eq!(bench.take_reports(), []);
                    continue;
                }
                assert_eq!(bench.counted_since(&before), [], "neither taken nor refused");
                let [report] = bench.take_reports()[..] else { panic!("not one report") };
                assert_eq!((report.kind, report.tuple), (Kind::Held, connected.flow));
                assert_eq!((report.irs, report.iss), (IRS, cookie.isn));
                assert_eq!(report.offer.tsval, offer.tsval.map(|_| 5001));
            }
        }
    });
}

/// A connection whose server closed first, with its client's port.
fn time_wait(listener: &TcpListener) -> FourTuple {
    let Connected { _ends: [mut client, server], flow } = connect(listener);
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    flow
}

/// Whether user space is told of a handshake that was completed on a 4-tuple in TIME-WAIT, by a client whose clock stands there.
fn is_told(bench: &mut Bench, flow: &FourTuple, offer: &crate::cookie::Offer, irs: SeqNum, tsval: u32) -> bool {
    let cookie = bench.jar.mint(flow, irs, offer, NOW);
    let before = bench.counted();
    assert_eq!(bench.at(Hook::Loopback, &third_ack_at(tsval, flow, irs, &cookie, &[])), Fate::Passed);
    let counted = bench.counted_since(&before);
    match bench.take_reports()[..] {
        [] => {
            assert_eq!(counted, [Counted::TupleBusy as usize]);
            false
        }
        [report] => {
            assert_eq!(counted, []);
            assert_eq!((report.kind, report.tuple, report.irs, report.iss), (Kind::Held, *flow, irs, cookie.isn));
            true
        }
        ref many => panic!("{many:?}"),
    }
}

/// RFC 1122 §4.2.2.13, RFC 6191: whoever comes behind TIME-WAIT by the sequence number or by the timestamp is told.
#[test]
fn a_handshake_behind_time_wait_is_told() {
    // What the connection's client used is unknown here; but of two numbers half the circle apart one is newer, and one older.
    const HALF: u32 = 1 << 31;
    on_bench(CALM, |bench| {
        for (timestamps, listener) in ["1", "0"].into_iter().flat_map(|on| listen().map(|listener| (on, listener))) {
            std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", timestamps).unwrap();
            let flow = time_wait(&listener);
            for words in [CALM, PRESSED] {
                bench.order(words);
                let [low, high] = [IRS, IRS + HALF].map(|irs| is_told(bench, &flow, &OFFER_B, irs, 0));
                assert_ne!(low, high, "without timestamps the sequence number says it");
                let (newer, older) = if low { (IRS, IRS + HALF) } else { (IRS + HALF, IRS) };
                let [early, late] = [5001, 5001 + HALF].map(|tsval| {
                    assert!(is_told(bench, &flow, &OFFER_A, newer, tsval));
                    is_told(bench, &flow, &OFFER_A, older, tsval)
                });
                // Else it is the connection's own last segment of its handshake, come late.
                let told = usize::from(early) + usize::from(late);
                assert_eq!(
                    told,
                    if timestamps == "1" { 1 } else { 0 },
                    "the newer timestamp says it, where there are two"
                );
            }
        }
    });
}

/// The segment is dropped, and user space told what it needs to send the SYN-ACK once more.
#[test]
fn a_full_accept_queue_is_told_with_the_clients_offer() {
    on_bench(CALM, |bench| {
        for (client, server) in PAIRS {
            let flow = tuple(client, server);
            let local: std::net::SocketAddr = server.parse().unwrap();
            let listener = Socket::new(Domain::for_address(local), Type::STREAM, None).unwrap();
            listener.bind(&local.into()).unwrap();
            // One connection fits into a queue of length 0.
            listener.listen(0).unwrap();
            let _waiting = TcpStream::connect(local).unwrap();
            for offer in [OFFER_A, OFFER_B] {
                let cookie = bench.jar.mint(&flow, IRS, &offer, NOW);
                let ack = third_ack(&flow, IRS, &cookie, b"hello");
                let before = bench.counted();
                assert_eq!(bench.at(Hook::Loopback, &ack), Fate::Dropped);
                assert_eq!(bench.counted_since(&before), [Counted::AcceptQueueFull as usize]);
                let [report] = bench.take_reports()[..] else { panic!("not one report") };
                assert_eq!((report.kind, report.tuple), (Kind::Full, flow));
                assert_eq!((report.irs, report.iss), (IRS, cookie.isn));
                let tsval = offer.tsval.map(|_| 5001);
                assert_eq!(report.offer, crate::cookie::Offer { tsval, mss: report.offer.mss, ..offer });
                assert!(report.offer.mss <= offer.mss, "rounded down to what the cookie can say");
            }
            let _ = listener.accept().unwrap();
            let cookie = bench.jar.mint(&flow, IRS, &OFFER_A, NOW);
            bench.at(Hook::Loopback, &third_ack(&flow, IRS, &cookie, &[]));
            assert_eq!(bench.take_reports(), [], "there is room again");
        }
    });
}
