//! The server as its clients find it.

mod clients;
mod routes;
mod streams;

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

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
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
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
