//! Each way a client can end, and a path that loses what it is told to lose.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use testnet::{Namespace, eventually, isolated, veth};

use super::{ClientSpec, Clients};
use crate::results::ClientResults;

const SERVER: &str = "198.18.0.1:8080";
const PATIENCE: Duration = Duration::from_secs(60);

/// Clients of a server behind a cable; what the server does with each connection is the test's.
struct Path {
    server: Namespace,
    client: Namespace,
}

impl Path {
    fn new() -> Path {
        let (server, client) = (Namespace::new(), Namespace::new());
        veth((&server, "srv0", &["198.18.0.1/24"]), (&client, "cli0", &["198.18.0.2/24"]));
        Path { server, client }
    }

    fn serve(&self, conversation: fn(TcpStream)) {
        let listener = self.server.run(|| TcpListener::bind(SERVER)).unwrap();
        thread::spawn(move || listener.incoming().flatten().for_each(conversation));
    }

    /// So many clients, with this deadline.
    fn send(&self, count: u64, deadline: Duration) -> ClientResults {
        let target: SocketAddr = SERVER.parse().unwrap();
        let spec = ClientSpec { target, rate: 400.0, bytes: 3000, deadline, seed: 7 };
        let clients = Clients::start(spec, self.client.clone(), vec![0], |_| None);
        eventually("all clients came", PATIENCE, || clients.progress().came >= count);
        clients.finish()
    }
}

fn echo(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).and_then(|_| stream.write_all(&bytes));
}

fn only(results: &ClientResults, outcome: &str) {
    let (count, all) = (results.outcomes.get(outcome).copied().unwrap_or(0), results.attempts);
    assert_eq!(count, all, "{:?}", results.outcomes);
}

#[test]
fn what_comes_back_whole_is_ok() {
    isolated!(|| {
        let path = Path::new();
        path.serve(echo);
        let results = path.send(40, PATIENCE);
        only(&results, "ok");
        assert_eq!(results.connect_us.count, results.attempts);
        assert_eq!(results.total_us.count, results.attempts);
        assert!(results.total_us.max >= results.connect_us.p50);
    });
}

#[test]
fn nobody_there_is_a_refusal() {
    isolated!(|| {
        let results = Path::new().send(20, PATIENCE);
        only(&results, "refused");
        assert_eq!(results.connect_us.count, 0);
    });
}

#[test]
fn a_wrong_byte_is_wrong_data() {
    isolated!(|| {
        let path = Path::new();
        path.serve(|mut stream| {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            bytes[1500] ^= 1;
            let _ = stream.write_all(&bytes);
        });
        only(&path.send(20, PATIENCE), "wrong-data");
    });
}

#[test]
fn a_byte_too_few_or_too_many_is_wrong_data() {
    isolated!(|| {
        let path = Path::new();
        path.serve(|mut stream| {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            // Told apart by a byte of the client's own.
            if bytes[0].is_multiple_of(2) {
                bytes.pop();
            } else {
                bytes.push(0);
            }
            let _ = stream.write_all(&bytes);
        });
        only(&path.send(20, PATIENCE), "wrong-data");
    });
}

#[test]
fn silence_is_a_timeout() {
    isolated!(|| {
        let path = Path::new();
        path.serve(|stream| {
            thread::spawn(move || (thread::sleep(PATIENCE), stream));
        });
        let results = path.send(20, Duration::from_millis(300));
        only(&results, "timeout");
        assert_eq!(results.connect_us.count, results.attempts);
    });
}

#[test]
fn a_reset_is_a_reset() {
    isolated!(|| {
        let path = Path::new();
        path.serve(|mut stream| {
            let _ = stream.read(&mut [0]);
            let _ = stream.shutdown(Shutdown::Read);
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        });
        only(&path.send(20, PATIENCE), "reset");
    });
}

#[test]
fn a_path_that_loses_every_tenth_syn_fails_every_tenth_client() {
    isolated!(|| {
        let path = Path::new();
        path.serve(echo);
        path.server.output("nft", "add table ip lossy");
        path.server.output("nft", "add chain ip lossy in { type filter hook input priority 0 ; }");
        path.server.output("nft", "add rule ip lossy in tcp flags & (syn|ack) == syn numgen inc mod 10 == 0 drop");
        // The kernel repeats a SYN after a second, which is too late.
        let results = path.send(100, Duration::from_millis(900));
        let lost = results.outcomes.get("connect-timeout").copied().unwrap_or(0);
        assert_eq!(lost, results.attempts.div_ceil(10), "{:?}", results.outcomes);
        assert_eq!(results.ok() + lost, results.attempts, "{:?}", results.outcomes);
    });
}
