use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::readiness::Readiness;
use crate::testing::{FakeSockets, FakeSource, exporter};

/// A running server, stopped and waited for by [`Server::stop`].
struct Server {
    addr: SocketAddr,
    readiness: Arc<Readiness>,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Server {
        Server::start_with(ROOMY).await
    }

    async fn start_with(limits: Limits) -> Server {
        let web = FakeSource::new("web", "raw", "198.18.0.1:80");
        let (exporter, readiness) = exporter(&[web], &FakeSockets::default());
        let mut server = AdminServer::bind((Ipv4Addr::LOCALHOST, 0).into(), exporter).await.unwrap();
        server.limits = limits;
        let addr = server.local_addr();
        let (shutdown, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Server { addr, readiness, shutdown, task }
    }

    async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.addr)).await.unwrap()
    }

    /// Sends a request and reads until the server closes.
    async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut client).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    async fn stop(self) {
        self.shutdown.send(()).unwrap();
        soon(self.task).await.unwrap();
    }
}

struct Answer {
    head: String,
    body: String,
}

impl Answer {
    async fn read(client: &mut TcpStream) -> Answer {
        let mut bytes = Vec::new();
        soon(client.read_to_end(&mut bytes)).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        Answer { head: head.to_lowercase(), body: body.to_owned() }
    }

    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or("none")
    }
}

/// Fails the test if the event does not come; generous, because nothing is concluded from the time it takes.
async fn soon<F: Future>(event: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), event).await.expect("it happens within 30 s")
}

/// Whether the server has closed this connection without a word.
async fn is_closed_without_answer(client: &mut TcpStream) -> bool {
    let mut bytes = Vec::new();
    match soon(client.read_to_end(&mut bytes)).await {
        Ok(_) => bytes.is_empty(),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

// Routes.

#[tokio::test]
async fn metrics_are_served_as_text_0_0_4() {
    let server = Server::start().await;
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status(), "200");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", answer.head);
    assert!(answer.head.contains(&format!("content-length: {}", answer.body.len())), "{}", answer.head);
    assert!(answer.body.contains("portcullis_syns_received_total{listener=\"web\"} 0\n"), "{}", answer.body);
    assert_eq!(server.get("/metrics?collect=all").await.status(), "200", "a query changes nothing");
    server.stop().await;
}

#[tokio::test]
async fn index_and_health_are_served_and_nothing_else() {
    let server = Server::start().await;
    let index = server.get("/").await;
    assert_eq!(index.status(), "200");
    assert!(["/metrics", "/healthz", "/readyz"].iter().all(|path| index.body.contains(path)), "{}", index.body);
    let health = server.get("/healthz").await;
    assert_eq!((health.status(), health.body.as_str()), ("200", "ok\n"));
    for path in ["/anything", "/metrics/", "/health", "/healthz/x", "//"] {
        assert_eq!(server.get(path).await.status(), "404", "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn readiness_is_503_with_the_reason_until_ready_and_while_draining() {
    let server = Server::start().await;
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status(), answer.body.as_str()), ("503", "not ready: the listeners are not up\n"));
    server.readiness.set_ready(true);
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status(), answer.body.as_str()), ("200", "ready\n"));
    server.readiness.set_draining(true);
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status(), answer.body.as_str()), ("503", "not ready: draining\n"));
    assert_eq!(server.get("/healthz").await.status(), "200", "alive all the time");
    server.stop().await;
}

#[tokio::test]
async fn only_get_and_head_are_allowed() {
    let server = Server::start().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let answer = server.ask(&format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(answer.status(), "405", "{method}");
        assert!(answer.head.contains("allow: get, head"), "{}", answer.head);
    }
    server.stop().await;
}

#[tokio::test]
async fn head_has_the_length_and_no_content() {
    let server = Server::start().await;
    let answer = server.ask("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(answer.status(), "200");
    assert!(answer.head.contains("content-length: 3"), "{}", answer.head);
    assert_eq!(answer.body, "");
    server.stop().await;
}

#[tokio::test]
async fn http_1_0_and_a_client_that_closes_its_side_are_answered() {
    let server = Server::start().await;
    assert_eq!(server.ask("GET /healthz HTTP/1.0\r\n\r\n").await.status(), "200");
    let mut client = server.connect().await;
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(Answer::read(&mut client).await.status(), "200");
    server.stop().await;
}

// Clients that misbehave.

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody() {
    let server = Server::start().await;
    for garbage in ["\x16\x03\x01\x02\x00\x01\n\n\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0\r\n\r\n"]
    {
        let answer = server.ask(garbage).await;
        assert!(["400", "none"].contains(&answer.status()), "{garbage:?}: {}", answer.head);
    }
    let mut gone = server.connect().await;
    gone.write_all(b"GET /met").await.unwrap();
    drop(gone);
    assert_eq!(server.get("/healthz").await.status(), "200");
    server.stop().await;
}

#[tokio::test]
async fn headers_beyond_the_bound_are_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let line = format!("X-Filler: {}\r\n", "y".repeat(1000));
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    // The server may close while more is on its way, so neither writing nor reading to the end must succeed.
    for _ in 0..20 {
        let _ = client.write_all(line.as_bytes()).await;
    }
    let mut head = vec![0; 64];
    match soon(client.read(&mut head)).await {
        Ok(length) => {
            let head = String::from_utf8_lossy(&head[..length]);
            assert!(head.is_empty() || head.starts_with("HTTP/1.1 431 "), "{head}");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    server.stop().await;
}

#[tokio::test]
async fn headers_that_do_not_come_end_the_connection() {
    let server = Server::start_with(Limits { headers: Duration::from_millis(50), ..ROOMY }).await;
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
    for client in [&mut silent, &mut slow] {
        // Without the limit, this would wait for the 30 s of the lifetime and fail.
        assert_ne!(Answer::read(client).await.status(), "200");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_connection_ends_with_its_lifetime_whatever_it_does() {
    let roomy_headers = Limits { headers: Duration::from_secs(3600), lifetime: Duration::from_millis(100) };
    let server = Server::start_with(roomy_headers).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    assert!(is_closed_without_answer(&mut client).await);
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once_and_places_come_free() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        idle.push(server.connect().await);
    }
    // Accepted in order, so by now every place is taken, for five seconds.
    let mut refused = server.connect().await;
    assert!(is_closed_without_answer(&mut refused).await);
    for client in &mut idle[1..] {
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(Answer::read(client).await.status(), "200", "those inside are served");
    }
    assert_eq!(server.get("/healthz").await.status(), "200");
    server.stop().await;
}

#[tokio::test]
async fn one_request_per_connection() {
    let server = Server::start().await;
    let twice = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    let mut client = server.connect().await;
    client.write_all(twice.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // Closing with a request unread resets the connection, before or after the answer is read.
    let _ = soon(client.read_to_end(&mut bytes)).await;
    assert_eq!(String::from_utf8(bytes).unwrap().matches("HTTP/1.1 200").count(), 1);
    let answer = server.get("/healthz").await;
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
    server.stop().await;
}

// Start and stop.

#[tokio::test]
async fn a_taken_address_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let (exporter, _) = exporter(&[], &FakeSockets::default());
    let error = AdminServer::bind(addr, exporter).await.err().unwrap();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

#[tokio::test]
async fn stopping_closes_idle_clients_and_the_port() {
    let server = Server::start().await;
    let addr = server.addr;
    let mut idle = server.connect().await;
    // An answered request proves that the idle client, which came before, has been accepted.
    assert_eq!(server.get("/healthz").await.status(), "200");
    server.stop().await;
    assert!(is_closed_without_answer(&mut idle).await);
    let refused = soon(TcpStream::connect(addr)).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}
