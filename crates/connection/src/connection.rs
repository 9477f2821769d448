//! A connection as its application holds it.

mod split;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use listener::{Negotiated, TcpState, Via};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::accept_queue::{Arrival, reset_when_dropped};
use crate::account::Account;
use crate::stats::{CloseReason, ConnectionStats};
use crate::sys;

pub use split::{ReadHalf, ReuniteError, WriteHalf};

/// An accepted TCP connection: a kernel socket in tokio's hands.
///
/// Reads and writes as any [`AsyncRead`] and [`AsyncWrite`] does. Dropping it closes both directions: what was written is still
/// delivered, but if something the client sent has not been read, the kernel sends RST (RFC 1122 §4.2.2.13).
/// `TCP_NODELAY` is on, whichever way the connection came: a small write leaves at once.
///
/// ```no_run
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// async fn echo_once(mut connection: connection::Connection) -> std::io::Result<()> {
///     let mut question = Vec::new();
///     connection.read_to_end(&mut question).await?; // Until the client's FIN.
///     connection.write_all(&question).await?;
///     connection.shutdown_write().await
/// }
/// ```
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    shared: Arc<Shared>,
}

/// What a connection knows besides its socket; its two halves share it.
#[derive(Debug)]
struct Shared {
    local: SocketAddr,
    peer: SocketAddr,
    handshake: Handshake,
    account: Account,
}

/// How a connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Who recognised its last segment.
    pub via: Via,
    /// The options in force; `None` where the kernel did the handshake.
    pub options: Option<Negotiated>,
    /// From the SYN to the last segment; `None` where nobody measured it.
    pub duration: Option<Duration>,
}

impl Connection {
    /// Registers a connection with the runtime. If that fails, the connection is reset.
    pub(crate) fn from_arrival(arrival: Arrival, stats: &Arc<ConnectionStats>) -> io::Result<Connection> {
        let Arrival { stream, local, peer, handshake } = arrival;
        // The stream does not come back with the error, so its end is arranged before, and taken back after.
        let socket = SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO))?;
        let stream = TcpStream::from_std(stream)?;
        SockRef::from(&stream).set_linger(None)?;
        Ok(Connection::new(stream, local, peer, handshake, stats))
    }

    pub(crate) fn new(
        stream: TcpStream,
        local: SocketAddr,
        peer: SocketAddr,
        handshake: Handshake,
        stats: &Arc<ConnectionStats>,
    ) -> Connection {
        let account = Account::open(Arc::clone(stats));
        Connection { stream, shared: Arc::new(Shared { local, peer, handshake, account }) }
    }

    /// The client's address. While SYN cookies are in use it proves little about who the client is.
    pub fn peer_addr(&self) -> SocketAddr {
        self.shared.peer
    }

    /// The address the client connected to: under a wildcard listener, the one it chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// How the connection came about.
    pub fn handshake(&self) -> Handshake {
        self.shared.handshake
    }

    /// The state the kernel has the connection in, at this moment.
    ///
    /// # Errors
    ///
    /// That of getsockopt(2), which an open socket does not cause.
    pub fn state(&self) -> io::Result<TcpState> {
        sys::tcp_state(&self.stream)
    }

    /// Half-close: sends FIN after the last byte written. The client reads to its end; we can go on reading what it sends.
    ///
    /// # Errors
    ///
    /// That of shutdown(2). That the connection is gone already is not an error here; reading tells.
    pub async fn shutdown_write(&mut self) -> io::Result<()> {
        self.shutdown().await
    }

    /// Ends the connection with RST: the client gets an error, what is unsent is thrown away, and no TIME-WAIT stays behind.
    pub fn abort(self) {
        reset_when_dropped(&SockRef::from(&self.stream));
        self.account().note(CloseReason::Aborted);
    }

    /// Splits into a half that reads and one that writes, each to be moved where it is needed. The connection ends
    /// when both are dropped; dropping the one that writes sends FIN.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        split::split(self)
    }

    /// The bare tokio stream. From here on nothing is counted: for the counters, the connection ends as `handed_over`.
    pub fn into_tcp_stream(self) -> TcpStream {
        self.account().note(CloseReason::HandedOver);
        self.stream
    }

    /// The socket, for the relay, which reads and writes through a shared reference and sees to the account itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn account(&self) -> &Account {
        &self.shared.account
    }
}

impl AsFd for Connection {
    /// For socket options and `sendfile`; what passes by the descriptor is not counted.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Connection { stream, shared } = self.get_mut();
        poll_read(&shared.account, Pin::new(stream), cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Connection { stream, shared } = self.get_mut();
        Pin::new(stream).poll_write(cx, buf).map(|outcome| wrote(&shared.account, outcome))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Connection { stream, shared } = self.get_mut();
        Pin::new(stream).poll_write_vectored(cx, bufs).map(|outcome| wrote(&shared.account, outcome))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Nothing to do: the kernel sends what was written.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// [`shutdown_write`](Connection::shutdown_write).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Connection { stream, shared } = self.get_mut();
        shared.account.note(CloseReason::LocalClose);
        Pin::new(stream).poll_shutdown(cx)
    }
}

/// Reads and keeps the account.
fn poll_read(
    account: &Account,
    stream: Pin<&mut impl AsyncRead>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    if buf.remaining() == 0 {
        return Poll::Ready(Ok(())); // Reading nothing would look like the client's FIN.
    }
    let before = buf.filled().len();
    let outcome = ready!(stream.poll_read(cx, buf)).map(|()| buf.filled().len() - before);
    account.read(&outcome);
    Poll::Ready(outcome.map(|_| ()))
}

fn wrote(account: &Account, outcome: io::Result<usize>) -> io::Result<usize> {
    account.wrote(&outcome);
    outcome
}
