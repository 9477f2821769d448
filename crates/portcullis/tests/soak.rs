//! Two thousand connections at once that end in every way there is: nothing of them stays behind. On the kernel tier, through the
//! relay, which has two sockets for each.

mod binary;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use binary::{PATIENCE, Server, TempFile, own_addr, portcullis};
use socket2::SockRef;
use testnet::{Metrics, Namespace, eventually, http_get};

const CLIENTS: u64 = 2000;

/// How a client ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Its request, its FIN, the whole answer.
    HalfClose,
    /// FIN first, and nothing said.
    AtOnce,
    /// RST in the middle.
    Abort,
    /// It says something, reads nothing, and goes away.
    Deaf,
    /// Silent until the server's patience is over.
    Stall,
}

impl End {
    fn of(number: u64) -> End {
        // Neighbours differ, and each run is the same.
        match number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 {
            0..=2 => End::HalfClose,
            3 => End::AtOnce,
            4 | 5 => End::Abort,
            6 => End::Deaf,
            _ => End::Stall,
        }
    }

    fn take(self, mut stream: TcpStream, number: u64) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match self {
            End::HalfClose => {
                let request = number.to_le_bytes().repeat(100 + number as usize % 400);
                stream.write_all(&request).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
                assert!(answer == request, "client {number} got something else");
            }
            End::AtOnce => {
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "client {number}");
            }
            End::Abort => {
                stream.write_all(b"half of a reque").unwrap();
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            End::Deaf => stream.write_all(&[7; 30_000]).unwrap(),
            End::Stall => {
                let error = stream.read(&mut [0; 16]).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "client {number}");
            }
        }
    }
}

/// An upstream that sends back what it gets, and closes when its client does.
fn echo_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).listen(4096).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let echo = move || {
                let mut from = stream.try_clone()?;
                let mut to = stream;
                std::io::copy(&mut from, &mut to)
            };
            small_thread(move || drop(echo()));
        }
    });
    addr
}

/// There are as many as clients, and again as many.
fn small_thread(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().stack_size(128 * 1024).spawn(run).unwrap()
}

#[test]
fn nothing_stays_of_two_thousand_connections_that_end_in_every_way() {
    let addr = own_addr(8080);
    let file = TempFile::new(&format!(
        "[[listener]]\nbind = [\"{addr}\"]\nupstream = \"{}\"\ntimeouts = {{ idle_seconds = 10, half_close_seconds = 10 }}\n",
        echo_upstream()
    ));
    let mut command = portcullis(&["--config", file.path()]);
    command.args(["--datapath", "kernel", "--admin", "127.0.0.1:0"]);
    let server = Server::spawn(command, addr);
    drop(server.connect());
    let open = |server: &Server| {
        let (status, text) = http_get(&Namespace::current(), server.admin, "/metrics").unwrap();
        assert_eq!(status, 200);
        let metrics = Metrics::parse(&text);
        let state = |state| metrics.get("portcullis_connections", &[("state", state)]).unwrap_or(0.0);
        let closed = metrics.get("portcullis_connections_closed_total", &[]).unwrap();
        let accepted = metrics.get("portcullis_connections_accepted_total", &[]).unwrap();
        [accepted - closed, state("established"), state("close_wait"), state("fin_wait2"), state("last_ack")]
    };
    eventually("the first is over", PATIENCE, || open(&server) == [0.0; 5]);
    let descriptors = server.process.open_descriptors();

    let all_open = Arc::new(Barrier::new(CLIENTS as usize));
    let client = |number| {
        let all_open = all_open.clone();
        small_thread(move || {
            let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
            all_open.wait();
            End::of(number).take(stream, number);
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());

    eventually("all are over, as the kernel has it too", PATIENCE, || open(&server) == [0.0; 5]);
    // A look at the metrics has a descriptor of its own for a moment.
    eventually("all descriptors are back", PATIENCE, || server.process.open_descriptors() <= descriptors);
    let mut again = server.connect();
    again.write_all(b"x").unwrap();
    again.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    again.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"x", "it still serves");
}
