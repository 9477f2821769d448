//! Connections that are passed on to a TCP server.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use connection::relay;
use portcullis::Connection;
use tokio::net::TcpStream;

use super::sparse::Sparse;
use super::stop::Stop;
use crate::config::Timeouts;

/// The server behind a listener.
pub struct Upstream {
    listener: String,
    addr: SocketAddr,
    timeouts: Timeouts,
    failures: AtomicU64,
    log: Sparse,
}

impl Upstream {
    /// For the listener of this name.
    pub fn new(listener: &str, addr: SocketAddr, timeouts: Timeouts) -> Upstream {
        Upstream { listener: listener.to_owned(), addr, timeouts, failures: AtomicU64::new(0), log: Sparse::new() }
    }

    /// Connects, then copies both ways to the end. A client whose upstream cannot be reached gets RST, so that it does
    /// not take the silence for an answer.
    ///
    /// At the deadline both sides are closed: FIN, or RST where something had not been passed on.
    pub async fn handle(&self, client: Connection, stop: &Stop) {
        let upstream = tokio::select! {
            upstream = self.connect() => upstream,
            () = stop.deadline.cancelled() => return client.abort(),
        };
        let upstream = match upstream {
            Ok(upstream) => upstream,
            Err(error) => {
                self.note_failure(&error);
                return client.abort();
            }
        };
        tokio::select! {
            outcome = relay(client, upstream, self.timeouts.idle, self.timeouts.half_close) => {
                tracing::debug!(listener = self.listener, ?outcome, "relay ended");
            }
            () = stop.deadline.cancelled() => {}
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let connect = TcpStream::connect(self.addr);
        let stream = tokio::time::timeout(self.timeouts.connect, connect)
            .await
            .map_err(|_elapsed| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
        stream.set_nodelay(true)?; // What the client sent in one piece is passed on at once.
        Ok(stream)
    }

    fn note_failure(&self, error: &io::Error) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if self.log.event().is_some() {
            tracing::warn!(
                listener = self.listener,
                upstream = %self.addr,
                %error,
                failures,
                "cannot reach the upstream; its clients are reset"
            );
        }
    }
}
