//! Clients that misbehave, and the server's start and stop.

use super::*;

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
