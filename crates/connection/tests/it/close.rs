//! The outcomes of a graceful close.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use ::connection::{CloseOutcome, CloseReason, FirstFin, Timeouts};
use listener::TcpState;
use testnet::{Counters, Flags, eventually, isolated};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::*;

/// Long enough for a close that goes on to be seen doing so.
const SHORT: Duration = Duration::from_millis(200);

fn assert_clean(outcome: &CloseOutcome) {
    assert!(matches!(outcome, CloseOutcome::Clean), "{outcome:?}");
}

#[test]
fn close_is_clean_only_when_our_fin_is_acknowledged() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, mut connection, stats) = lab.accept_script(&host, 1025).await;
            connection.write_all(b"the answer").await.unwrap();
            let handle = connection.handle();
            let closing = tokio::spawn(connection.close(PATIENCE));
            tokio::task::yield_now().await; // The FIN leaves.
            assert_eq!(script.expect_data(10), b"the answer");
            if !script.has_seen_fin() {
                script.expect_fin();
            }
            // Both FINs have been sent, and all bytes acknowledged, but not our FIN.
            script.rcv_nxt = script.rcv_nxt.wrapping_sub(1);
            script.fin();
            until("CLOSING", || handle.state() == Some(TcpState::Closing)).await;
            assert!(!closing.is_finished());
            script.rcv_nxt = script.rcv_nxt.wrapping_add(1);
            script.ack();
            assert_clean(&closing.await.unwrap());
            assert_closed(&stats, CloseReason::LocalClose);
            assert_eq!(Counters::of(&lab.server).get("TcpOutRsts"), 0);
        });
    });
}

#[test]
fn deadline_tells_what_was_not_acknowledged() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, mut connection, stats) = lab.accept_script(&host, 1025).await;
            connection.write_all(b"nobody acknowledges this").await.unwrap();
            let outcome = connection.close(SHORT).await;
            let expected = matches!(outcome, CloseOutcome::DeadlineExceeded { unread: 0, unacked: 24 });
            assert!(expected, "the FIN is no byte: {outcome:?}");
            script.expect("the reset", |frame| frame.flags.has(Flags::RST));
            assert_closed(&stats, CloseReason::Deadline);
        });
    });
}

#[test]
fn client_that_acknowledges_all_but_sends_no_fin_leaves_nothing_unacknowledged() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, mut connection, _stats) = lab.accept_script(&host, 1025).await;
            connection.write_all(b"answer").await.unwrap();
            let closing = tokio::spawn(connection.close(SHORT));
            tokio::task::yield_now().await;
            assert_eq!(script.expect_data(6), b"answer");
            if !script.has_seen_fin() {
                script.expect_fin();
                script.ack();
            }
            let outcome = closing.await.unwrap();
            assert!(matches!(outcome, CloseOutcome::DeadlineExceeded { unread: 0, unacked: 0 }), "{outcome:?}");
        });
    });
}

/// A drop would reset at once, and the client would lose the end of the answer.
#[test]
fn client_that_goes_on_sending_still_gets_the_whole_answer() {
    block_on(async {
        let (client, mut connection, stats) = connected().await;
        let mut sender = client.try_clone().unwrap();
        let sending = tokio::task::spawn_blocking(move || {
            for _ in 0..64 {
                sender.write_all(&[0; 64 << 10]).unwrap();
            }
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let answer = vec![7; 1 << 20];
        let reading = tokio::task::spawn_blocking(move || {
            let (mut client, mut bytes) = (client, Vec::new());
            client.read_to_end(&mut bytes).map(|_| bytes)
        });
        connection.write_all(&answer).await.unwrap();
        assert_clean(&connection.close(PATIENCE).await);
        sending.await.unwrap();
        assert!(reading.await.unwrap().unwrap() == answer);
        assert_closed(&stats, CloseReason::LocalClose);
        assert_eq!(stats.received_bytes(), 4 << 20, "thrown away, but counted");
    });
}

#[test]
fn client_that_never_stops_sending_is_reset_at_the_deadline() {
    block_on(async {
        let (mut client, connection, stats) = connected().await;
        let sending = tokio::task::spawn_blocking(move || {
            loop {
                if let Err(error) = client.write(&[0; 64 << 10]) {
                    return error.kind();
                }
            }
        });
        let outcome = connection.close(SHORT).await;
        assert!(matches!(outcome, CloseOutcome::DeadlineExceeded { unacked: 0, .. }), "{outcome:?}");
        let error = sending.await.unwrap();
        assert!(matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
        assert_closed(&stats, CloseReason::Deadline);
    });
}

#[test]
fn client_that_does_not_read_leaves_bytes_unacknowledged() {
    block_on(async {
        let (_client, mut connection, _stats) = connected().await;
        // As much as the sockets take: the client's window is shut, and the rest waits here.
        while let Ok(outcome) = tokio::time::timeout(SHORT, connection.write(&[0; 64 << 10])).await {
            outcome.unwrap();
        }
        let outcome = connection.close(SHORT).await;
        assert!(matches!(outcome, CloseOutcome::DeadlineExceeded { unread: 0, unacked: 1.. }), "{outcome:?}");
    });
}

#[test]
fn reset_instead_of_the_last_ack_is_no_clean_close() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, mut connection, stats) = lab.accept_script(&host, 1025).await;
            script.fin();
            assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
            let handle = connection.handle();
            let closing = tokio::spawn(connection.close(PATIENCE));
            until("LAST-ACK", || handle.state() == Some(TcpState::LastAck)).await;
            script.send(&script.segment(Flags::RST));
            let outcome = closing.await.unwrap();
            assert!(matches!(outcome, CloseOutcome::PeerReset), "{outcome:?}");
            assert_closed(&stats, CloseReason::ClientReset);
        });
    });
}

/// The kernel tells of a reset once.
#[test]
fn reset_that_a_read_was_told_of_is_remembered() {
    block_on(async {
        let (client, mut connection, _stats) = connected().await;
        reset(&client);
        drop(client);
        assert_eq!(connection.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let outcome = connection.close(PATIENCE).await;
        assert!(matches!(outcome, CloseOutcome::PeerReset), "{outcome:?}");
    });
}

#[test]
fn write_behind_our_own_fin_is_not_taken_for_a_reset() {
    block_on(async {
        let (client, mut connection, stats) = connected().await;
        connection.note_close(CloseReason::Drained);
        connection.shutdown_write().await.unwrap();
        assert_eq!(connection.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        drop(client);
        assert_clean(&connection.close(PATIENCE).await);
        assert_closed(&stats, CloseReason::Drained);
    });
}

#[test]
fn abort_by_a_handle_is_a_failed_close() {
    block_on(async {
        let (mut client, connection, stats) = connected().await;
        let handle = connection.handle();
        let closing = tokio::spawn(connection.close(PATIENCE));
        tokio::task::yield_now().await;
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the FIN has left");
        assert!(handle.abort(CloseReason::Drained));
        let outcome = closing.await.unwrap();
        assert!(
            matches!(&outcome, CloseOutcome::Failed(error) if error.kind() == ErrorKind::ConnectionAborted),
            "{outcome:?}"
        );
        assert_closed(&stats, CloseReason::Drained);
    });
}

#[tokio::test(start_paused = true)]
async fn deadline_of_the_close_is_the_only_limit_on_it() {
    let (client, mut connection, stats) = connected().await;
    let second = Some(Duration::from_secs(1));
    let timeouts = Timeouts { first_byte: second, idle: second, half_close: second, ..Timeouts::default() };
    connection.set_timeouts(&timeouts).unwrap();
    let (began, deadline) = (Instant::now(), Duration::from_secs(60));
    let outcome = connection.close(deadline).await;
    assert!(matches!(outcome, CloseOutcome::DeadlineExceeded { .. }), "{outcome:?}");
    assert!((deadline..deadline + Duration::from_millis(2)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_closed(&stats, CloseReason::Deadline);
    drop(client);
}

#[test]
fn client_that_closes_first_keeps_time_wait() {
    isolated!(|| {
        let lab = Lab::new();
        block_on(async {
            let stats = std::sync::Arc::default();
            let mut listener = lab.listen(SERVER_V4, &stats);
            let mut client = lab.near.namespace().run(|| std::net::TcpStream::connect(SERVER_V4).unwrap());
            let mut connection = listener.accept().await.unwrap();
            connection.write_all(b"3\nend").await.unwrap(); // The client can tell where the answer ends.
            let closing = tokio::spawn(connection.close_with(FirstFin::Peers { within: PATIENCE }, PATIENCE));
            let mut answer = [0; 5];
            tokio::task::spawn_blocking(move || client.read_exact(&mut answer).unwrap()).await.unwrap();
            assert_clean(&closing.await.unwrap());
            assert_closed(&stats, CloseReason::ClientFin);
            assert!(!ss(&lab.server).contains("TIME-WAIT"), "{}", ss(&lab.server));
            let theirs = lab.near.namespace().output("ss", "-Htan");
            assert!(theirs.contains("TIME-WAIT"), "{theirs}");
        });
    });
}

#[test]
fn client_that_does_not_close_first_in_time_gets_our_fin() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, connection, stats) = lab.accept_script(&host, 1025).await;
            let handle = connection.handle();
            let closing = tokio::spawn(connection.close_with(FirstFin::Peers { within: SHORT }, PATIENCE));
            tokio::task::yield_now().await;
            script.expect_silence(SHORT / 4);
            let fin_sent = [TcpState::FinWait1, TcpState::FinWait2].map(Some);
            until("our FIN", || fin_sent.contains(&handle.state())).await;
            script.expect_fin();
            script.fin();
            assert_clean(&closing.await.unwrap());
            assert_closed(&stats, CloseReason::LocalClose);
            wait_for_state(&lab.server, "TIME-WAIT");
        });
    });
}

#[test]
fn abort_leaves_no_time_wait() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, connection, _stats) = lab.accept_script(&host, 1025).await;
            connection.abort();
            script.expect("the reset", |frame| frame.flags.has(Flags::RST));
            eventually("nothing is left", PATIENCE, || ss(&lab.server).lines().all(|line| line.contains("LISTEN")));
        });
    });
}
