//! What an application can do with a connection, and what is counted of it.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use ::connection::{CloseOutcome, CloseReason};
use listener::TcpState;
use testnet::eventually;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::{PATIENCE, assert_closed, block_on, connected, reset};

#[test]
fn half_close_lets_the_client_read_to_its_end_and_us_read_on() {
    block_on(async {
        let (mut client, mut connection, stats) = connected().await;
        connection.write_all(b"the whole answer").await.unwrap();
        connection.shutdown_write().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "the whole answer");
        eventually("FIN-WAIT-2", PATIENCE, || connection.state().unwrap() == TcpState::FinWait2);

        client.write_all(b"and another thing").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut more = String::new();
        connection.read_to_string(&mut more).await.unwrap();
        assert_eq!(more, "and another thing");
        drop(connection);
        assert_closed(&stats, CloseReason::LocalClose);
        assert_eq!((stats.received_bytes(), stats.sent_bytes()), (17, 16));
    });
}

#[test]
fn fin_of_the_client_leaves_us_in_close_wait_and_able_to_answer() {
    block_on(async {
        let (mut client, mut connection, stats) = connected().await;
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut question = Vec::new();
        connection.read_to_end(&mut question).await.unwrap();
        assert_eq!(connection.state().unwrap(), TcpState::CloseWait);
        connection.write_all(b"answer").await.unwrap();
        drop(connection);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        assert_closed(&stats, CloseReason::ClientFin);
    });
}

#[test]
fn empty_read_is_not_taken_for_a_fin() {
    block_on(async {
        let (_client, mut connection, stats) = connected().await;
        assert_eq!(connection.read(&mut []).await.unwrap(), 0);
        drop(connection);
        assert_closed(&stats, CloseReason::LocalClose);
    });
}

#[test]
fn abort_resets_the_client() {
    block_on(async {
        let (mut client, connection, stats) = connected().await;
        connection.abort();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_closed(&stats, CloseReason::Aborted);
    });
}

#[test]
fn reset_of_the_client_is_an_error_and_counted_as_one() {
    block_on(async {
        let (client, mut connection, stats) = connected().await;
        reset(&client);
        drop(client);
        assert_eq!(connection.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        drop(connection);
        assert_closed(&stats, CloseReason::ClientReset);
    });
}

#[test]
fn bare_stream_goes_on_working_and_is_counted_no_more() {
    block_on(async {
        let (mut client, connection, stats) = connected().await;
        let mut stream = connection.into_tcp_stream();
        assert_closed(&stats, CloseReason::HandedOver);
        stream.write_all(b"bare").await.unwrap();
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!((&bytes, stats.sent_bytes()), (b"bare", 0));
    });
}

#[test]
fn vectored_write_is_one_write() {
    block_on(async {
        let (mut client, mut connection, stats) = connected().await;
        assert!(connection.is_write_vectored());
        let parts = [std::io::IoSlice::new(b"head"), std::io::IoSlice::new(b"body")];
        assert_eq!(connection.write_vectored(&parts).await.unwrap(), 8);
        let mut bytes = [0; 8];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!((&bytes, stats.sent_bytes()), (b"headbody", 8));
    });
}

#[test]
fn halves_work_apart_and_dropping_the_one_that_writes_sends_fin() {
    block_on(async {
        let (mut client, connection, stats) = connected().await;
        let (mut read, mut write) = connection.into_split();
        assert_eq!(read.peer_addr(), write.peer_addr());
        write.write_all(b"last words").await.unwrap();
        drop(write);
        let mut words = String::new();
        client.read_to_string(&mut words).unwrap();
        assert_eq!(words, "last words");
        assert_eq!(stats.open(), 1, "one half is left");

        client.write_all(b"heard").unwrap();
        drop(client);
        let mut heard = String::new();
        read.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "heard");
        drop(read);
        assert_closed(&stats, CloseReason::LocalClose);
        assert_eq!((stats.received_bytes(), stats.sent_bytes()), (5, 10));
    });
}

#[test]
fn halves_reunite_without_a_fin_and_count_as_one() {
    block_on(async {
        let (mut client, connection, stats) = connected().await;
        let (read, write) = connection.into_split();
        let mut connection = read.reunite(write).unwrap();
        connection.write_all(b"whole").await.unwrap();
        let mut bytes = [0; 5];
        client.read_exact(&mut bytes).unwrap();
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock, "no FIN");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(connection.read(&mut bytes).await.unwrap(), 0);
        drop(connection);
        assert_closed(&stats, CloseReason::ClientFin);
    });
}

#[test]
fn halves_of_two_connections_are_given_back() {
    block_on(async {
        let (_client_a, a, _) = connected().await;
        let (_client_b, b, _) = connected().await;
        let ((read_a, write_a), (read_b, write_b)) = (a.into_split(), b.into_split());
        let error = read_a.reunite(write_b).unwrap_err();
        assert_eq!(error.to_string(), "the halves are not of one connection");
        assert!(error.0.reunite(write_a).is_ok());
        assert!(error.1.reunite(read_b).is_ok());
    });
}

#[test]
fn graceful_close_discards_what_still_comes_and_ends_at_the_fin() {
    block_on(async {
        let (mut client, mut connection, stats) = connected().await;
        connection.write_all(b"bye").await.unwrap();
        client.write_all(&[0; 10_000]).unwrap(); // Unread: a plain drop would reset.
        let closing = tokio::spawn(connection.close(PATIENCE));
        let client = tokio::task::spawn_blocking(move || {
            let mut bye = String::new();
            client.read_to_string(&mut bye).unwrap();
            assert_eq!(bye, "bye");
            drop(client);
        });
        client.await.unwrap();
        assert!(matches!(closing.await.unwrap(), CloseOutcome::Clean));
        assert_closed(&stats, CloseReason::LocalClose);
    });
}

#[test]
fn graceful_close_resets_a_client_that_does_not_finish() {
    block_on(async {
        let (mut client, connection, stats) = connected().await;
        let outcome = connection.close(Duration::from_millis(50)).await;
        assert!(matches!(outcome, CloseOutcome::DeadlineExceeded { unread: 0, unacked: 0 }), "{outcome:?}");
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the FIN came first");
        eventually("the reset", PATIENCE, || client.write(b"x").is_err());
        assert_closed(&stats, CloseReason::Deadline);
    });
}

#[test]
fn graceful_close_reports_a_connection_that_broke() {
    block_on(async {
        let (client, connection, stats) = connected().await;
        reset(&client);
        drop(client);
        let outcome = connection.close(PATIENCE).await;
        assert!(matches!(outcome, CloseOutcome::PeerReset), "{outcome:?}");
        assert_closed(&stats, CloseReason::ClientReset);
    });
}

/// A read or write that moves fewer bytes than it could takes the socket for drained or full; what changes at that very moment must not
/// be slept through.
#[test]
fn no_readiness_is_lost_in_a_quick_exchange_of_small_and_large_pieces() {
    const ROUNDS: usize = 5_000;
    let piece = |round: usize| if round.is_multiple_of(50) { 300_000 } else { 1 + round % 7 };
    let total: usize = (0..ROUNDS).map(piece).sum();
    // The thread that is told of readiness is another than the one that reads.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection, stats) = connected().await;
        let (mut read, mut write) = connection.into_split();
        let echo = tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await.unwrap() });
        let talk = tokio::task::spawn_blocking(move || {
            client.set_write_timeout(Some(PATIENCE)).unwrap();
            let reader = client.try_clone().unwrap();
            let reading = std::thread::spawn(move || {
                let (mut client, mut buffer, mut got) = (reader, vec![0; 64 << 10], 0);
                while got < total {
                    got += client.read(&mut buffer).expect("the echo goes on");
                }
            });
            for round in 0..ROUNDS {
                (&client).write_all(&vec![0; piece(round)]).unwrap();
            }
            reading.join().unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        talk.await.unwrap();
        assert_eq!(echo.await.unwrap(), total as u64);
        assert_eq!(stats.sent_bytes(), total as u64);
    });
}
