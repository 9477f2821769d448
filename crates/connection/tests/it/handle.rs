//! Connections as a registry, an access log and an operator see them, and clients that are turned away.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use ::connection::{CloseReason, ConnectionHandle, Refuse};
use caps::{CapSet, Capability};
use listener::TcpState;
use testnet::{Counters, Flags, isolated};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

#[test]
fn handle_tells_of_a_connection_while_it_lives_and_of_its_end() {
    block_on(async {
        let (mut client, mut connection, _stats) = connected().await;
        let handle = connection.handle();
        assert_eq!((handle.peer_addr(), handle.local_addr()), (connection.peer_addr(), connection.local_addr()));
        assert_eq!(handle.handshake(), connection.handshake());
        assert_eq!(handle.state(), Some(TcpState::Established));
        assert_eq!((handle.close_reason(), handle.summary()), (None, None));

        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        connection.read_to_end(&mut Vec::new()).await.unwrap();
        connection.write_all(b"the answer").await.unwrap();
        assert_eq!((handle.received_bytes(), handle.sent_bytes()), (8, 10));
        assert_eq!(handle.state(), Some(TcpState::CloseWait));
        assert_eq!((handle.close_reason(), handle.summary()), (Some(CloseReason::ClientFin), None));

        drop(connection);
        let end = handle.summary().unwrap();
        assert_eq!((end.id, end.peer, end.local), (handle.id(), handle.peer_addr(), handle.local_addr()));
        assert_eq!((end.received_bytes, end.sent_bytes), (8, 10));
        assert_eq!(end.reason, CloseReason::ClientFin);
        assert_eq!(end.duration, handle.age());
        assert_eq!(handle.state(), None);
        assert!(!handle.abort(CloseReason::Aborted), "there is nothing left to abort");
    });
}

#[test]
fn ids_are_of_one_connection_each() {
    block_on(async {
        let (_client_a, a, _) = connected().await;
        let (_client_b, b, _) = connected().await;
        assert_ne!(a.handle().id(), b.handle().id());
        assert_eq!(a.handle().id(), a.handle().clone().id());
    });
}

#[tokio::test(start_paused = true)]
async fn age_is_that_of_the_connection_and_stands_still_at_its_end() {
    let (_client, connection, _stats) = connected().await;
    let handle = connection.handle();
    tokio::time::advance(Duration::from_secs(5)).await;
    drop(connection);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(handle.summary().unwrap().duration, Duration::from_secs(5));
}

/// Reads until it fails; an operator's abort is to end it.
async fn read_on(mut reader: impl tokio::io::AsyncRead + Unpin) -> ErrorKind {
    loop {
        if let Err(error) = reader.read_u8().await {
            return error.kind();
        }
    }
}

#[test]
fn abort_wakes_a_reader_and_resets_the_client() {
    block_on(async {
        let (mut client, connection, stats) = connected().await;
        let handle = connection.handle();
        let reading = tokio::spawn(read_on(connection));
        tokio::task::yield_now().await; // It waits.
        std::thread::spawn(move || assert!(handle.abort(CloseReason::Aborted))).join().unwrap();
        assert_eq!(reading.await.unwrap(), ErrorKind::ConnectionAborted);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_closed(&stats, CloseReason::Aborted);
    });
}

#[test]
fn abort_wakes_a_writer_that_waits_for_a_client_that_does_not_read() {
    block_on(async {
        let (_client, mut connection, stats) = connected().await;
        let handle = connection.handle();
        let writing = tokio::spawn(async move { connection.write_all(&vec![0; 24 << 20]).await.unwrap_err().kind() });
        until("it writes", || handle.sent_bytes() > 0).await; // It waits, or not yet: it is to fail in any case.
        assert!(handle.abort(CloseReason::Drained));
        // Whoever writes after the kernel has told its one error gets a broken pipe from it, and the same from us.
        assert_eq!(writing.await.unwrap(), ErrorKind::ConnectionAborted);
        assert_closed(&stats, CloseReason::Drained);
    });
}

#[test]
fn abort_reaches_both_halves() {
    block_on(async {
        let (_client, connection, stats) = connected().await;
        let (read, mut write) = connection.into_split();
        let handle = read.handle();
        let reading = tokio::spawn(read_on(read));
        assert!(handle.abort(CloseReason::Aborted));
        assert_eq!(reading.await.unwrap(), ErrorKind::ConnectionAborted);
        assert_eq!(write.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(stats.open(), 1, "the other half is still held");
        drop(write);
        assert_closed(&stats, CloseReason::Aborted);
    });
}

#[test]
fn reason_of_an_abort_stands_even_if_it_is_that_of_an_orderly_end() {
    block_on(async {
        let (_client, mut connection, stats) = connected().await;
        assert!(connection.handle().abort(CloseReason::LocalClose));
        assert_eq!(connection.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(connection.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
        drop(connection);
        assert_closed(&stats, CloseReason::LocalClose);
    });
}

#[test]
fn abort_ends_a_relay() {
    block_on(async {
        let (_client, connection, stats) = connected().await;
        let behind = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to_upstream = tokio::net::TcpStream::connect(behind.local_addr().unwrap()).await.unwrap();
        let mut upstream = behind.accept().unwrap().0;
        upstream.set_read_timeout(Some(PATIENCE)).unwrap();
        let handle = connection.handle();
        let relaying = tokio::spawn(connection::relay(connection, to_upstream, None, None));
        tokio::task::yield_now().await;
        assert!(handle.abort(CloseReason::Drained));
        relaying.await.unwrap();
        assert_eq!(upstream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset, "passed on");
        assert_closed(&stats, CloseReason::Drained);
    });
}

#[test]
fn bare_stream_is_out_of_reach() {
    block_on(async {
        let (mut client, connection, _stats) = connected().await;
        let handle = connection.handle();
        let asking: Vec<_> = (0..4).map(|_| looker(handle.clone())).collect();
        let mut stream = connection.into_tcp_stream(); // Also while they look.
        assert!(!handle.abort(CloseReason::Aborted));
        assert_eq!((handle.state(), handle.summary().unwrap().reason), (None, CloseReason::HandedOver));
        stream.write_all(b"bare").await.unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        asking.into_iter().for_each(|asking| asking.join().unwrap());
    });
}

/// Asks for the state over and over, until the connection is out of its reach.
fn looker(handle: ConnectionHandle) -> std::thread::JoinHandle<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let asking = std::thread::spawn(move || {
        sender.send(()).unwrap();
        while handle.state().is_some() {}
    });
    receiver.recv().unwrap();
    asking
}

#[test]
fn handle_that_looks_does_not_keep_a_connection_open() {
    block_on(async {
        let (mut client, connection, stats) = connected().await;
        let asking = looker(connection.handle());
        drop(connection);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the FIN");
        asking.join().unwrap();
        assert_closed(&stats, CloseReason::LocalClose);
    });
}

#[test]
fn refusal_by_reset_is_counted_as_a_refusal() {
    block_on(async {
        let (mut client, connection, stats) = connected().await;
        assert_eq!(connection.refuse(Refuse::Reset), Refuse::Reset);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_closed(&stats, CloseReason::Refused);
    });
}

#[test]
fn silent_refusal_sends_no_segment_whatever_was_read_or_written() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, mut connection, stats) = lab.accept_script(&host, 1025).await;
            script.data(b"unread");
            script.expect_ack();
            connection.write_all(b"unacknowledged").await.unwrap();
            script.expect("the answer", |frame| frame.payload == b"unacknowledged");
            assert_eq!(connection.refuse(Refuse::Silent), Refuse::Silent);
            assert_closed(&stats, CloseReason::Refused);
            // Longer than the retransmission timeout of what was not acknowledged.
            script.expect_silence(Duration::from_millis(700));
            assert_eq!(Counters::of(&lab.server).get("TcpOutRsts"), 0);
            assert!(!ss(&lab.server).contains(&script.local().to_string()), "{}", ss(&lab.server));
        });
    });
}

#[test]
fn silent_refusal_without_the_right_to_it_is_a_reset() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, connection, stats) = lab.accept_script(&host, 1025).await;
            caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap();
            let how = connection.refuse(Refuse::Silent);
            caps::raise(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap();
            assert_eq!(how, Refuse::Reset);
            script.expect("the reset", |frame| frame.flags.has(Flags::RST));
            assert_closed(&stats, CloseReason::Refused);
        });
    });
}
