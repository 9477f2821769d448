//! The services, the relay and the end, on the kernel tier, which needs no rights.

mod binary;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use binary::{PATIENCE, Server, TempFile, own_addr, portcullis};
use testnet::Signal;

/// A request on a kept-alive connection; returns the answer's head and body.
fn request(stream: &mut TcpStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    let body_len = loop {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
        if answer.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8(answer.clone()).unwrap();
            let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            break len.parse().unwrap();
        }
    };
    let mut body = vec![0; body_len];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8([answer, body].concat()).unwrap()
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// The status code of an admin path.
fn admin_status(admin: SocketAddr, path: &str) -> u16 {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let answer = String::from_utf8(rest(&mut stream)).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Sends and receives at once, so that neither side's buffers limit what can be sent.
fn echoed(mut stream: TcpStream, sent: &[u8]) -> Vec<u8> {
    let mut reader = stream.try_clone().unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(move || rest(&mut reader));
        stream.write_all(sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        reading.join().unwrap()
    })
}

#[test]
fn http_says_how_the_connection_came_about() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    let page = request(&mut stream, "/");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    for part in [&stream.local_addr().unwrap().to_string(), &server.addr.to_string(), "kernel", "ESTABLISHED"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(request(&mut stream, "/nowhere").starts_with("HTTP/1.1 404"), "kept alive");
}

#[test]
fn echo_returns_every_byte_and_then_fin() {
    let server = Server::start(&["--service", "echo"]);
    let sent: Vec<u8> = (0..3_000_000).map(|n| (n % 251) as u8).collect();
    assert!(echoed(server.connect(), &sent) == sent);
}

#[test]
fn discard_takes_everything_and_returns_fin() {
    let server = Server::start(&["--service", "discard"]);
    assert_eq!(echoed(server.connect(), &[1; 1_000_000]), b"");
}

#[test]
fn the_relay_passes_bytes_and_half_closes_both_ways() {
    let upstream = TcpListener::bind(own_addr(0)).unwrap();
    let upstream_addr = upstream.local_addr().unwrap().to_string();
    let server = Server::start(&["--upstream", &upstream_addr]);
    let mut client = server.connect();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (mut backend, _) = upstream.accept().unwrap();
    assert_eq!(rest(&mut backend), b"question", "the client's FIN was passed on");
    backend.write_all(b"answer").unwrap();
    drop(backend);
    assert_eq!(rest(&mut client), b"answer");
}

#[test]
fn an_upstream_that_is_not_there_resets_the_client_and_is_logged() {
    let nobody = own_addr(8080).to_string();
    let server = Server::start(&["--upstream", &nobody]);
    // The RST may come so soon that it is `connect` which reports it.
    let error = TcpStream::connect(server.addr).and_then(|mut stream| stream.read(&mut [0])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(server.line("cannot reach the upstream").contains(&nobody));
}

#[test]
fn connections_beyond_the_limit_wait_for_a_place() {
    let addr = own_addr(8080);
    let file = TempFile::new(&format!(
        "datapath = \"kernel\"\nadmin = \"127.0.0.1:0\"\n\
         [[listener]]\nbind = [\"{addr}\"]\nservice = \"echo\"\nconnections_max = 1\n"
    ));
    let server = Server::spawn(portcullis(&["--config", file.path()]), addr);
    let (mut first, mut second) = (server.connect(), server.connect());
    first.write_all(b"1").unwrap();
    first.read_exact(&mut [0]).unwrap();
    second.write_all(b"2").unwrap();
    second.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "it waits");
    drop(first);
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    second.read_exact(&mut [0]).unwrap();
}

#[test]
fn several_addresses_are_guarded_at_once() {
    let other = own_addr(8081);
    let server = Server::start(&["--service", "echo", "--listen", &other.to_string()]);
    for addr in [server.addr, other] {
        assert_eq!(echoed(TcpStream::connect(addr).unwrap(), b"x"), b"x");
    }
}

#[test]
fn a_signal_without_connections_ends_it_at_once_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::start(&[]);
        server.process.signal(signal);
        assert_eq!(server.exit_code(), 0);
        assert!(TcpStream::connect(server.addr).is_err());
    }
}

#[test]
fn a_drain_lets_a_conversation_finish() {
    let mut server = Server::start(&["--service", "echo"]);
    let mut stream = server.connect();
    stream.write_all(b"1").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    assert_eq!(admin_status(server.admin, "/readyz"), 200);
    server.process.signal(Signal::SIGTERM);
    server.line("SIGTERM");
    testnet::eventually("/readyz says 503", PATIENCE, || admin_status(server.admin, "/readyz") == 503);
    testnet::eventually("nobody listens", PATIENCE, || TcpStream::connect(server.addr).is_err());
    assert_eq!(echoed(stream, b"still here"), b"still here");
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_drain_ends_kept_alive_connections_at_once() {
    let mut server = Server::start(&[]);
    let mut stream = server.connect();
    request(&mut stream, "/");
    server.process.signal(Signal::SIGTERM);
    assert_eq!(rest(&mut stream), b"", "FIN, not RST");
    drop(stream);
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn a_drain_half_closes_an_idle_connection_and_hears_what_it_says_yet() {
    let upstream = TcpListener::bind(own_addr(0)).unwrap();
    let addr = own_addr(8080);
    let log = TempFile::new("");
    let config = TempFile::new(&format!(
        "datapath = \"kernel\"\nadmin = \"127.0.0.1:0\"\nshutdown_deadline_seconds = 86400\naccess_log = {{ path = \"{}\" }}\n\
         [[listener]]\nbind = [\"{addr}\"]\nupstream = \"{}\"\ntimeouts = {{ drain_idle_seconds = 1 }}\n",
        log.path(),
        upstream.local_addr().unwrap()
    ));
    let mut server = Server::spawn(portcullis(&["run", "--config", config.path()]), addr);
    let mut client = server.connect();
    let (mut behind, _) = upstream.accept().unwrap();
    server.process.signal(Signal::SIGTERM);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "FIN, and no RST");
    client.write_all(b"my last").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    behind.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "my last");
    assert!(!server.process.has_ended(), "the other direction is open");
    drop(behind);
    assert_eq!(server.exit_code(), 0);
    let line = fs::read_to_string(log.path()).unwrap();
    assert!(line.contains("\"drained\""), "{line}");
}

/// A server whose shutdown deadline passes at once.
fn impatient(service: &str) -> Server {
    let addr = own_addr(8080);
    let file = TempFile::new(&format!(
        "datapath = \"kernel\"\nadmin = \"127.0.0.1:0\"\nshutdown_deadline_seconds = 0\n\
         [[listener]]\nbind = [\"{addr}\"]\nservice = \"{service}\"\n"
    ));
    Server::spawn(portcullis(&["--config", file.path()]), addr)
}

#[test]
fn at_the_deadline_comes_fin_and_then_rst() {
    let mut server = impatient("echo");
    let mut stream = server.connect();
    stream.write_all(b"1").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    server.process.signal(Signal::SIGTERM);
    assert_eq!(rest(&mut stream), b"", "FIN");
    // Not closing ourselves: the grace passes.
    assert_eq!(server.exit_code(), 0);
    // What Linux reports for a RST that comes behind a FIN.
    assert_eq!(stream.take_error().unwrap().map(|error| error.kind()), Some(ErrorKind::BrokenPipe), "RST");
}

#[test]
fn a_second_signal_ends_it_now() {
    let mut server = Server::start(&["--service", "echo"]);
    let mut stream = server.connect();
    stream.write_all(b"1").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    server.process.signal(Signal::SIGTERM);
    server.line("SIGTERM");
    let began = Instant::now();
    server.process.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    assert!(began.elapsed() < Duration::from_secs(15), "the deadline of 30 s was not waited for");
    assert_eq!(stream.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[test]
fn json_log_lines_are_objects() {
    let mut server = Server::start(&["--log-format", "json"]);
    server.process.signal(Signal::SIGTERM);
    let line = server.line("SIGTERM");
    for line in [&server.banner, &line] {
        assert!(line.starts_with('{') && line.ends_with('}') && line.contains("\"level\":\"INFO\""), "{line}");
    }
    assert_eq!(server.exit_code(), 0);
}

#[test]
fn before_the_drain_new_clients_are_served_while_it_is_not_ready() {
    let addr = own_addr(8080);
    let file = TempFile::new(&format!(
        "pre_stop_seconds = 86400\nshutdown_deadline_seconds = 0\n[[listener]]\nbind = [\"{addr}\"]\nservice = \"echo\"\n"
    ));
    let mut command = portcullis(&["--config", file.path()]);
    command.args(["--datapath", "kernel", "--admin", "127.0.0.1:0"]);
    let mut server = Server::spawn(command, addr);
    assert_eq!(admin_status(server.admin, "/readyz"), 200);
    server.process.signal(Signal::SIGTERM);
    server.line("new clients are served for 86400 s yet");
    assert_eq!(admin_status(server.admin, "/readyz"), 503);
    assert_eq!(echoed(server.connect(), b"still here"), b"still here");
    server.process.signal(Signal::SIGTERM);
    server.line("no new connections");
    assert_eq!(server.exit_code(), 0);
}
