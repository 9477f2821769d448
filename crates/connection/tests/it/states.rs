//! The states of both ends on the way from ESTABLISHED to CLOSED: ours by our own API, the client's by `ss`.
//!
//! Both ends are kernels'. A state that passes in a moment is held by making one end deaf, with a filter that drops what comes in:
//! the other then waits for its answer, and sends again until it is heard.

use std::io::{Read, Write};
use std::net::{self, Shutdown};
use std::os::fd::AsFd;
use std::sync::Arc;

use ::connection::{CloseReason, Connection, ConnectionStats};
use listener::TcpState;
use socket2::{SockFilter, SockRef};
use testnet::{Counters, Namespace, eventually, isolated};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

struct Pair {
    lab: Lab,
    client: net::TcpStream,
    connection: Connection,
    stats: Arc<ConnectionStats>,
}

impl Pair {
    async fn new() -> Pair {
        let lab = Lab::new();
        let stats = Arc::default();
        let mut listener = lab.listen(SERVER_V4, &stats);
        let client = lab.near.namespace().run(|| net::TcpStream::connect(SERVER_V4).unwrap());
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let connection = listener.accept().await.unwrap();
        let pair = Pair { lab, client, connection, stats };
        pair.expect(TcpState::Established, "ESTAB");
        pair
    }

    /// Both ends have sent FIN, and are deaf to the other's.
    async fn closed_by_both_at_once() -> Pair {
        let mut pair = Pair::new().await;
        deafen(&pair.client);
        deafen(&pair.connection);
        pair.connection.shutdown_write().await.unwrap();
        pair.client.shutdown(Shutdown::Write).unwrap();
        pair.expect(TcpState::FinWait1, "FIN-WAIT-1");
        pair
    }

    /// Waits until both ends are in these states. What has no socket any more is CLOSED for us, and "" for `ss`.
    fn expect(&self, ours: TcpState, theirs: &str) {
        eventually(&format!("{ours} here and {theirs} there"), PATIENCE, || {
            self.connection.state().unwrap() == ours && state_of(self.lab.near.namespace(), "dport") == theirs
        });
    }

    /// What `ss` sees of our end: TIME-WAIT too, which our socket does not know.
    fn expect_left_here(&self, state: &str) {
        assert_eq!(state_of(&self.lab.server, "sport"), state);
    }

    fn end(self, reason: CloseReason) {
        let Pair { lab, connection, stats, .. } = self;
        drop(connection);
        assert_closed(&stats, reason);
        let resets = [&lab.server, lab.near.namespace()].map(|end| Counters::of(end).get("TcpOutRsts"));
        assert_eq!(resets, [0, 0]);
    }
}

/// The state of the one connection of port 8080, which is its port at this end or at the other.
fn state_of(namespace: &Namespace, port: &str) -> String {
    let sockets = namespace.output("ss", &format!("-Htan {port} = :8080"));
    let states = sockets.lines().filter_map(|line| line.split_whitespace().next());
    states.filter(|state| *state != "LISTEN").collect()
}

fn deafen(socket: &impl AsFd) {
    /// `BPF_RET | BPF_K` with 0: keep no byte of the packet.
    const RET_0: SockFilter = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(socket).attach_filter(&[RET_0]).unwrap();
}

fn undeafen(socket: &impl AsFd) {
    SockRef::from(socket).detach_filter().unwrap();
}

#[test]
fn we_close_first_by_way_of_fin_wait_1_and_2_to_time_wait() {
    isolated!(|| {
        block_on(async {
            let mut pair = Pair::new().await;
            deafen(&pair.client);
            pair.connection.shutdown_write().await.unwrap();
            pair.expect(TcpState::FinWait1, "ESTAB");
            undeafen(&pair.client);
            pair.expect(TcpState::FinWait2, "CLOSE-WAIT");

            // The other direction goes on: half-closed is a state to work in.
            pair.client.write_all(b"still here").unwrap();
            pair.connection.read_exact(&mut [0; 10]).await.unwrap();
            pair.expect(TcpState::FinWait2, "CLOSE-WAIT");

            deafen(&pair.connection);
            pair.client.shutdown(Shutdown::Write).unwrap();
            pair.expect(TcpState::FinWait2, "LAST-ACK");
            undeafen(&pair.connection);
            pair.expect(TcpState::Closed, "");
            pair.expect_left_here("TIME-WAIT");
            assert_eq!(pair.connection.read(&mut [0]).await.unwrap(), 0);
            pair.end(CloseReason::LocalClose);
        });
    });
}

#[test]
fn client_closes_first_and_we_go_by_way_of_close_wait_and_last_ack() {
    isolated!(|| {
        block_on(async {
            let mut pair = Pair::new().await;
            deafen(&pair.connection);
            pair.client.shutdown(Shutdown::Write).unwrap();
            pair.expect(TcpState::Established, "FIN-WAIT-1");
            undeafen(&pair.connection);
            pair.expect(TcpState::CloseWait, "FIN-WAIT-2");

            assert_eq!(pair.connection.read(&mut [0]).await.unwrap(), 0);
            pair.connection.write_all(b"still here").await.unwrap();
            pair.client.read_exact(&mut [0; 10]).unwrap();
            pair.expect(TcpState::CloseWait, "FIN-WAIT-2");

            deafen(&pair.client);
            pair.connection.shutdown_write().await.unwrap();
            pair.expect(TcpState::LastAck, "FIN-WAIT-2");
            undeafen(&pair.client);
            pair.expect(TcpState::Closed, "TIME-WAIT");
            pair.expect_left_here("");
            pair.end(CloseReason::ClientFin);
        });
    });
}

#[test]
fn both_close_at_once_and_we_hear_of_it_first() {
    isolated!(|| {
        block_on(async {
            let mut pair = Pair::closed_by_both_at_once().await;
            undeafen(&pair.connection);
            pair.expect(TcpState::Closing, "FIN-WAIT-1");
            undeafen(&pair.client);
            // Our FIN, sent again, now acknowledges the client's, so the client needs no CLOSING.
            pair.expect(TcpState::Closed, "TIME-WAIT");
            pair.expect_left_here("TIME-WAIT");
            assert_eq!(pair.connection.read(&mut [0]).await.unwrap(), 0);
            pair.end(CloseReason::LocalClose);
        });
    });
}

#[test]
fn both_close_at_once_and_the_client_hears_of_it_first() {
    isolated!(|| {
        block_on(async {
            let pair = Pair::closed_by_both_at_once().await;
            undeafen(&pair.client);
            pair.expect(TcpState::FinWait1, "CLOSING");
            undeafen(&pair.connection);
            pair.expect(TcpState::Closed, "TIME-WAIT");
            pair.expect_left_here("TIME-WAIT");
            pair.end(CloseReason::LocalClose);
        });
    });
}
