//! A process that has run out of descriptors can still be scraped, and does not spin.
//!
//! Alone in its file, and so in its process, whose descriptors it uses up.

mod support;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use exporter::{AdminServer, Exporter, Readiness};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use support::Quiet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const LIMIT: u64 = 128;
const IDLE_CLIENTS: usize = 8;

#[tokio::test]
async fn scrapes_go_on_without_descriptors_and_without_spinning() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT, hard).unwrap();
    let guarded = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let source = Arc::new(Quiet(guarded.local_addr().unwrap()));
    let exporter = Exporter::new("1.2.3", vec![source], Arc::new(Readiness::default())).unwrap();
    let server = AdminServer::bind((Ipv4Addr::LOCALHOST, 0).into(), exporter).await.unwrap();
    let addr = server.local_addr();
    let _server = tokio::spawn(server.run(std::future::pending()));

    // Clients have their descriptors before the rest is taken.
    let mut clients: Vec<TcpSocket> = (0..IDLE_CLIENTS + 5).map(|_| TcpSocket::new_v4().unwrap()).collect();
    let hoard = take_all_descriptors();

    // Clients that were served stay, so that none of their descriptors comes free.
    let mut served = Vec::new();
    for _ in 0..2 {
        served.push(connect(clients.pop().unwrap(), addr).await);
        let scrape = scrape(served.last_mut().unwrap()).await;
        assert!(scrape.starts_with("HTTP/1.1 200 OK\r\n"), "{scrape}");
        // Nothing that a scrape needs was closed: the values are fresh, without a descriptor.
        for collector in ["sock_diag", "netstat", "process"] {
            let success = format!("portcullis_collector_success{{collector=\"{collector}\"}} 1\n");
            assert!(scrape.contains(&success), "{collector}:\n{scrape}");
        }
        assert!(scrape.contains("portcullis_connections{listener=\"quiet\",state=\"listen\"} 1\n"), "{scrape}");
        // Not equal: whoever started this process may have left it descriptors above the limit.
        assert!(open_fds(&scrape) >= LIMIT, "{scrape}");
    }

    // The reserve is for requests, which end: no stream can have it.
    served.push(connect(clients.pop().unwrap(), addr).await);
    let refusal = ask(served.last_mut().unwrap(), "/api/v1/events").await;
    assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");

    // Idle clients queue up before a scraper; each has the reserve for its 250 ms, and a naive loop would spin meanwhile.
    let mut idle = Vec::new();
    for _ in 0..IDLE_CLIENTS {
        idle.push(connect(clients.pop().unwrap(), addr).await);
    }
    served.push(connect(clients.pop().unwrap(), addr).await);
    let before = cpu_time();
    let scrape_behind = scrape(served.last_mut().unwrap()).await;
    let used = cpu_time() - before;
    assert!(scrape_behind.starts_with("HTTP/1.1 200 OK\r\n"), "{scrape_behind}");
    // The wait is about two seconds (eight times 250 ms), nearly all of which is processor time if the loop spins.
    assert!(used < Duration::from_millis(500), "{used:?} of processor time for waiting");

    // With descriptors again, everything is as before.
    drop(hoard);
    let answer = scrape(&mut connect(clients.pop().unwrap(), addr).await).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

fn take_all_descriptors() -> Vec<File> {
    let mut hoard = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => hoard.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EMFILE as i32));
                return hoard;
            }
        }
    }
}

async fn connect(socket: TcpSocket, addr: SocketAddr) -> TcpStream {
    socket.connect(addr).await.unwrap()
}

async fn scrape(client: &mut TcpStream) -> String {
    ask(client, "/metrics").await
}

async fn ask(client: &mut TcpStream, path: &str) -> String {
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(30), client.read_to_string(&mut answer));
    read.await.expect("an answer within 30 s").unwrap();
    answer
}

fn open_fds(scrape: &str) -> u64 {
    let value = scrape.lines().find_map(|line| line.strip_prefix("process_open_fds ")).unwrap();
    value.parse().unwrap()
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(microseconds.try_into().unwrap())
}
