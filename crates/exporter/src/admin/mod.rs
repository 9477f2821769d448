//! The admin server: plain HTTP/1.1 for operators and scrapers, bounded in every direction.

mod acceptor;
mod connection;
mod live;
mod page;
mod places;
mod routes;
mod stall;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use self::acceptor::{Acceptor, Admitted};
use self::connection::{Limits, ROOMY, TIGHT};
use self::live::Live;
use self::places::Places;
use self::routes::Site;
use crate::error::ExporterError;
use crate::exporter::Exporter;

/// Serves `/metrics`, `/healthz`, `/readyz`, `/version`, `/config`, `/api/v1/status`, `/api/v1/events` and `/`.
///
/// At most [`CONNECTIONS_MAX`](AdminServer::CONNECTIONS_MAX) connections at a time, one request each. For one more, the oldest that has
/// not asked for anything yet is closed, or, if all have, the newcomer.
/// Headers are at most 8 KiB and have 5 s to arrive; a connection lives 30 s at most. Of streams of events there are at most 8, which have
/// places of their own, and live until their client's host has taken nothing for 10 s. When the process is out of descriptors, a reserved one
/// keeps scrapes coming through one at a time, with 250 ms for the headers, and no stream can have it.
pub struct AdminServer {
    acceptor: Acceptor,
    local_addr: SocketAddr,
    site: Arc<Site>,
    limits: Limits,
}

impl AdminServer {
    /// Connections at a time, each with a descriptor: 32 for requests, of which a scraper needs one for some milliseconds and each costs
    /// at most some 100 KiB, and 8 for streams.
    pub const CONNECTIONS_MAX: usize = REQUESTS_MAX + live::STREAMS_MAX;

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
        let site = Arc::new(Site { exporter, live: Live::new() });
        Ok(AdminServer { acceptor, local_addr, site, limits: ROOMY })
    }

    /// The address in use, with the port the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` is done, then ends streams and gives requests under way one second to finish.
    ///
    /// Dropping the future ends everything at once; no task is left behind.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut places = Places::default();
        let site = Arc::clone(&self.site);
        let mut samples = pin!(site.live.run(&site.exporter));
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                never = &mut samples => match never {},
                () = places.one_ends() => self.acceptor.refill(),
                admitted = self.acceptor.accept() => self.serve(admitted, &mut places).await,
            }
        }
        drop(self.acceptor);
        site.live.end();
        // Past the deadline, dropping the set ends what is left.
        let _ = tokio::time::timeout(FINISH_TIME, places.all_end()).await;
    }

    /// Gives the client a place, if need be that of one who has not asked for anything: it takes no more than that to come in time.
    async fn serve(&mut self, admitted: Admitted, places: &mut Places) {
        // A stream is one of the connections, and takes none of the requests' places.
        if places.len().saturating_sub(self.site.live.streams()) >= REQUESTS_MAX {
            self.site.exporter.count_refused_connection();
            if !places.put_out().await {
                // Dropped, and thereby closed. Every request is gone after `Limits::lifetime` at the latest.
                return;
            }
        }
        let limits = if admitted.on_reserve { TIGHT } else { self.limits };
        let site = Arc::clone(&self.site);
        places.admit(|asked| connection::serve(admitted.stream, site, limits, asked));
    }
}

/// Connections at a time that are no streams.
const REQUESTS_MAX: usize = 32;

/// How long requests under way may take once the server is to stop.
const FINISH_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
