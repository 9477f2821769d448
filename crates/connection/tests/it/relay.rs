//! The relay between a client and an upstream.

use std::io::{ErrorKind, Read, Write};
use std::net::{self, Shutdown};
use std::os::fd::AsFd;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use ::connection::{CloseReason, ConnectionStats, RelayEnd, RelayOutcome, relay};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::{PATIENCE, block_on, connected, ends, read_all};

/// Far more than sockets buffer on both sides together.
pub const BULK: usize = 24 << 20;
const SHORT: Duration = Duration::from_millis(150);

/// A relay at work, with plain blocking sockets at both ends.
struct Bench {
    client: net::TcpStream,
    upstream: net::TcpStream,
    relay: JoinHandle<RelayOutcome>,
    stats: Arc<ConnectionStats>,
}

async fn bench(idle: Option<Duration>, half_close: Option<Duration>) -> Bench {
    let (client, connection, stats) = connected().await;
    let behind = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to_upstream = TcpStream::connect(behind.local_addr().unwrap()).await.unwrap();
    let upstream = behind.accept().unwrap().0;
    upstream.set_read_timeout(Some(PATIENCE)).unwrap();
    upstream.set_write_timeout(Some(PATIENCE)).unwrap();
    let relay = tokio::spawn(relay(connection, to_upstream, idle, half_close));
    Bench { client, upstream, relay, stats }
}

fn reset(stream: net::TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Waits until the socket is broken or closed both ways; not for long.
fn hangs_up(stream: &net::TcpStream) -> bool {
    // Without events asked for, only POLLERR and POLLHUP end it.
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    poll(&mut watched, PollTimeout::try_from(PATIENCE).unwrap()).unwrap() == 1
}

/// Passes bulk both ways at once. Receivers begin when both senders have sent so much that the relay holds some back.
pub fn bulk_both_ways<A, B>(a: &A, b: &B)
where
    A: AsFd + Sync,
    B: AsFd + Sync,
    for<'s> &'s A: Read + Write,
    for<'s> &'s B: Read + Write,
{
    let pattern: &Vec<u8> = &(0..BULK).map(|at| (at * 31 % 251) as u8).collect();
    let full = &Barrier::new(4);
    thread::scope(|scope| {
        scope.spawn(move || send_bulk(a, SockRef::from(a), pattern, full));
        scope.spawn(move || send_bulk(b, SockRef::from(b), pattern, full));
        scope.spawn(move || receive_bulk(a, pattern, full));
        scope.spawn(move || receive_bulk(b, pattern, full));
    });
}

fn send_bulk(mut writer: impl Write, socket: SockRef<'_>, pattern: &[u8], full: &Barrier) {
    let (first, rest) = pattern.split_at(1 << 20);
    writer.write_all(first).unwrap();
    full.wait();
    writer.write_all(rest).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
}

fn receive_bulk(mut reader: impl Read, pattern: &[u8], full: &Barrier) {
    full.wait();
    assert!(read_all(&mut reader).unwrap() == pattern);
}

#[test]
fn nagles_algorithm_is_off_before_the_second_message_is_written() {
    block_on(async {
        let (mut client, connection, _stats) = connected().await;
        let behind = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to_upstream = TcpStream::connect(behind.local_addr().unwrap()).await.unwrap();
        let seen = SockRef::from(&to_upstream).try_clone().unwrap();
        let mut upstream = behind.accept().unwrap().0;
        upstream.set_read_timeout(Some(PATIENCE)).unwrap();
        let relay = tokio::spawn(relay(connection, to_upstream, None, None));
        ends(move || {
            for nodelay in [false, true, true] {
                client.write_all(b"x").unwrap();
                upstream.read_exact(&mut [0]).unwrap();
                assert_eq!(seen.tcp_nodelay().unwrap(), nodelay);
            }
        })
        .await;
        relay.abort();
    });
}

#[test]
fn client_that_closes_first_still_gets_its_answer() {
    block_on(async {
        let Bench { mut client, mut upstream, relay, stats } = bench(None, None).await;
        ends(move || {
            client.write_all(b"question").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut upstream).unwrap(), b"question");
            upstream.write_all(b"the answer").unwrap();
            drop(upstream);
            assert_eq!(read_all(&mut client).unwrap(), b"the answer");
        })
        .await;
        let outcome = relay.await.unwrap();
        assert!(matches!(outcome.end, RelayEnd::Complete), "{outcome:?}");
        assert_eq!((outcome.to_upstream_bytes, outcome.to_client_bytes), (8, 10));
        assert_eq!((stats.received_bytes(), stats.sent_bytes()), (8, 10));
        assert_eq!(stats.closed(CloseReason::ClientFin), 1);
    });
}

#[test]
fn upstream_that_closes_first_still_hears_the_client() {
    block_on(async {
        let Bench { mut client, mut upstream, relay, stats } = bench(None, None).await;
        ends(move || {
            upstream.write_all(b"banner").unwrap();
            upstream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut client).unwrap(), b"banner");
            client.write_all(b"goes on").unwrap();
            drop(client);
            assert_eq!(read_all(&mut upstream).unwrap(), b"goes on");
        })
        .await;
        assert!(matches!(relay.await.unwrap().end, RelayEnd::Complete));
        assert_eq!(stats.closed(CloseReason::LocalClose), 1);
    });
}

#[test]
fn bulk_passes_both_ways_at_once_with_slow_receivers() {
    block_on(async {
        let Bench { client, upstream, relay, .. } = bench(Some(PATIENCE), Some(PATIENCE)).await;
        ends(move || bulk_both_ways(&client, &upstream)).await;
        let outcome = relay.await.unwrap();
        assert!(matches!(outcome.end, RelayEnd::Complete), "{outcome:?}");
        assert_eq!((outcome.to_upstream_bytes, outcome.to_client_bytes), (BULK as u64, BULK as u64));
    });
}

#[test]
fn reset_of_the_client_resets_the_upstream() {
    block_on(async {
        let Bench { mut client, mut upstream, relay, stats } = bench(None, None).await;
        let error = ends(move || {
            client.write_all(b"x").unwrap();
            upstream.read_exact(&mut [0]).unwrap();
            reset(client);
            read_all(&mut upstream).unwrap_err()
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(relay.await.unwrap().end, RelayEnd::ClientReset));
        assert_eq!(stats.closed(CloseReason::ClientReset), 1);
    });
}

#[test]
fn reset_of_the_upstream_resets_the_client() {
    block_on(async {
        let Bench { mut client, upstream, relay, stats } = bench(None, None).await;
        let error = ends(move || {
            reset(upstream);
            read_all(&mut client).unwrap_err()
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(relay.await.unwrap().end, RelayEnd::UpstreamReset));
        assert_eq!(stats.closed(CloseReason::Aborted), 1);
    });
}

#[test]
fn reset_behind_a_fin_is_passed_on_although_nobody_reads_or_writes() {
    block_on(async {
        let Bench { client, mut upstream, relay, .. } = bench(None, None).await;
        let error = ends(move || {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(upstream.read(&mut [0]).unwrap(), 0, "the FIN");
            reset(client);
            // Its read side has ended, so the reset shows as an event of its own, and when it writes.
            assert!(hangs_up(&upstream), "within {PATIENCE:?}");
            upstream.write(b"x").unwrap_err()
        })
        .await;
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        assert!(matches!(relay.await.unwrap().end, RelayEnd::ClientReset));
    });
}

#[test]
fn reset_behind_a_fin_ends_the_relay_in_silence_too() {
    block_on(async {
        let Bench { client, mut upstream, relay, .. } = bench(None, None).await;
        let upstream = ends(move || {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(upstream.read(&mut [0]).unwrap(), 0, "the FIN");
            reset(client);
            upstream
        })
        .await;
        assert!(matches!(relay.await.unwrap().end, RelayEnd::ClientReset));
        drop(upstream);
    });
}

#[test]
fn idle_relay_is_cut_and_both_ends_know() {
    block_on(async {
        let Bench { mut client, mut upstream, relay, stats } = bench(Some(SHORT), None).await;
        let (at_client, at_upstream) =
            ends(move || (read_all(&mut client).unwrap_err(), read_all(&mut upstream).unwrap_err())).await;
        assert_eq!((at_client.kind(), at_upstream.kind()), (ErrorKind::ConnectionReset, ErrorKind::ConnectionReset));
        assert!(matches!(relay.await.unwrap().end, RelayEnd::Idle));
        assert_eq!(stats.closed(CloseReason::IdleTimeout), 1);
    });
}

#[test]
fn progress_in_either_direction_holds_off_the_idle_limit() {
    block_on(async {
        let limit = 3 * SHORT;
        let Bench { mut client, mut upstream, relay, .. } = bench(Some(limit), None).await;
        let kept = ends(move || {
            let start = Instant::now();
            while start.elapsed() < 3 * limit {
                upstream.write_all(b"tick").unwrap();
                client.read_exact(&mut [0; 4]).unwrap();
                thread::sleep(SHORT / 3);
            }
            client.write_all(b"late").unwrap();
            upstream.read_exact(&mut [0; 4]).unwrap();
            (client, upstream)
        })
        .await;
        assert!(matches!(relay.await.unwrap().end, RelayEnd::Idle));
        drop(kept);
    });
}

#[test]
fn half_closed_relay_has_a_limit_of_its_own() {
    block_on(async {
        let Bench { client, mut upstream, relay, .. } = bench(Some(Duration::from_secs(3600)), Some(SHORT)).await;
        let kept = ends(move || {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(upstream.read(&mut [0]).unwrap(), 0);
            (client, upstream)
        })
        .await;
        assert!(matches!(relay.await.unwrap().end, RelayEnd::HalfClosed));
        drop(kept);
    });
}

#[test]
fn idle_limit_holds_on_after_a_fin_when_there_is_no_other() {
    block_on(async {
        let Bench { client, upstream, relay, .. } = bench(Some(SHORT), None).await;
        client.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(relay.await.unwrap().end, RelayEnd::HalfClosed));
        drop(upstream);
    });
}

/// Descriptors of this process that are ends of pipes.
fn pipe_ends() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

/// Sends bulk that consists of one byte while the other side reads it, and says whether all of it arrived.
fn bulk_passes(client: &net::TcpStream, upstream: &mut net::TcpStream, byte: u8) -> bool {
    thread::scope(|scope| {
        let received = scope.spawn(|| read_all(upstream).unwrap());
        let mut writer = client;
        writer.write_all(&vec![byte; BULK]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        received.join().unwrap() == vec![byte; BULK]
    })
}

/// Sends until the relay holds back what the other side does not read, in a pipe, and says how much was sent.
fn send_until_held_back(mut client: &net::TcpStream, pipe_ends_before: usize) -> usize {
    let (mut sent, start) = (0, Instant::now());
    client.set_write_timeout(Some(SHORT)).unwrap();
    while pipe_ends() != pipe_ends_before + 2 {
        assert!(start.elapsed() < PATIENCE, "no pipe although {sent} bytes were sent");
        // It fails when all buffers are full, and the relay has yet to notice.
        sent += client.write(&[7; 65536]).unwrap_or(0);
    }
    sent
}

#[test]
fn slow_receiver_of_bulk_has_a_pipe_until_it_has_caught_up() {
    testnet::isolated!(|| {
        let before = pipe_ends();
        block_on(async {
            let Bench { client, mut upstream, relay, .. } = bench(None, None).await;
            assert_eq!(pipe_ends(), before, "no bulk, no pipe");
            let (sent, received) = ends(move || {
                let sent = send_until_held_back(&client, before);
                client.shutdown(Shutdown::Write).unwrap();
                (sent, read_all(&mut upstream).unwrap().len())
            })
            .await;
            assert_eq!((received, relay.await.unwrap().to_upstream_bytes), (sent, sent as u64));
            assert_eq!(pipe_ends(), before + 2, "the thread keeps one for the next");
        });
    });
}

#[test]
fn bytes_of_a_relay_that_was_reset_come_out_of_no_other() {
    testnet::isolated!(|| {
        let before = pipe_ends();
        block_on(async {
            let Bench { client, upstream, relay, .. } = bench(None, None).await;
            let kept = ends(move || {
                send_until_held_back(&client, before);
                reset(client);
                upstream
            })
            .await;
            assert!(matches!(relay.await.unwrap().end, RelayEnd::ClientReset));
            drop(kept);

            let Bench { client, mut upstream, relay, .. } = bench(None, None).await;
            assert!(ends(move || bulk_passes(&client, &mut upstream, 9)).await);
            assert!(matches!(relay.await.unwrap().end, RelayEnd::Complete));
        });
    });
}

#[test]
fn bulk_is_copied_where_there_are_too_few_descriptors_for_pipes() {
    testnet::isolated!(|| {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 60, hard).unwrap();
        let before = pipe_ends();
        block_on(async {
            let Bench { client, mut upstream, relay, .. } = bench(None, None).await;
            assert!(ends(move || bulk_passes(&client, &mut upstream, 7)).await);
            assert!(matches!(relay.await.unwrap().end, RelayEnd::Complete));
            assert_eq!(pipe_ends(), before);
        });
    });
}

#[test]
fn urgent_mark_within_bulk_holds_nothing_up() {
    block_on(async {
        let Bench { mut client, mut upstream, relay, .. } = bench(Some(PATIENCE), Some(PATIENCE)).await;
        let received = ends(move || {
            thread::scope(|scope| {
                let received = scope.spawn(|| read_all(&mut upstream).unwrap());
                for _ in 0..8 {
                    client.write_all(&[7; 1 << 20]).unwrap();
                    SockRef::from(&client).send_out_of_band(b"!").unwrap();
                }
                client.shutdown(Shutdown::Write).unwrap();
                received.join().unwrap()
            })
        })
        .await;
        assert_eq!(received.iter().filter(|&&byte| byte == 7).count(), 8 << 20);
        // An urgent byte that nobody asked for is lost, unless the next one comes before it is passed by (tcp(7)).
        assert!(received.len() - (8 << 20) <= 8);
        assert!(matches!(relay.await.unwrap().end, RelayEnd::Complete));
    });
}
