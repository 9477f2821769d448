//! One client: one request, one answer, and a bound on everything.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::routes;
use crate::exporter::Exporter;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From accept to the end of the request's headers.
    pub(super) headers: Duration,
    /// From accept to close.
    pub(super) lifetime: Duration,
}

/// The usual limits: ten times what a scraper across the world needs.
pub(super) const ROOMY: Limits = Limits { headers: Duration::from_secs(5), lifetime: Duration::from_secs(30) };

/// The limits of a client on the reserved descriptor, for which others wait: it sends its request at once or not at all.
pub(super) const TIGHT: Limits = Limits { headers: Duration::from_millis(250), lifetime: Duration::from_secs(5) };

/// Answers the client's one request, or closes when its time is over.
pub(super) async fn serve(stream: TcpStream, exporter: Arc<Exporter>, limits: Limits) {
    let service = service_fn(|request| {
        let exporter = Arc::clone(&exporter);
        async move { Ok::<_, Infallible>(routes::respond(&exporter, &request).await) }
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
    // Whatever goes wrong is the client's doing, and an answer to it has been sent where HTTP has one.
    let _ = tokio::time::timeout(limits.lifetime, connection).await;
}

/// Request line and headers; the least hyper's buffer can be.
const HEADERS_MAX_BYTES: usize = 8192;
