//! One client: one request, one answer, and a bound on everything.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http_body_util::Either;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::routes::{self, Site};
use super::stall::Impatient;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From accept to the end of the request's headers.
    pub(super) headers: Duration,
    /// From accept to close, but for a stream.
    pub(super) lifetime: Duration,
    /// For which a stream's client may take nothing of what it is sent; `None`: the client gets no stream.
    pub(super) stall: Option<Duration>,
}

/// The usual limits: ten times what a scraper across the world needs.
pub(super) const ROOMY: Limits =
    Limits { headers: Duration::from_secs(5), lifetime: Duration::from_secs(30), stall: Some(Duration::from_secs(10)) };

/// The limits of a client on the reserved descriptor, for which others wait: it sends its request at once or not at all.
pub(super) const TIGHT: Limits =
    Limits { headers: Duration::from_millis(250), lifetime: Duration::from_secs(5), stall: None };

/// Answers the client's one request, or closes when its time is over. `asked` is set as soon as the request is there.
pub(super) async fn serve(stream: TcpStream, site: Arc<Site>, limits: Limits, asked: Arc<AtomicBool>) {
    // The lifetime is the bound of all but streams, which therefore have this one. A socket without the option works as well.
    let _ = setsockopt(&stream, sockopt::SndBuf, &SEND_BUFFER_BYTES);
    let patience = limits.stall.unwrap_or(limits.lifetime);
    // The buffer would swallow a minute of small events before a write waits. The kernel knows what the client has not taken of it, and
    // ends the connection for that: by RFC 5482, also while the client's window is zero.
    let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &u32::try_from(patience.as_millis()).unwrap_or(u32::MAX));
    let stream = Impatient::new(stream, patience);
    let streams = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Relaxed);
        let (site, streams) = (Arc::clone(&site), &streams);
        async move {
            let answer = routes::respond(&site, &request, limits.stall.is_some()).await;
            streams.store(matches!(answer.body(), Either::Right(_)), Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        // An idle scraper keeps neither a place nor a descriptor: the next scrape is a connection of its own.
        .keep_alive(false)
        // A client may shut its side down behind the request, as `nc -N` does.
        .half_close(true)
        .max_header_size(HEADERS_MAX_BYTES)
        .max_buf_size(HEADERS_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // Whatever goes wrong is the client's doing, and an answer to it has been sent where HTTP has one.
    if timeout(limits.lifetime, &mut connection).await.is_err() && streams.load(Relaxed) {
        let _ = connection.await;
    }
}

/// Request line and headers; the least hyper's buffer can be.
const HEADERS_MAX_BYTES: usize = 8192;

/// What the kernel holds for a client that does not read; it doubles it. Left to itself, it would hold megabytes.
pub(super) const SEND_BUFFER_BYTES: usize = 128 * 1024;
