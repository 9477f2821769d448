//! The two halves of a connection.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Connection, ConnectionHandle, Handshake, Inner};
use crate::timeouts::Watch;

pub(super) fn split(connection: Connection) -> (ReadHalf, WriteHalf) {
    let Connection { inner, read, write } = connection;
    let fin = FinWhenDropped { inner: Some(Arc::clone(&inner)) };
    (ReadHalf { inner, watch: read }, WriteHalf { fin, watch: write })
}

/// The half of a [`Connection`] that reads. Dropping it alone sends nothing.
#[derive(Debug)]
pub struct ReadHalf {
    inner: Arc<Inner>,
    watch: Watch,
}

/// The half of a [`Connection`] that writes. Dropping it sends FIN: the client reads to its end.
#[derive(Debug)]
pub struct WriteHalf {
    fin: FinWhenDropped,
    watch: Watch,
}

/// Sends our FIN when dropped, unless it was disarmed by taking `inner` out.
#[derive(Debug)]
struct FinWhenDropped {
    inner: Option<Arc<Inner>>,
}

impl FinWhenDropped {
    fn inner(&self) -> &Inner {
        self.inner.as_ref().expect("taken only when the half is taken apart")
    }
}

impl Drop for FinWhenDropped {
    fn drop(&mut self) {
        if let Some(inner) = &self.inner {
            // Nobody is left to tell of an error.
            let _ = inner.shutdown_write();
        }
    }
}

impl ReadHalf {
    /// The client's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.inner.record().peer
    }

    /// The address the client connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.record().local
    }

    /// How the connection came about.
    pub fn handshake(&self) -> Handshake {
        self.inner.record().handshake
    }

    /// To look at the connection, or end it, from elsewhere.
    pub fn handle(&self) -> ConnectionHandle {
        ConnectionHandle::new(&self.inner)
    }

    /// Joins two halves again.
    ///
    /// # Errors
    ///
    /// Gives both back if they are not of one connection.
    pub fn reunite(self, mut write: WriteHalf) -> Result<Connection, ReuniteError> {
        if !std::ptr::eq(&*self.inner, write.fin.inner()) {
            return Err(ReuniteError(self, write));
        }
        write.fin.inner = None;
        Ok(Connection { inner: self.inner, read: self.watch, write: write.watch })
    }
}

impl WriteHalf {
    /// The client's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.fin.inner().record().peer
    }

    /// The address the client connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.fin.inner().record().local
    }

    /// How the connection came about.
    pub fn handshake(&self) -> Handshake {
        self.fin.inner().record().handshake
    }

    /// Joins two halves again; see [`ReadHalf::reunite`].
    ///
    /// # Errors
    ///
    /// Gives both back if they are not of one connection.
    pub fn reunite(self, read: ReadHalf) -> Result<Connection, ReuniteError> {
        read.reunite(self)
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ReadHalf { inner, watch } = self.get_mut();
        inner.poll_read(watch, cx, buf)
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let WriteHalf { fin, watch } = self.get_mut();
        fin.inner().poll_write(watch, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing to do: the kernel sends what was written.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends FIN after the last byte written.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.fin.inner().shutdown_write())
    }
}

/// Two halves that do not belong together, given back.
#[derive(Debug)]
pub struct ReuniteError(pub ReadHalf, pub WriteHalf);

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves are not of one connection")
    }
}

impl Error for ReuniteError {}
