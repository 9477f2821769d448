//! From the establisher through the queue to the application.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use ::connection::{AcceptReceiver, CloseReason, ConnectionStats, RawEstablisher, accept_queue};
use listener::{Accepted, Establish, Refusal, TcpState, Via};
use testnet::{Flags, isolated};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

struct Queue {
    establisher: RawEstablisher,
    receiver: AcceptReceiver,
    stats: Arc<ConnectionStats>,
}

impl Queue {
    fn new(lab: &Lab, limit: usize) -> Queue {
        let stats = Arc::new(ConnectionStats::default());
        let (sender, receiver) = accept_queue(limit, Arc::clone(&stats));
        let establisher = lab.server.run(move || RawEstablisher::new(sender)).unwrap();
        Queue { establisher, receiver, stats }
    }

    fn establish(&mut self, lab: &Lab, accepted: &Accepted) -> Result<u32, Refusal> {
        let (connection, early_bytes) = lab.server.run(|| self.establisher.establish(accepted, &mut NoData))?;
        self.establisher.hand_over(connection);
        Ok(early_bytes)
    }
}

#[test]
fn established_connection_comes_out_with_its_handshake() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let mut queue = Queue::new(&lab, 4);
        let mut script = host.script(1025, SERVER_V4.parse().unwrap());
        let accepted = shaken(&mut script, SERVER_V4, usual_options());
        assert_eq!(queue.establish(&lab, &accepted), Ok(0));
        assert_eq!((queue.receiver.len(), queue.stats.accepted()), (1, 0));
        block_on(async {
            let mut connection = queue.receiver.accept().await.unwrap().unwrap();
            assert_eq!(connection.peer_addr(), script.local());
            assert_eq!(connection.local_addr(), SERVER_V4.parse().unwrap());
            let handshake = connection.handshake();
            assert_eq!((handshake.via, handshake.options), (Via::Cookie, Some(usual_options())));
            assert_eq!(handshake.duration, Some(Duration::from_millis(3)));
            assert_eq!(connection.state().unwrap(), TcpState::Established);

            script.data(b"ping");
            let mut ping = [0; 4];
            connection.read_exact(&mut ping).await.unwrap();
            connection.write_all(b"pong").await.unwrap();
            assert_eq!(script.expect_data(4), b"pong");
            // A socket that closes with everything read sends FIN, not RST: the linger trick of its making is undone.
            drop(connection);
            script.expect_fin();
        });
        assert_eq!(queue.stats.closed(CloseReason::LocalClose), 1);
        assert_eq!((queue.stats.received_bytes(), queue.stats.sent_bytes()), (4, 4));
    });
}

#[test]
fn full_queue_refuses_before_a_socket_is_made_and_takes_again_when_there_is_room() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let mut queue = Queue::new(&lab, 1);
        let handshakes: Vec<_> = (1025..1027)
            .map(|port| shaken(&mut host.script(port, SERVER_V4.parse().unwrap()), SERVER_V4, usual_options()))
            .collect();
        queue.establish(&lab, &handshakes[0]).unwrap();
        assert_eq!(queue.establish(&lab, &handshakes[1]), Err(Refusal::AcceptQueueFull));
        assert_eq!(ss(&lab.server).matches("ESTAB").count(), 1);
        block_on(async { queue.receiver.accept().await.unwrap().unwrap() });
        queue.establish(&lab, &handshakes[1]).unwrap();
    });
}

#[test]
fn refused_adoption_gives_its_place_back() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let mut queue = Queue::new(&lab, 1);
        let accepted = shaken(&mut host.script(1025, SERVER_V4.parse().unwrap()), SERVER_V4, usual_options());
        let holder = lab.adopt(&accepted, &mut NoData).unwrap();
        for _ in 0..3 {
            assert_eq!(queue.establish(&lab, &accepted), Err(Refusal::TupleBusy));
        }
        assert!(queue.receiver.is_empty());
        drop(holder);
    });
}

#[test]
fn dropped_receiver_resets_what_nobody_accepted_and_refuses_the_rest() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let mut queue = Queue::new(&lab, 2);
        let mut script = host.script(1025, SERVER_V4.parse().unwrap());
        let accepted = shaken(&mut script, SERVER_V4, usual_options());
        queue.establish(&lab, &accepted).unwrap();
        drop(queue.receiver);
        script.expect("a reset", |frame| frame.flags.has(Flags::RST));
        assert_eq!(queue.stats.unaccepted(), 1);
        let refusal = lab.server.run(|| queue.establisher.establish(&accepted, &mut NoData));
        assert_eq!(refusal.map(drop), Err(Refusal::Closed));
    });
}

#[test]
fn closed_queue_can_be_emptied_and_then_ends() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let mut queue = Queue::new(&lab, 2);
        let accepted = shaken(&mut host.script(1025, SERVER_V4.parse().unwrap()), SERVER_V4, usual_options());
        queue.establish(&lab, &accepted).unwrap();
        queue.receiver.close();
        assert_eq!(queue.establish(&lab, &accepted), Err(Refusal::Closed));
        block_on(async {
            assert!(queue.receiver.accept().await.unwrap().is_ok());
            assert!(queue.receiver.accept().await.is_none());
        });
    });
}

#[test]
fn gauge_follows_the_queue_and_does_not_keep_it_open() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let stats = Arc::new(ConnectionStats::default());
        let (sender, mut receiver) = accept_queue(3, stats);
        let gauge = sender.gauge();
        let mut establisher = lab.server.run(|| RawEstablisher::new(sender)).unwrap();
        assert_eq!((gauge.len(), gauge.limit()), (0, 3));
        let accepted = shaken(&mut host.script(1025, SERVER_V4.parse().unwrap()), SERVER_V4, usual_options());
        let (connection, _) = lab.server.run(|| establisher.establish(&accepted, &mut NoData)).unwrap();
        assert_eq!(gauge.len(), 1, "a reserved place counts");
        establisher.hand_over(connection);
        assert_eq!(gauge.len(), 1);
        drop(establisher);
        block_on(async {
            assert!(receiver.accept().await.is_some());
            assert!(receiver.accept().await.is_none(), "the gauge holds no sender");
        });
        assert!(gauge.is_empty());
    });
}

#[test]
fn time_wait_gives_way_to_a_new_handshake() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let mut queue = Queue::new(&lab, 4);
        let mut script = host.script(1025, SERVER_V4.parse().unwrap());
        // Without timestamps: with them the kernel lets TIME-WAIT go by itself.
        let accepted = shaken(&mut script, SERVER_V4, usual_options());
        drop(lab.adopt(&accepted, &mut NoData).unwrap());
        script.expect_fin();
        script.fin();
        script.expect_ack();
        wait_for_state(&lab.server, "TIME-WAIT");
        assert_eq!(lab.adopt(&accepted, &mut NoData).unwrap_err(), Refusal::TupleBusy);

        queue.establish(&lab, &accepted).unwrap();
        assert_eq!(queue.stats.time_waits_replaced(), 1);
        assert!(ss(&lab.server).contains("ESTAB"));
    });
}

#[test]
fn fin_wait_is_left_to_the_listener_to_judge() {
    isolated!(|| {
        let lab = Lab::new();
        let host = lab.host();
        let mut queue = Queue::new(&lab, 4);
        let mut script = host.script(1025, SERVER_V4.parse().unwrap());
        let accepted = shaken(&mut script, SERVER_V4, usual_options());
        let mut stream = lab.adopt(&accepted, &mut NoData).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        script.expect_fin();
        assert_eq!(queue.establish(&lab, &accepted), Err(Refusal::TupleBusy));
        script.ack();
        wait_for_state(&lab.server, "FIN-WAIT-2");
        assert_eq!(queue.establish(&lab, &accepted), Err(Refusal::TupleBusy));
        // And it still works.
        script.data(b"still here");
        assert_eq!(read_exactly(&mut stream, 10), b"still here");
        assert!(stream.write(b"x").is_err(), "shut down");
    });
}
