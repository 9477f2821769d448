//! A small web page that says how the connection came about.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Largest head of a request in bytes: the least hyper can be told, and enough for a page without cookies.
const HEAD_BYTES_MAX: usize = 8192;

/// Answers requests for `/` with `page`, others with 404, until the peer closes or `stop` is cancelled.
///
/// A request's head must be complete within `head_limit`, which is also how long a kept-alive connection may wait for
/// its next request. After `stop` the request in work is answered, with `Connection: close`, and none after it.
///
/// # Errors
/// Those of the stream, and requests that are not HTTP.
pub async fn http<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    page: String,
    head_limit: Duration,
    stop: &CancellationToken,
) -> hyper::Result<()> {
    let page = Bytes::from(page);
    let service = service_fn(|request| answer(request, page.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_limit)
        .max_buf_size(HEAD_BYTES_MAX)
        // A peer that closes its direction behind a request still gets the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        biased; // A stop counts from the moment it is given: what is answered from then on says so.
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        done = connection.as_mut() => return done,
    }
    connection.await
}

async fn answer(request: Request<Incoming>, page: Bytes) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let known = request.uri().path() == "/";
    drain(request.into_body()).await?;
    let (status, text) =
        if known { (StatusCode::OK, page) } else { (StatusCode::NOT_FOUND, Bytes::from_static(b"there is only /\n")) };
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

/// Reads a request's body to its end, keeping nothing: the next request stands behind it.
async fn drain(mut body: Incoming) -> hyper::Result<()> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinHandle;

    use super::*;

    const PAGE: &str = "a page\n";

    fn serve(stop: &CancellationToken) -> (DuplexStream, JoinHandle<hyper::Result<()>>) {
        let (client, server) = tokio::io::duplex(1 << 16);
        let stop = stop.clone();
        let head_limit = Duration::from_secs(10);
        (client, tokio::spawn(async move { http(server, PAGE.to_owned(), head_limit, &stop).await }))
    }

    /// Reads until the text ends with `end`.
    async fn read_until(client: &mut DuplexStream, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            text.push(client.read_u8().await.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    async fn rest(client: &mut DuplexStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_page_is_served_and_the_connection_kept() {
        let (mut client, server) = serve(&CancellationToken::new());
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let answer = read_until(&mut client, PAGE).await;
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("content-type: text/plain"),
                "{answer}"
            );
        }
        client.shutdown().await.unwrap();
        assert_eq!(rest(&mut client).await, "");
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_end_whatever_the_method() {
        let (mut client, _server) = serve(&CancellationToken::new());
        let body = "x".repeat(30_000);
        let request = format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        client.write_all(request.as_bytes()).await.unwrap();
        assert!(read_until(&mut client, PAGE).await.starts_with("HTTP/1.1 200"));
        client.write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(read_until(&mut client, "only /\n").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_peer_that_closes_behind_its_request_is_answered() {
        let (mut client, _server) = serve(&CancellationToken::new());
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        assert!(rest(&mut client).await.ends_with(PAGE));
    }

    #[tokio::test]
    async fn stop_ends_an_idle_connection_at_once() {
        let stop = CancellationToken::new();
        let (mut client, server) = serve(&stop);
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_until(&mut client, PAGE).await;
        stop.cancel();
        assert_eq!(rest(&mut client).await, "");
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn stop_lets_the_request_in_work_finish() {
        let stop = CancellationToken::new();
        let (mut client, server) = serve(&stop);
        let request = b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        client.write_all(request).await.unwrap();
        read_until(&mut client, "100 Continue\r\n\r\n").await;
        stop.cancel();
        client.write_all(b"xyz").await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.contains("connection: close") && answer.ends_with(PAGE), "{answer}");
        server.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_is_given_up() {
        let (mut client, server) = serve(&CancellationToken::new());
        client.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        assert!(server.await.unwrap().unwrap_err().is_timeout());
    }
}
