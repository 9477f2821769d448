//! The admin server: plain HTTP/1.1 for operators and scrapers, bounded in every direction.

mod acceptor;
mod connection;
mod routes;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::acceptor::{Acceptor, Admitted};
use self::connection::{Limits, ROOMY, TIGHT};
use crate::error::ExporterError;
use crate::exporter::Exporter;

/// Serves `/metrics`, `/healthz`, `/readyz` and `/`.
///
/// At most 32 connections at a time, one request each; one more is closed at once. Headers are at most 8 KiB and have 5 s to
/// arrive; a connection lives 30 s at most. When the process is out of descriptors, a reserved one keeps scrapes coming
/// through one at a time, with 250 ms for the headers.
pub struct AdminServer {
    acceptor: Acceptor,
    local_addr: SocketAddr,
    exporter: Arc<Exporter>,
    limits: Limits,
}

impl AdminServer {
    /// Listens on `addr`; port 0 lets the kernel choose one. Nothing is answered before [`run`](AdminServer::run).
    ///
    /// # Errors
    ///
    /// [`ExporterError::Bind`] if the address is taken or not ours.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn bind(addr: SocketAddr, exporter: Exporter) -> Result<AdminServer, ExporterError> {
        let failed = |source| ExporterError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        AdminServer::on(listener, exporter).map_err(failed)
    }

    /// Goes on with the socket of a predecessor, in another process, which was to listen on `addr`; and with the clients that wait there.
    ///
    /// # Errors
    ///
    /// [`ExporterError::Bind`] if that is no listening socket.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn inherit(left: OwnedFd, addr: SocketAddr, exporter: Exporter) -> Result<AdminServer, ExporterError> {
        let failed = |source| ExporterError::Bind { addr, source };
        let listener = std::net::TcpListener::from(left);
        listener.set_nonblocking(true).map_err(failed)?;
        TcpListener::from_std(listener).and_then(|listener| AdminServer::on(listener, exporter)).map_err(failed)
    }

    /// The socket, for a successor to [`inherit`](AdminServer::inherit).
    ///
    /// # Errors
    ///
    /// Of dup(2).
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.acceptor.share()
    }

    fn on(listener: TcpListener, exporter: Exporter) -> io::Result<AdminServer> {
        let local_addr = listener.local_addr()?;
        let acceptor = Acceptor::new(listener);
        Ok(AdminServer { acceptor, local_addr, exporter: Arc::new(exporter), limits: ROOMY })
    }

    /// The address in use, with the port the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is done, then gives requests under way one second to finish.
    ///
    /// Dropping the future ends everything at once; no task is left behind.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => self.acceptor.refill(),
                admitted = self.acceptor.accept() => self.serve(admitted, &mut connections),
            }
        }
        drop(self.acceptor);
        // Past the deadline, dropping the set ends what is left.
        let _ = tokio::time::timeout(FINISH_TIME, finish(&mut connections)).await;
    }

    fn serve(&mut self, admitted: Admitted, connections: &mut JoinSet<()>) {
        while connections.try_join_next().is_some() {}
        if connections.len() < CONNECTIONS_MAX {
            let limits = if admitted.on_reserve { TIGHT } else { self.limits };
            connections.spawn(connection::serve(admitted.stream, Arc::clone(&self.exporter), limits));
        }
        // One too many is dropped, and thereby closed. Every other client is gone after `Limits::lifetime` at the latest.
    }
}

async fn finish(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// Connections at a time. A scraper needs one for some milliseconds; each costs a descriptor and at most some 100 KiB.
const CONNECTIONS_MAX: usize = 32;

/// How long requests under way may take once the server is to stop.
const FINISH_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
