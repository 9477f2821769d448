//! Floods of real connections, as a kernel's listener sees them.

use std::collections::HashSet;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use testnet::{eventually, isolated};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A flood, the first connections that came of it, and who takes the others.
fn flood(lab: &Lab, kind: FloodKind, count: usize) -> (Flood, Vec<TcpStream>, TcpListener) {
    let listener = lab.server.run(|| TcpListener::bind(lab.target).unwrap());
    let flood = Flood::start(&FloodSpec { rate: Some(200.0), ..spec(kind, lab.target) }, &lab.place).unwrap();
    let streams: Vec<_> = (0..count).map(|_| listener.accept().unwrap().0).collect();
    let owned = |stream: &TcpStream| lab.place.owned.contains(stream.peer_addr().unwrap().ip());
    assert!(streams.iter().all(owned));
    let peers: HashSet<_> = streams.iter().map(|stream| stream.peer_addr().unwrap().ip()).collect();
    assert!(peers.len() > count / 2, "{peers:?}");
    (flood, streams, listener)
}

fn finish(flood: Flood) {
    assert_eq!(flood.engine(), "sockets");
    let report = flood.stop();
    assert!(report.connected >= 1 && report.connected + report.failed <= report.sent, "{report:?}");
    assert!(report.sent <= report.due && report.failed == 0, "{report:?}");
}

#[test]
fn connections_are_closed_at_once() {
    isolated!(|| {
        for family in FAMILIES {
            let (flood, mut streams, _listener) = flood(&Lab::new(family), FloodKind::Connect, 50);
            assert!(streams.iter_mut().all(|stream| stream.read(&mut [0]).unwrap() == 0));
            finish(flood);
        }
    });
}

#[test]
fn silent_ones_stay_and_end_with_the_flood() {
    isolated!(|| {
        let (flood, mut streams, _listener) = flood(&Lab::new(FAMILIES[0]), FloodKind::AckSilent, 50);
        for stream in &mut streams {
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            assert!(stream.read(&mut [0]).is_err());
        }
        finish(flood);
        streams[0].set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(streams[0].read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn those_who_never_read_close_their_window() {
    isolated!(|| {
        for kind in [FloodKind::ZeroWindow, FloodKind::SlowRead] {
            let (flood, streams, _listener) = flood(&Lab::new(FAMILIES[0]), kind, 5);
            let mut stream = &streams[0];
            stream.read_exact(&mut [0; 1000]).unwrap();
            stream.set_nonblocking(true).unwrap();
            let full = || std::io::Write::write(&mut &*stream, &[7; 65_536]).is_err();
            eventually("nothing more goes out", PATIENCE, full);
            finish(flood);
        }
    });
}

#[test]
fn slow_writers_write() {
    isolated!(|| {
        let (flood, streams, _listener) = flood(&Lab::new(FAMILIES[1]), FloodKind::SlowWrite, 5);
        let mut two = [0; 2];
        (&streams[0]).read_exact(&mut two).unwrap();
        assert_eq!(&two, b"GG");
        finish(flood);
    });
}
