//! Upstreams of the running program, on the kernel tier, which needs no rights.

mod binary;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;

use binary::{PATIENCE, Server, TempFile, own_addr, portcullis};
use testnet::{Metrics, Namespace, Signal, http_get};

/// A server with these lines in its listener's table.
fn server(lines: &str) -> Server {
    server_with("", lines)
}

/// The same, with lines that are of no listener's.
fn server_with(common: &str, lines: &str) -> Server {
    let addr = own_addr(8080);
    let file = TempFile::new(&format!("{common}\n[[listener]]\nbind = [\"{addr}\"]\n{lines}\n"));
    let mut command = portcullis(&["--config", file.path()]);
    command.args(["--datapath", "kernel", "--admin", "127.0.0.1:0"]);
    Server::spawn(command, addr)
}

/// An upstream that says its name and what it received up to the FIN, to each who comes.
fn upstream(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| say(name, stream)));
    addr
}

fn say(name: &str, mut stream: impl Read + Write) {
    let mut received = Vec::new();
    // A check of the upstream's health brings nothing, and waits for nothing.
    if stream.read_to_end(&mut received).is_ok() && !received.is_empty() {
        let _ = stream.write_all(&[name.as_bytes(), b":", &received].concat());
    }
}

/// What comes back for these bytes.
fn ask(server: &Server, sent: &[u8]) -> String {
    try_ask(server, sent).unwrap()
}

fn try_ask(server: &Server, sent: &[u8]) -> io::Result<String> {
    let mut stream = server.connect();
    stream.write_all(sent)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn each_upstream_gets_its_turn() {
    let server = server(&format!("upstreams = [\"{}\", \"{}\"]", upstream("a"), upstream("b")));
    let mut answers: Vec<String> = (0..6).map(|_| ask(&server, b"x")).collect();
    answers.sort();
    assert_eq!(answers, ["a:x", "a:x", "a:x", "b:x", "b:x", "b:x"]);
}

#[test]
fn a_client_of_a_dead_upstream_gets_another() {
    let server = server(&format!("upstreams = [\"{}\", \"{}\"]", nobody(), upstream("b")));
    for _ in 0..6 {
        assert_eq!(ask(&server, b"x"), "b:x");
    }
}

#[test]
fn a_check_takes_a_dead_upstream_out() {
    let lines = format!(
        "upstreams = [\"{}\", \"{}\"]\nbalance = {{ tries = 1, check_seconds = 1, check_fall = 1 }}",
        nobody(),
        upstream("b")
    );
    let server = server(&lines);
    // With one try each, every other client would be reset.
    let served = || try_ask(&server, b"x").is_ok_and(|answer| answer == "b:x");
    testnet::eventually("only the living one is used", PATIENCE, || (0..4).all(|_| served()));
}

#[test]
fn a_unix_socket_is_an_upstream_with_half_close() {
    let path = std::env::temp_dir().join(format!("portcullis-{}-upstream.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| say("unix", stream)));
    let server = server(&format!("upstreams = [\"unix:{}\"]", path.display()));
    assert_eq!(ask(&server, b"hello"), "unix:hello");
    fs::remove_file(&path).unwrap();
}

#[test]
fn the_upstream_is_told_who_the_client_is() {
    for (version, begin) in [("v1", "PROXY TCP4 "), ("v2", "\r\n\r\n\0\r\nQUIT\n")] {
        let lines = format!("upstreams = [\"{}\"]\nproxy_protocol = {{ send = \"{version}\" }}", upstream("a"));
        let server = server(&lines);
        let answer = ask(&server, b"hello");
        let header = answer.strip_prefix("a:").and_then(|rest| rest.strip_suffix("hello")).unwrap_or_default();
        assert!(header.starts_with(begin), "{answer:?}");
        if version == "v1" {
            assert!(header.ends_with(&format!(" {}\r\n", server.addr.port())), "{answer:?}");
        }
    }
}

#[test]
fn a_header_from_a_trusted_proxy_is_believed_and_passed_on() {
    let lines = format!(
        "upstreams = [\"{}\"]\nproxy_protocol = {{ send = \"v1\", accept_from = [\"127.0.0.0/8\"] }}",
        upstream("a")
    );
    let server = server(&lines);
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 49152 80\r\n";
    assert_eq!(ask(&server, format!("{header}hello").as_bytes()), format!("a:{header}hello"));
}

#[test]
fn a_trusted_proxy_without_a_header_is_reset_and_others_are_not_asked() {
    let server_of =
        |from: &str| server(&format!("service = \"echo\"\nproxy_protocol = {{ accept_from = [\"{from}\"] }}"));
    let wrong = server_of("127.0.0.0/8");
    let mut stream = TcpStream::connect_timeout(&wrong.addr, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let error = stream.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let other = server_of("192.0.2.0/24");
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 49152 80\r\n";
    assert_eq!(ask(&other, header.as_bytes()), header, "it is data");
}

/// A server that ends its connections at once when it is asked to end, and says of each how.
fn impatient(lines: &str) -> Server {
    server_with("shutdown_deadline_seconds = 0\naccess_log.path = \"stderr\"", lines)
}

/// Connections that were taken up.
fn accepted(server: &Server) -> f64 {
    let (status, text) = http_get(&Namespace::current(), server.admin, "/metrics").unwrap();
    assert_eq!(status, 200);
    Metrics::parse(&text).get("portcullis_connections_accepted_total", &[("listener", "default")]).unwrap()
}

/// Ends a server of which nobody has to be asked twice, and returns the line of its only connection.
fn end(mut server: Server) -> String {
    server.process.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), 0);
    server.line("close_reason")
}

#[test]
fn a_header_that_does_not_come_does_not_hold_up_the_end() {
    let lines =
        "service = \"echo\"\nproxy_protocol = { accept_from = [\"127.0.0.0/8\"] }\ntimeouts.header_seconds = 86400";
    let server = impatient(lines);
    let mut silent = server.connect();
    testnet::eventually("it is waited for", PATIENCE, || accepted(&server) == 1.0);
    let line = end(server);
    assert!(line.contains("\"close_reason\":\"drained\""), "{line}");
    assert_eq!(silent.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn what_is_relayed_at_the_deadline_is_drained() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = impatient(&format!("upstreams = [\"{}\"]", upstream.local_addr().unwrap()));
    let mut client = server.connect();
    client.write_all(b"x").unwrap();
    let mut backend = upstream.accept().unwrap().0;
    backend.read_exact(&mut [0]).unwrap();
    let line = end(server);
    assert!(line.contains("\"close_reason\":\"drained\""), "{line}");
}
