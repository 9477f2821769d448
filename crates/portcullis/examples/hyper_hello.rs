//! A web server on hyper.
//!
//!     cargo run --example hyper_hello -- [ADDR:PORT] [--kernel]
//!
//! Then: `curl http://127.0.0.1:8080/`. Anything that takes an `AsyncRead + AsyncWrite` stream goes on top in the same way:
//! axum, tonic, your own protocol.

mod common;

use std::convert::Infallible;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis::Connection;

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut listener = common::builder_from_args().build().await?;
    while let Some(connection) = listener.accept().await {
        tokio::spawn(serve(connection?));
    }
    Ok(())
}

async fn serve(connection: Connection) {
    let greeting = format!("hello, {}: you came by {:?}\n", connection.peer_addr(), connection.handshake().via);
    let service = service_fn(move |_request: Request<_>| {
        let answer = Response::new(Full::new(Bytes::from(greeting.clone())));
        async { Ok::<_, Infallible>(answer) }
    });
    // A client that connects and says nothing must not stay for ever.
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(connection), service)
        .await;
    // Clients that go away, or send what is no HTTP, are ordinary: a line for each would let them fill the log.
    drop(served);
}
