//! The library's listener on the kernel tier.

mod binary;

use std::io;
use std::net::SocketAddr;

use portcullis::{BuildError, Builder, Connection, Datapath, Listener, Via};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use binary::{PATIENCE, own_addr};

fn kernel() -> Builder {
    Listener::builder().datapath(Datapath::Kernel)
}

async fn accept(listener: &mut Listener) -> Option<Connection> {
    timeout(PATIENCE, listener.accept()).await.expect("in time").map(|accepted| accepted.unwrap())
}

#[tokio::test]
async fn connections_of_every_address_arrive() {
    let mut listener = kernel().bind(own_addr(0)).bind(own_addr(0)).build().await.unwrap();
    let addrs: Vec<SocketAddr> = listener.local_addrs().to_vec();
    assert_eq!(addrs.len(), 2);
    for addr in addrs {
        let mut client = TcpStream::connect(addr).await.unwrap();
        let mut connection = accept(&mut listener).await.unwrap();
        assert_eq!(connection.local_addr(), addr);
        assert_eq!(connection.peer_addr(), client.local_addr().unwrap());
        assert_eq!(connection.handshake().via, Via::Kernel);
        connection.write_all(b"hello").await.unwrap();
        drop(connection);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }
}

#[tokio::test]
async fn a_drained_listener_gives_what_it_has_and_then_none() {
    let mut listener = kernel().bind(own_addr(0)).build().await.unwrap();
    let addr = listener.local_addrs()[0];
    let _client = TcpStream::connect(addr).await.unwrap();
    listener.drain();
    assert!(accept(&mut listener).await.is_some());
    assert!(accept(&mut listener).await.is_none());
    assert!(accept(&mut listener).await.is_none(), "and stays so");
    assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_control_drains_while_accept_waits() {
    let mut listener = kernel().bind(own_addr(0)).build().await.unwrap();
    let control = listener.control();
    let waiting = tokio::spawn(async move { accept(&mut listener).await.is_none() });
    tokio::task::yield_now().await; // One thread: now it waits.
    control.drain();
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn a_closed_listener_gives_its_port_back() {
    let listener = kernel().bind(own_addr(0)).build().await.unwrap();
    let addr = listener.local_addrs()[0];
    assert!(matches!(kernel().bind(addr).build().await, Err(BuildError::Kernel { addr: named, .. }) if named == addr));
    listener.close().await;
    kernel().bind(addr).build().await.unwrap();
}

#[tokio::test]
async fn mistakes_are_told_before_anything_starts() {
    assert!(matches!(kernel().build().await, Err(BuildError::NoAddress)));
    assert!(matches!(kernel().bind("nonsense").build().await, Err(BuildError::Address(_))));
    let overlap = kernel().bind("0.0.0.0:9").bind("127.0.0.1:9").build().await;
    assert!(matches!(overlap, Err(BuildError::Overlap(..))));
}

#[tokio::test]
async fn the_source_counts_connections() {
    let mut listener = kernel().bind(own_addr(0)).build().await.unwrap();
    let source = listener.source("web");
    assert_eq!((source.name(), source.tier()), ("web", "kernel"));
    assert_eq!(source.endpoints(), listener.local_addrs());
    let _client = TcpStream::connect(listener.local_addrs()[0]).await.unwrap();
    let mut connection = accept(&mut listener).await.unwrap();
    connection.write_all(b"four").await.unwrap();
    connection.abort();
    let counts = source.connections();
    assert_eq!((counts.accepted, counts.sent_bytes), (1, 4));
    assert!(counts.closed.contains(&("aborted", 1)), "{counts:?}");
}
