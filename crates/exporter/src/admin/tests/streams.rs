//! Streams of events.

use super::*;
use crate::admin::live::{self, STREAMS_MAX};

/// As many as there may be.
async fn all_streams(server: &Server) -> Vec<Stream> {
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(server.watch().await);
    }
    streams
}

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
    eventually("the stream is noticed to be gone", async || server.site.live.streams() == 0).await;
    let reads = server.source.reads();
    assert!(reads <= 4, "{reads} samples for one event");
    // That nothing happens, only time can show. One sample may have been under way.
    tokio::time::sleep(3 * live::PERIOD).await;
    assert!(server.source.reads() <= reads + 1, "it goes on for nobody");
    server.watch().await.next().await.expect("and it begins again");
    server.stop().await;
}

#[tokio::test]
async fn one_sample_serves_all_streams() {
    let server = Server::start().await;
    let began = tokio::time::Instant::now();
    let mut streams = all_streams(&server).await;
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
    let mut streams = all_streams(&server).await;
    let refused = server.get("/api/v1/events").await;
    assert_eq!(refused.status(), "503");
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    assert_eq!(server.get("/api/v1/status").await.status(), "200");
    streams.pop();
    // The server notices at the next event that the client has gone.
    eventually("a place has come free", async || Stream::of(server.connect().await).await.next().await.is_some()).await;
    server.stop().await;
}

#[tokio::test]
async fn streams_take_no_places_of_scrapers() {
    let server = Server::start().await;
    let _streams = all_streams(&server).await;
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
    eventually("it has the stream", async || server.site.live.streams() == 1).await;
    eventually("and has it no more", async || server.site.live.streams() == 0).await;
    let bytes = server.source.reads() * server.get("/api/v1/status").await.body.len();
    assert!(bytes < connection::SEND_BUFFER_BYTES / 2, "{bytes} bytes were sent to a client that reads nothing");
    server.stop().await;
}
