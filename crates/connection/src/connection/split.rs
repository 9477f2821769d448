//! The two halves of a connection.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{Connection, Handshake, Shared, poll_read, wrote};
use crate::stats::CloseReason;

pub(super) fn split(connection: Connection) -> (ReadHalf, WriteHalf) {
    let Connection { stream, shared } = connection;
    let (read, write) = stream.into_split();
    let fin = FinNote { shared: Some(Arc::clone(&shared)) };
    (ReadHalf { inner: read, shared }, WriteHalf { inner: write, fin })
}

/// The half of a [`Connection`] that reads. Dropping it alone sends nothing.
#[derive(Debug)]
pub struct ReadHalf {
    inner: OwnedReadHalf,
    shared: Arc<Shared>,
}

/// The half of a [`Connection`] that writes. Dropping it sends FIN: the client reads to its end.
#[derive(Debug)]
pub struct WriteHalf {
    // Dropped in this order: FIN first, then the note of it.
    inner: OwnedWriteHalf,
    fin: FinNote,
}

/// Notes, when dropped, that our FIN was sent, unless it was disarmed by taking `shared` out.
#[derive(Debug)]
struct FinNote {
    shared: Option<Arc<Shared>>,
}

impl FinNote {
    fn shared(&self) -> &Shared {
        self.shared.as_ref().expect("taken only when the half is taken apart")
    }
}

impl Drop for FinNote {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.account.note(CloseReason::LocalClose);
        }
    }
}

impl ReadHalf {
    /// The client's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.shared.peer
    }

    /// The address the client connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// How the connection came about.
    pub fn handshake(&self) -> Handshake {
        self.shared.handshake
    }

    /// Joins two halves again.
    ///
    /// # Errors
    ///
    /// Gives both back if they are not of one connection.
    pub fn reunite(self, write: WriteHalf) -> Result<Connection, ReuniteError> {
        if !std::ptr::eq(&*self.shared, write.fin.shared()) {
            return Err(ReuniteError(self, write));
        }
        let ReadHalf { inner: read, shared } = self;
        let WriteHalf { inner: write, mut fin } = write;
        fin.shared = None;
        let stream = read.reunite(write).expect("halves with one account are of one stream");
        Ok(Connection { stream, shared })
    }
}

impl WriteHalf {
    /// The client's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.fin.shared().peer
    }

    /// The address the client connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.fin.shared().local
    }

    /// How the connection came about.
    pub fn handshake(&self) -> Handshake {
        self.fin.shared().handshake
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
        let ReadHalf { inner, shared } = self.get_mut();
        poll_read(&shared.account, Pin::new(inner), cx, buf)
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let WriteHalf { inner, fin } = self.get_mut();
        Pin::new(inner).poll_write(cx, buf).map(|outcome| wrote(&fin.shared().account, outcome))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let WriteHalf { inner, fin } = self.get_mut();
        Pin::new(inner).poll_write_vectored(cx, bufs).map(|outcome| wrote(&fin.shared().account, outcome))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    /// Sends FIN after the last byte written.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let WriteHalf { inner, fin } = self.get_mut();
        fin.shared().account.note(CloseReason::LocalClose);
        Pin::new(inner).poll_shutdown(cx)
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
