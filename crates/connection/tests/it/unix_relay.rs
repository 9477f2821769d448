//! The relay to a server on a Unix socket, out of a pool.

use std::io::{ErrorKind, Read, Write};
use std::net::{self, Shutdown};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ::connection::upstream::Pool;
use ::connection::{RelayEnd, RelayOutcome, relay};
use socket2::SockRef;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::relay::{BULK, bulk_both_ways};
use crate::support::{PATIENCE, block_on, connected, ends, read_all};
use crate::upstream::{SocketPath, connect, connections, pool_of, server};

/// A relay at work between a TCP client and a server on a Unix socket, out of a pool.
struct UnixBench {
    client: net::TcpStream,
    upstream: UnixStream,
    relay: JoinHandle<RelayOutcome>,
    pool: Arc<Pool>,
    _path: SocketPath,
}

async fn unix_bench(idle: Option<Duration>, half_close: Option<Duration>) -> UnixBench {
    let path = SocketPath::new();
    let listener = path.listen();
    let (client, connection, _stats) = connected().await;
    let pool = pool_of(vec![path.server()]);
    let to_upstream = connect(&pool).await;
    let upstream = listener.accept().unwrap().0;
    upstream.set_read_timeout(Some(PATIENCE)).unwrap();
    upstream.set_write_timeout(Some(PATIENCE)).unwrap();
    let relay = tokio::spawn(relay(connection, to_upstream, idle, half_close));
    UnixBench { client, upstream, relay, pool, _path: path }
}

#[test]
fn unix_relay_passes_the_clients_half_close_on() {
    block_on(async {
        let UnixBench { mut client, mut upstream, relay, pool, .. } = unix_bench(None, None).await;
        assert_eq!(connections(&pool), [1]);
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
        assert_eq!((connections(&pool), pool.view()[0].total), (vec![0], 1));
    });
}

#[test]
fn unix_relay_passes_the_servers_half_close_on() {
    block_on(async {
        let UnixBench { mut client, mut upstream, relay, .. } = unix_bench(None, None).await;
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
    });
}

#[test]
fn bulk_passes_both_ways_over_unix_with_slow_receivers() {
    block_on(async {
        let UnixBench { client, upstream, relay, .. } = unix_bench(Some(PATIENCE), Some(PATIENCE)).await;
        ends(move || bulk_both_ways(&client, &upstream)).await;
        let outcome = relay.await.unwrap();
        assert!(matches!(outcome.end, RelayEnd::Complete), "{outcome:?}");
        assert_eq!((outcome.to_upstream_bytes, outcome.to_client_bytes), (BULK as u64, BULK as u64));
    });
}

#[test]
fn unix_server_that_answers_without_reading_all_is_heard_to_the_end() {
    block_on(async {
        let UnixBench { mut client, mut upstream, relay, .. } = unix_bench(None, Some(PATIENCE)).await;
        ends(move || {
            upstream.shutdown(Shutdown::Read).unwrap();
            client.write_all(b"more than it wants").unwrap();
            upstream.write_all(b"too large").unwrap();
            drop(upstream);
            assert_eq!(read_all(&mut client).unwrap(), b"too large");
            client.write_all(b"and on").unwrap();
        })
        .await;
        let outcome = relay.await.unwrap();
        assert!(matches!(outcome.end, RelayEnd::UpstreamRefused), "{outcome:?}");
        assert_eq!(outcome.to_client_bytes, 9);
    });
}

#[test]
fn unix_server_that_dies_over_unread_bytes_resets_the_client() {
    block_on(async {
        let UnixBench { mut client, mut upstream, relay, .. } = unix_bench(None, None).await;
        let error = ends(move || {
            client.write_all(b"question").unwrap();
            upstream.write_all(b"half an ans").unwrap();
            client.read_exact(&mut [0; 11]).unwrap();
            // One byte is left, so that the server is known to have got the others.
            upstream.read_exact(&mut [0; 7]).unwrap();
            drop(upstream);
            client.read(&mut [0]).unwrap_err()
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(relay.await.unwrap().end, RelayEnd::UpstreamReset));
    });
}

#[test]
fn reset_of_the_client_ends_the_relay_to_a_unix_socket() {
    block_on(async {
        let UnixBench { client, mut upstream, relay, pool, .. } = unix_bench(None, None).await;
        ends(move || {
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            assert_eq!(upstream.read(&mut [0]).unwrap(), 0, "all that a Unix socket can tell");
        })
        .await;
        assert!(matches!(relay.await.unwrap().end, RelayEnd::ClientReset));
        assert_eq!(connections(&pool), [0]);
    });
}

#[test]
fn idle_unix_relay_is_cut() {
    block_on(async {
        let UnixBench { mut client, mut upstream, relay, .. } = unix_bench(Some(Duration::from_millis(50)), None).await;
        let error = ends(move || {
            assert_eq!(upstream.read(&mut [0]).unwrap(), 0);
            client.read(&mut [0]).unwrap_err()
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(matches!(relay.await.unwrap().end, RelayEnd::Idle));
    });
}

#[test]
fn half_closed_unix_relay_has_a_limit_of_its_own() {
    block_on(async {
        let half_close = Some(Duration::from_millis(50));
        let UnixBench { client, mut upstream, relay, .. } = unix_bench(Some(PATIENCE), half_close).await;
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
fn lease_is_given_back_when_a_relay_is_dropped() {
    block_on(async {
        let (_listener, address) = server();
        let pool = pool_of(vec![address]);
        let (_client, connection, _stats) = connected().await;
        let joined = relay(connection, connect(&pool).await, None, None);
        assert_eq!(connections(&pool), [1]);
        assert!(timeout(Duration::from_millis(1), joined).await.is_err(), "nobody closed");
        assert_eq!(connections(&pool), [0]);
    });
}
