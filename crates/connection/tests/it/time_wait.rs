//! What TIME-WAIT is for: a segment of an old connection that comes late is not taken for one of the next on the same 4-tuple.
//!
//! That a repeated FIN is answered again, and that a newer SYN gets in, is tested where listener and connection meet.

use std::sync::Arc;

use ::connection::{AcceptReceiver, CloseOutcome, Connection, RawEstablisher, accept_queue};
use listener::{Accepted, Establish};
use testnet::{Counters, Flags, RawHost, Script, Segment, isolated};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

const PORT: u16 = 1025;
/// How far into the new connection the late segment falls, where sequence numbers alone do not tell it apart.
const OFFSET: u32 = 1000;

/// Lives an old connection in which the server closes first, and keeps a segment of it back: `late` lies where its data would go on.
async fn live_and_keep_back(script: &mut Script<'_>, mut connection: Connection) -> Segment {
    script.data(b"old");
    connection.read_exact(&mut [0; 3]).await.unwrap();
    let late = script.segment(Flags::ACK | Flags::PSH).payload(b"LATE");
    let closing = tokio::spawn(connection.close(PATIENCE));
    tokio::task::yield_now().await; // The FIN leaves.
    script.expect_fin();
    script.fin();
    script.expect_ack();
    assert!(matches!(closing.await.unwrap(), CloseOutcome::Clean));
    late
}

/// Sends bytes, the late segment among them, and reads: only the new connection's bytes may come.
///
/// The first segment goes before: an adopted socket learns the client's timestamps from it, and could not tell a late one before that.
async fn assert_not_delivered(script: &mut Script<'_>, late: &Segment, mut connection: Connection) {
    let new = [b'n'; 2 * OFFSET as usize];
    script.data(&new[..100]);
    connection.read_exact(&mut [0; 100]).await.unwrap();
    script.send(late);
    // One of them ends where the late segment begins: had that been kept, it would come next.
    new[100..].chunks(100).for_each(|chunk| script.data(chunk));
    let mut rest = vec![0; new.len() - 100];
    connection.read_exact(&mut rest).await.unwrap();
    assert!(rest == new[100..], "bytes of the old connection");
    connection.write_all(b"answer").await.unwrap();
    assert_eq!(script.expect_data(6), b"answer", "the connection is none the worse for it");
}

/// The client comes again: with timestamps in the midst of the sequence numbers of the old connection, which a newer timestamp allows
/// (RFC 6191), so that only the timestamp of the late segment tells; without, behind them (RFC 1122 §4.2.2.13).
fn come_again<'a>(host: &'a RawHost, old: &Script<'_>, timestamps: bool) -> Script<'a> {
    let script = host.script(PORT, SERVER_V4.parse().unwrap());
    let late_seq = old.snd_nxt.wrapping_sub(1); // Behind it came the FIN alone.
    match timestamps {
        true => script.with_iss(late_seq.wrapping_sub(OFFSET + 1)).with_timestamps(500_000_000),
        false => script.with_iss(old.snd_nxt.wrapping_add(100_000)),
    }
}

fn first_time(host: &RawHost, timestamps: bool) -> Script<'_> {
    let script = host.script(PORT, SERVER_V4.parse().unwrap());
    if timestamps { script.with_timestamps(1_000_000) } else { script }
}

#[test]
fn late_segment_is_not_delivered_to_the_next_connection() {
    isolated!(|| {
        for timestamps in [true, false] {
            let lab = Lab::new();
            let host = lab.host();
            block_on(async {
                let mut listener = lab.listen(SERVER_V4, &Arc::default());
                let mut old = first_time(&host, timestamps);
                old.handshake();
                let late = live_and_keep_back(&mut old, listener.accept().await.unwrap()).await;
                wait_for_state(&lab.server, "TIME-WAIT");

                let mut new = come_again(&host, &old, timestamps);
                new.handshake();
                assert_not_delivered(&mut new, &late, listener.accept().await.unwrap()).await;
            });
            assert_eq!(Counters::of(&lab.server).get("TcpExtPAWSEstab"), i64::from(timestamps), "RFC 7323 §5");
        }
    });
}

struct Door {
    establisher: RawEstablisher,
    receiver: AcceptReceiver,
}

impl Door {
    fn new(lab: &Lab) -> Door {
        let (sender, receiver) = accept_queue(1, Arc::default());
        let establisher = lab.server.run(move || RawEstablisher::new(sender)).unwrap();
        Door { establisher, receiver }
    }

    async fn adopt(&mut self, lab: &Lab, accepted: &Accepted) -> Connection {
        let (adoption, _early_bytes) = lab.server.run(|| self.establisher.establish(accepted, &mut NoData)).unwrap();
        self.establisher.hand_over(adoption);
        self.receiver.accept().await.unwrap().unwrap()
    }
}

#[test]
fn late_segment_is_not_delivered_to_an_adopted_connection_that_took_the_place_of_time_wait() {
    isolated!(|| {
        for timestamps in [true, false] {
            let lab = Lab::new();
            let host = lab.host();
            block_on(async {
                let mut door = Door::new(&lab);
                let mut old = first_time(&host, timestamps);
                let options = if timestamps { with_timestamps(7_000_000, 1_000_000) } else { usual_options() };
                let accepted = shaken(&mut old, SERVER_V4, options);
                let connection = door.adopt(&lab, &accepted).await;
                let late = live_and_keep_back(&mut old, connection).await;
                wait_for_state(&lab.server, "TIME-WAIT");

                let mut new = come_again(&host, &old, timestamps);
                let options = if timestamps { with_timestamps(9_000_000, 500_000_000) } else { usual_options() };
                let accepted = shaken(&mut new, SERVER_V4, options);
                let connection = door.adopt(&lab, &accepted).await;
                // The kernel gives up some by itself for a socket that connects; the others are destroyed first.
                assert!(!ss(&lab.server).contains("TIME-WAIT"), "its place is taken");
                assert_not_delivered(&mut new, &late, connection).await;
            });
            assert_eq!(Counters::of(&lab.server).get("TcpExtPAWSEstab"), i64::from(timestamps), "RFC 7323 §5");
        }
    });
}

/// Nothing to keep it apart from: it is acknowledged or ignored, and TIME-WAIT goes on.
#[test]
fn late_segment_in_time_wait_itself_changes_nothing() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        block_on(async {
            let (mut script, connection, _stats) = lab.accept_script(&host, PORT).await;
            let late = live_and_keep_back(&mut script, connection).await;
            wait_for_state(&lab.server, "TIME-WAIT");
            script.send(&late);
            let answer = script.next(GLANCE);
            assert!(answer.is_none_or(|frame| frame.flags == Flags::ACK));
            assert!(ss(&lab.server).contains("TIME-WAIT"));
        });
        assert_eq!(Counters::of(&lab.server).get("TcpOutRsts"), 0);
    });
}
