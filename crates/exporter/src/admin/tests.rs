use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::live::STREAMS_MAX;
use super::*;
use crate::readiness::Readiness;
use crate::status::Status;
use crate::testing::{FakeSockets, FakeSource, reporter};

/// A running server, stopped and waited for by [`Server::stop`].
struct Server {
    addr: SocketAddr,
    site: Arc<Site>,
    source: Arc<FakeSource>,
    readiness: Arc<Readiness>,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Server {
        Server::start_with(ROOMY).await
    }

    async fn start_with(limits: Limits) -> Server {
        Server::configured(limits, "datapath = \"raw\"\n".to_owned()).await
    }

    async fn configured(limits: Limits, config: String) -> Server {
        let source = FakeSource::new("web", "raw", "198.18.0.1:80");
        let reporter = reporter(std::slice::from_ref(&source), &FakeSockets::default());
        let readiness = Arc::clone(&reporter.readiness);
        let exporter = Exporter::of(Arc::new(reporter.with_surroundings(Arc::new(Configured(config))))).unwrap();
        let mut server = AdminServer::bind((Ipv4Addr::LOCALHOST, 0).into(), exporter).await.unwrap();
        server.limits = limits;
        let (addr, site) = (server.local_addr(), Arc::clone(&server.site));
        let (shutdown, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Server { addr, site, source, readiness, shutdown, task }
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

    /// What a browser gets.
    async fn browse(&self, path: &str, accept: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")).await
    }

    /// A stream whose first event has come.
    async fn watch(&self) -> Stream {
        let mut stream = Stream::of(self.connect().await).await;
        stream.next().await.expect("a first event");
        stream
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

/// A process with a configuration.
struct Configured(String);

impl crate::Surroundings for Configured {
    fn config(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// A stream of events, as a browser reads it.
struct Stream {
    client: TcpStream,
    /// What was read and not understood yet.
    rest: String,
}

impl Stream {
    async fn of(mut client: TcpStream) -> Stream {
        client.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        Stream { client, rest: String::new() }
    }

    /// The next event's name and data; `None` at the end.
    async fn next(&mut self) -> Option<Status> {
        while !self.rest.contains("}\n\n") {
            let mut bytes = vec![0; 1 << 16];
            match soon(self.client.read(&mut bytes)).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.rest.push_str(std::str::from_utf8(&bytes[..length]).unwrap()),
            }
        }
        let (event, rest) = self.rest.split_once("}\n\n").unwrap();
        let event = &event[event.find("event: ").expect("an event")..];
        let (name, data) = event.split_once('\n').unwrap();
        assert_eq!(name, "event: status");
        let data = data.strip_prefix("data: ").expect("its data on the next line").to_owned() + "}";
        assert!(!data.contains('\n'));
        self.rest = rest.to_owned();
        Some(serde_json::from_str(&data).unwrap())
    }
}

/// Fails the test if the event does not come; generous, because nothing is concluded from the time it takes.
async fn soon<F: Future>(event: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), event).await.expect("it happens within 30 s")
}

/// Waits for what nobody tells.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
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
    let paths = ["/metrics", "/healthz", "/readyz", "/version", "/config", "/api/v1/status", "/api/v1/events"];
    assert!(paths.iter().all(|path| index.body.contains(path)), "{}", index.body);
    let health = server.get("/healthz").await;
    assert_eq!((health.status(), health.body.as_str()), ("200", "ok\n"));
    for path in ["/anything", "/metrics/", "/health", "/healthz/x", "//", "/api/v1", "/api/v1/", "/api/v2/status"] {
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

#[tokio::test]
async fn browsers_get_the_page_and_all_others_the_text() {
    let server = Server::start().await;
    const FIREFOX: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for accept in [FIREFOX, "TEXT/HTML", "image/png, text/html;q=0.1"] {
        let page = server.browse("/", accept).await;
        assert!(page.head.contains("content-type: text/html; charset=utf-8"), "{accept}: {}", page.head);
        assert!(page.head.contains("vary: accept"), "{}", page.head);
        assert!(page.body.starts_with("<!doctype html>"), "{}", page.body);
        let policy = page.head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src ") && !policy.contains("http"), "{policy}");
        assert!(policy.contains("connect-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    }
    for accept in ["*/*", "text/plain", "text/html;q=0", "application/json, text/html; q=0.0"] {
        let text = server.browse("/", accept).await;
        assert!(text.head.contains("content-type: text/plain"), "{accept}: {}", text.head);
    }
    server.stop().await;
}

#[tokio::test]
async fn every_answer_keeps_browsers_from_guessing_keeping_and_sharing() {
    let server = Server::start().await;
    let paths = ["/", "/metrics", "/healthz", "/readyz", "/version", "/config", "/api/v1/status", "/none"];
    for path in paths {
        let answer = server.browse(path, "text/html").await;
        for header in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "content-security-policy: default-src 'none'",
        ] {
            assert!(answer.head.contains(header), "{path}: no {header} in {}", answer.head);
        }
        assert!(!answer.head.contains("access-control-"), "{path}: {}", answer.head);
    }
    server.stop().await;
}

#[tokio::test]
async fn version_says_which_program_it_is() {
    let server = Server::start().await;
    let answer = server.get("/version").await;
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let version: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&version["version"], &version["commit"]), (&"1.2.3".into(), &"unknown".into()));
    assert_eq!(version["datapaths"], serde_json::json!(["raw"]));
    assert_eq!(version["pid"], std::process::id());
    server.stop().await;
}

#[tokio::test]
async fn config_is_the_one_in_force() {
    let server = Server::start().await;
    let answer = server.get("/config").await;
    assert_eq!((answer.status(), answer.body.as_str()), ("200", "datapath = \"raw\"\n"));
    assert!(answer.head.contains("content-type: application/toml"), "{}", answer.head);
    server.stop().await;
}

#[tokio::test]
async fn status_is_one_object_on_one_line() {
    let server = Server::start().await;
    server.source.set(|values| values.half_open = 17);
    let answer = server.get("/api/v1/status").await;
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert_eq!(answer.body.matches('\n').count(), 1);
    let status: Status = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((status.listeners[0].name.as_str(), status.listeners[0].half_open), ("web", 17));
    assert_eq!(status.pid, std::process::id());
    server.stop().await;
}

// What cannot be had.

#[test]
fn a_process_that_can_have_no_more_threads_answers_and_streams() {
    // No address space has room for such a stack, so that this runtime cannot start a thread, whatever it needs it for.
    let threadless = tokio::runtime::Builder::new_current_thread().enable_all().thread_stack_size(1 << 50).build();
    threadless.unwrap().block_on(async {
        let refused = tokio::spawn(async { tokio::task::spawn_blocking(|| ()).await }).await;
        assert!(refused.is_err_and(|error| error.is_panic()), "there are threads after all");
        let server = Server::start().await;
        let mut stream = server.watch().await;
        for path in ["/metrics", "/api/v1/status", "/healthz"] {
            assert_eq!(server.get(path).await.status(), "200", "{path}");
        }
        assert!(stream.next().await.is_some(), "another event");
        server.stop().await;
    });
}

#[tokio::test]
async fn what_panics_is_500_and_the_server_goes_on() {
    let server = Server::start().await;
    server.source.set(|values| values.broken = true);
    for path in ["/metrics", "/api/v1/status"] {
        assert_eq!(server.get(path).await.status(), "500", "{path}");
    }
    assert_eq!(server.get("/healthz").await.status(), "200");
    let mut stream = Stream::of(server.connect().await).await;
    server.source.set(|values| values.broken = false);
    for path in ["/metrics", "/api/v1/status"] {
        assert_eq!(server.get(path).await.status(), "200", "{path}");
    }
    assert!(stream.next().await.is_some(), "an event, though perhaps not the first that was due");
    server.stop().await;
}

// Streams.

#[tokio::test]
async fn events_are_statuses_with_a_clock_that_goes_on() {
    let server = Server::start().await;
    let mut stream = Stream::of(server.connect().await).await;
    let first = stream.next().await.unwrap();
    server.source.set(|values| values.half_open = 17);
    let second = stream.next().await.unwrap();
    assert_eq!((first.listeners[0].half_open, second.listeners[0].half_open), (0, 17));
    assert!(second.clock_seconds - first.clock_seconds > 0.5, "{} {}", first.clock_seconds, second.clock_seconds);
    server.stop().await;
    assert_eq!(stream.next().await, None, "it ends with the server");
}

#[tokio::test]
async fn events_are_announced_as_a_stream_of_events() {
    let server = Server::start().await;
    let answer = server.ask("HEAD /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(answer.status(), "200");
    assert!(answer.head.contains("content-type: text/event-stream"), "{}", answer.head);
    assert_eq!(server.source.reads(), 0, "nobody is going to read");
    server.stop().await;
}

#[tokio::test]
async fn nobody_looks_and_nothing_is_done() {
    let server = Server::start().await;
    tokio::time::sleep(2 * live::PERIOD).await;
    assert_eq!(server.source.reads(), 0);
    drop(server.watch().await);
    // The stream is noticed to be gone at the next event, or at the one behind it.
    let mut idle_since = (server.source.reads(), tokio::time::Instant::now());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while idle_since.1.elapsed() < 3 * live::PERIOD {
        assert!(tokio::time::Instant::now() < deadline, "it goes on for nobody: {} samples", idle_since.0);
        tokio::time::sleep(Duration::from_millis(100)).await;
        if server.source.reads() != idle_since.0 {
            idle_since = (server.source.reads(), tokio::time::Instant::now());
        }
    }
    assert!(idle_since.0 <= 4, "{} samples for one event", idle_since.0);
    server.watch().await.next().await.expect("and it begins again");
    server.stop().await;
}

#[tokio::test]
async fn one_sample_serves_all_streams() {
    let server = Server::start().await;
    let began = tokio::time::Instant::now();
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(server.watch().await);
    }
    for stream in &mut streams {
        stream.next().await.expect("another event");
        stream.next().await.expect("and another");
    }
    let seconds = began.elapsed().as_secs() as usize;
    let reads = server.source.reads();
    assert!(reads <= seconds + 2, "{reads} samples in {seconds} s for {STREAMS_MAX} streams");
    server.stop().await;
}

#[tokio::test]
async fn one_stream_too_many_is_told_to_come_back_and_places_come_free() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(server.watch().await);
    }
    let refused = server.get("/api/v1/events").await;
    assert_eq!(refused.status(), "503");
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    assert_eq!(server.get("/api/v1/status").await.status(), "200");
    streams.pop();
    let mut tries = 0;
    // The server notices at the next event that the client has gone.
    while server.ask("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.status() == "200" {
        let mut stream = Stream::of(server.connect().await).await;
        if stream.next().await.is_some() {
            break;
        }
        tries += 1;
        assert!(tries < 100, "no place has come free");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn streams_take_no_places_of_scrapers() {
    let server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(server.watch().await);
    }
    let mut idle = Vec::new();
    for _ in 0..REQUESTS_MAX - 1 {
        idle.push(server.connect().await);
    }
    assert_eq!(server.get("/metrics").await.status(), "200", "the last place");
    server.stop().await;
}

#[tokio::test]
async fn a_stream_outlives_the_lifetime_of_a_request() {
    let server = Server::start_with(Limits { lifetime: Duration::from_millis(100), ..ROOMY }).await;
    let mut stream = server.watch().await;
    for _ in 0..2 {
        assert!(stream.next().await.is_some());
    }
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_read_misses_samples_and_is_put_out_at_last() {
    let server = Server::start_with(Limits { stall: Some(Duration::from_millis(500)), ..ROOMY }).await;
    // So that an event is larger than what the kernel keeps for a client that does not read.
    let reasons: Vec<(&'static str, u64)> =
        (0..100_000).map(|n| (&*Box::leak(format!("reason_{n}").into_boxed_str()), n)).collect();
    server.source.set(|values| values.connections.closed = reasons);
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.set_recv_buffer_size(4096).unwrap();
    let mut deaf = Stream::of(deaf.connect(server.addr).await.unwrap()).await;
    let mut hearing = server.watch().await;
    for _ in 0..3 {
        hearing.next().await.expect("others are not held up");
    }
    assert_eq!(deaf.next().await, None, "not one whole event has come through");
    server.stop().await;
}

#[tokio::test]
async fn who_takes_no_small_event_is_put_out_before_they_have_filled_a_buffer() {
    let server = Server::start_with(Limits { stall: Some(Duration::from_secs(1)), ..ROOMY }).await;
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    // The least there is, so that what its kernel takes for it is over with the first event.
    deaf.set_recv_buffer_size(1).unwrap();
    let _deaf = Stream::of(deaf.connect(server.addr).await.unwrap()).await;
    eventually("it has the stream", || server.site.live.streams() == 1).await;
    eventually("and has it no more", || server.site.live.streams() == 0).await;
    let bytes = server.source.reads() * server.get("/api/v1/status").await.body.len();
    assert!(bytes < connection::SEND_BUFFER_BYTES / 2, "{bytes} bytes were sent to a client that reads nothing");
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
    let roomy_headers = Limits { headers: Duration::from_secs(3600), lifetime: Duration::from_millis(100), ..ROOMY };
    let server = Server::start_with(roomy_headers).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    assert!(is_closed_without_answer(&mut client).await);
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_takes_the_place_of_the_oldest_that_has_not_asked() {
    const REFUSED: &str = "\nportcullis_admin_connections_refused_total 2\n";
    let server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..REQUESTS_MAX {
        idle.push(server.connect().await);
    }
    // Accepted in order, so by now every place is taken, for five seconds.
    assert_eq!(server.get("/healthz").await.status(), "200");
    assert!(is_closed_without_answer(&mut idle[0]).await);
    let _newcomer = server.connect().await;
    let scrape = server.get("/metrics").await;
    assert!(scrape.body.contains(REFUSED), "{}", scrape.body);
    assert!(is_closed_without_answer(&mut idle[1]).await);
    for client in &mut idle[2..] {
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(Answer::read(client).await.status(), "200", "the others are served");
    }
    server.stop().await;
}

#[tokio::test]
async fn who_has_asked_keeps_the_place_and_one_connection_too_many_is_closed() {
    let server = Server::configured(ROOMY, "#".repeat(1 << 20) + " the end\n").await;
    let mut busy = Vec::new();
    for _ in 0..REQUESTS_MAX {
        let client = tokio::net::TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        let mut client = client.connect(server.addr).await.unwrap();
        client.write_all(b"GET /config HTTP/1.0\r\n\r\n").await.unwrap();
        // An answer has begun that does not fit into what the kernel keeps.
        soon(client.read_exact(&mut [0])).await.unwrap();
        busy.push(client);
    }
    let mut refused = server.connect().await;
    assert!(is_closed_without_answer(&mut refused).await);
    let answer = Answer::read(&mut busy[0]).await;
    assert!(answer.body.ends_with("# the end\n"), "the whole of it, {} bytes", answer.body.len());
    assert_eq!(server.get("/healthz").await.status(), "200", "in that one's place");
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
    let exporter = Exporter::of(Arc::new(reporter(&[], &FakeSockets::default()))).unwrap();
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
