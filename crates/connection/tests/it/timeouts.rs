//! The limits on how long a client may take.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ::connection::{CloseReason, Connection, ConnectionStats, Expired, Keepalive, Timeouts};
use socket2::SockRef;
use testnet::{Flags, isolated};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::*;

const LIMIT: Duration = Duration::from_secs(10);
/// More than the buffers of both sockets take.
const BULK: usize = 24 << 20;

fn first_byte() -> Timeouts {
    Timeouts { first_byte: Some(LIMIT), ..Timeouts::default() }
}

fn idle() -> Timeouts {
    Timeouts { idle: Some(LIMIT), ..Timeouts::default() }
}

/// Long for a connection as such, short for one that is half-closed.
fn half_close() -> Timeouts {
    Timeouts { idle: Some(100 * LIMIT), half_close: Some(LIMIT), ..Timeouts::default() }
}

/// A client, and a connection to it under these limits.
async fn limited(timeouts: Timeouts) -> (TcpStream, Connection, Arc<ConnectionStats>) {
    let (client, mut connection, stats) = connected().await;
    connection.set_timeouts(&timeouts).unwrap();
    (client, connection, stats)
}

fn expired<T: std::fmt::Debug>(outcome: io::Result<T>) -> Expired {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    *error.get_ref().expect("a limit of ours").downcast_ref().expect("which one")
}

#[tokio::test(start_paused = true)]
async fn silence_from_the_first_is_over_at_the_first_byte_limit() {
    let (_client, mut connection, stats) = limited(Timeouts { idle: Some(2 * LIMIT), ..first_byte() }).await;
    let began = Instant::now();
    assert_eq!(expired(connection.read_u8().await), Expired::FirstByte(LIMIT));
    assert!(began.elapsed() <= LIMIT + Duration::from_millis(1), "counted from the accept");
    drop(connection);
    assert_closed(&stats, CloseReason::FirstByteTimeout);
}

#[tokio::test(start_paused = true)]
async fn first_byte_ends_the_limit_for_it() {
    let (mut client, mut connection, stats) = limited(first_byte()).await;
    client.write_all(b"x").unwrap();
    assert_eq!(connection.read_u8().await.unwrap(), b'x');
    assert!(tokio::time::timeout(1000 * LIMIT, connection.read_u8()).await.is_err(), "nothing limits this");
    drop(connection);
    assert_closed(&stats, CloseReason::LocalClose);
}

#[tokio::test(start_paused = true)]
async fn bytes_we_write_do_not_count_as_the_first() {
    let (_client, mut connection, _stats) = limited(first_byte()).await;
    connection.write_all(b"220 who are you\r\n").await.unwrap();
    assert_eq!(expired(connection.read_u8().await), Expired::FirstByte(LIMIT));
}

#[tokio::test(start_paused = true)]
async fn each_byte_begins_the_idle_limit_anew() {
    let (mut client, mut connection, stats) = limited(idle()).await;
    let began = Instant::now();
    for _ in 0..5 {
        // Waits as a server does, which sets the timer, and is interrupted by a byte.
        assert!(tokio::time::timeout(LIMIT * 9 / 10, connection.read_u8()).await.is_err());
        client.write_all(b"x").unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), b'x');
    }
    assert_eq!(expired(connection.read_u8().await), Expired::Idle(LIMIT));
    let (all, fuzz) = (LIMIT * 9 / 10 * 5 + LIMIT, Duration::from_millis(20)); // Tokio rounds each timer up to a millisecond.
    assert!((all..all + fuzz).contains(&(began.elapsed() + Duration::from_millis(1))), "{:?}", began.elapsed());
    drop(connection);
    assert_closed(&stats, CloseReason::IdleTimeout);
}

#[tokio::test(start_paused = true)]
async fn client_that_takes_nothing_is_idle_once_the_buffers_are_full() {
    let (_client, mut connection, stats) = limited(idle()).await;
    assert_eq!(expired(connection.write_all(&vec![0; BULK]).await), Expired::Idle(LIMIT));
    drop(connection);
    assert_closed(&stats, CloseReason::IdleTimeout);
    assert!(stats.sent_bytes() < BULK as u64);
}

#[tokio::test(start_paused = true)]
async fn our_fin_puts_the_half_close_limit_in_the_place_of_the_idle_limit() {
    let (_client, mut connection, stats) = limited(half_close()).await;
    assert!(tokio::time::timeout(2 * LIMIT, connection.read_u8()).await.is_err(), "not half-closed yet");
    connection.shutdown_write().await.unwrap();
    let began = Instant::now();
    assert_eq!(expired(connection.read_u8().await), Expired::HalfClose(LIMIT));
    assert!(began.elapsed() <= LIMIT + Duration::from_millis(1));
    drop(connection);
    assert_closed(&stats, CloseReason::HalfCloseTimeout);
}

#[tokio::test(start_paused = true)]
async fn fin_of_the_client_limits_what_we_still_write() {
    let (client, mut connection, stats) = limited(half_close()).await;
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(expired(connection.write_all(&vec![0; BULK]).await), Expired::HalfClose(LIMIT));
    drop(connection);
    assert_closed(&stats, CloseReason::HalfCloseTimeout);
}

#[tokio::test(start_paused = true)]
async fn bytes_begin_the_half_close_limit_anew() {
    let (mut client, mut connection, _stats) = limited(half_close()).await;
    connection.shutdown_write().await.unwrap();
    let began = Instant::now();
    for _ in 0..3 {
        assert!(tokio::time::timeout(LIMIT * 9 / 10, connection.read_u8()).await.is_err());
        client.write_all(b"x").unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), b'x');
    }
    assert_eq!(expired(connection.read_u8().await), Expired::HalfClose(LIMIT));
    assert!(began.elapsed() > 3 * LIMIT);
}

#[tokio::test(start_paused = true)]
async fn half_that_waits_learns_of_the_fin_of_the_other() {
    let (_client, connection, stats) = limited(half_close()).await;
    let (mut read, write) = connection.into_split();
    let reader = tokio::spawn(async move { (expired(read.read_u8().await), Instant::now()) });
    tokio::time::sleep(Duration::from_secs(1)).await; // It waits now, under the idle limit.
    let fin = Instant::now();
    drop(write);
    let (limit, when) = reader.await.unwrap();
    assert_eq!(limit, Expired::HalfClose(LIMIT));
    assert!(when - fin <= LIMIT + Duration::from_millis(1), "not at the end of the idle limit, {:?}", when - fin);
    assert_closed(&stats, CloseReason::HalfCloseTimeout);
}

#[tokio::test(start_paused = true)]
async fn reunited_halves_keep_their_limits() {
    let (_client, connection, _stats) = limited(idle()).await;
    let (read, write) = connection.into_split();
    let mut connection = read.reunite(write).unwrap();
    assert_eq!(expired(connection.read_u8().await), Expired::Idle(LIMIT));
}

#[tokio::test(start_paused = true)]
async fn after_a_timeout_the_client_can_still_be_told() {
    let (mut client, mut connection, stats) = limited(idle()).await;
    expired(connection.read_u8().await);
    connection.write_all(b"too slow").await.unwrap();
    drop(connection);
    let mut told = String::new();
    client.read_to_string(&mut told).unwrap();
    assert_eq!(told, "too slow");
    assert_closed(&stats, CloseReason::IdleTimeout);
}

#[test]
fn kernel_is_told_of_its_share_and_of_its_end() {
    block_on(async {
        let (_client, mut connection, _stats) = connected().await;
        let keepalive = Keepalive { idle: Duration::from_secs(7), interval: Duration::from_secs(3), count: 2 };
        let user_timeout = Some(Duration::from_millis(1500));
        let timeouts = Timeouts { user_timeout, keepalive: Some(keepalive), ..Timeouts::default() };
        connection.set_timeouts(&timeouts).unwrap();
        let socket = SockRef::from(&connection);
        assert_eq!(socket.tcp_user_timeout().unwrap(), user_timeout);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive.idle);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), keepalive.interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), keepalive.count);

        connection.set_timeouts(&Timeouts::default()).unwrap();
        let socket = SockRef::from(&connection);
        assert_eq!((socket.tcp_user_timeout().unwrap(), socket.keepalive().unwrap()), (None, false));
    });
}

#[test]
fn value_out_of_range_changes_nothing() {
    block_on(async {
        let (_client, mut connection, _stats) = connected().await;
        let wrong = Keepalive { idle: LIMIT, interval: LIMIT, count: 0 };
        let timeouts = Timeouts { user_timeout: Some(LIMIT), keepalive: Some(wrong), ..Timeouts::default() };
        let error = connection.set_timeouts(&timeouts).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "keepalive.count is 0: it must be 1 to 127");
        assert_eq!(SockRef::from(&connection).tcp_user_timeout().unwrap(), None);
    });
}

/// The end of a connection that the kernel has given up, at its application and in the counters.
fn assert_given_up(error: &io::Error, connection: Connection, stats: &ConnectionStats) {
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    assert!(error.get_ref().is_none(), "it is the kernel's");
    drop(connection);
    assert_closed(stats, CloseReason::UserTimeout);
}

fn given_up_soon() -> Timeouts {
    Timeouts { user_timeout: Some(Duration::from_millis(300)), ..Timeouts::default() }
}

#[test]
fn client_that_acknowledges_nothing_is_given_up_after_the_user_timeout() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, mut connection, stats) = lab.accept_script(&host, 1025).await;
            connection.set_timeouts(&given_up_soon()).unwrap();
            connection.write_all(b"nobody listens").await.unwrap();
            let error = connection.read_u8().await.unwrap_err();
            assert_given_up(&error, connection, &stats);
            script.drain(Duration::from_millis(10));
        });
    });
}

/// It answers every probe, so without the option this would last for ever (RFC 9293 §3.8.6.1).
#[test]
fn client_that_keeps_its_window_shut_and_answers_probes_is_given_up_after_the_user_timeout() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, mut connection, stats) = lab.accept_script(&host, 1025).await;
            connection.set_timeouts(&given_up_soon()).unwrap();
            let shut = script.segment(Flags::ACK).window(0);
            script.send(&shut);
            let mut probes = 0;
            let error = loop {
                tokio::select! {
                    biased;
                    outcome = connection.write_all(&[0; 4096]) => if let Err(error) = outcome { break error },
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
                while script.next(Duration::from_millis(1)).is_some_and(|frame| !frame.flags.has(Flags::RST)) {
                    probes += 1;
                    script.send(&shut);
                }
            };
            assert!(probes > 0);
            assert_given_up(&error, connection, &stats);
        });
    });
}

#[test]
fn client_that_vanished_is_found_out_by_keepalive() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, mut connection, stats) = lab.accept_script(&host, 1025).await;
            let second = Duration::from_secs(1);
            let keepalive = Some(Keepalive { idle: second, interval: second, count: 1 });
            connection.set_timeouts(&Timeouts { keepalive, ..Timeouts::default() }).unwrap();
            let error = connection.read_u8().await.unwrap_err();
            // RFC 9293 §3.8.4: a probe lies one below the next sequence number.
            let before = script.rcv_nxt.wrapping_sub(1);
            script.expect("a probe", |frame| frame.seq == before);
            assert_given_up(&error, connection, &stats);
        });
    });
}
