//! A connection as its application holds it.

mod handle;
mod inner;
mod refuse;
mod split;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use listener::{Negotiated, TcpState, Via};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::accept_queue::{Arrival, reset_when_dropped};
use crate::account::Account;
use crate::limits::Ticket;
use crate::record::Record;
use crate::stats::{CloseReason, ConnectionStats};
use crate::sys;
use crate::timeouts::{Direction, Timeouts, Watch};

pub use handle::ConnectionHandle;
use inner::Inner;
pub use refuse::Refuse;
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
    inner: Arc<Inner>,
    read: Watch,
    write: Watch,
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
        let account = Account::open(Arc::clone(stats), Record::new(local, peer, handshake));
        let inner = Arc::new(Inner::new(stream, account));
        Connection {
            inner,
            read: Watch::without_limits(Direction::Read),
            write: Watch::without_limits(Direction::Write),
        }
    }

    /// The client's address. While SYN cookies are in use it proves little about who the client is.
    pub fn peer_addr(&self) -> SocketAddr {
        self.inner.record().peer
    }

    /// The address the client connected to: under a wildcard listener, the one it chose.
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

    /// The state the kernel has the connection in, at this moment.
    ///
    /// TIME-WAIT is not among the answers: a connection in that state has left its socket, whose state is then CLOSED.
    ///
    /// # Errors
    ///
    /// That of getsockopt(2), which an open socket does not cause.
    pub fn state(&self) -> io::Result<TcpState> {
        sys::tcp_state(&self.inner.stream)
    }

    /// Limits how long the client may take, from now on; in the place of the limits set before.
    ///
    /// A read or write that waits for longer fails with [`TimedOut`](io::ErrorKind::TimedOut); inside the error is
    /// [`Expired`](crate::Expired), and the connection is counted by it. It is not closed by that: a front end may still answer, and then
    /// [close](Connection::close), or [abort](Connection::abort). [Halves](Connection::into_split) keep the limits.
    ///
    /// Costs some 130 bytes, and a timer of about as much for each direction that ever had to wait; with limits of the kernel's, or in
    /// the place of such, two to five system calls.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a value [out of its range](Timeouts::check), before anything is set; that of setsockopt(2).
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) -> io::Result<()> {
        timeouts.check()?;
        self.inner.set_kernel_limits(timeouts)?;
        let (progress, record) = (&self.inner.progress, self.inner.record());
        self.read = Watch::with_limits(Direction::Read, timeouts, progress, record);
        self.write = Watch::with_limits(Direction::Write, timeouts, progress, record);
        Ok(())
    }

    /// Lifts the limits on progress; those of the kernel stay.
    pub(crate) fn lift_limits(&mut self) {
        self.read = Watch::without_limits(Direction::Read);
        self.write = Watch::without_limits(Direction::Write);
    }

    /// Keeps a place that a [`Gate`](crate::Gate) has granted until the connection ends. The first one stands.
    pub fn keep(&self, mut ticket: Ticket) {
        ticket.hold(self.handle());
        // A second one goes back at once.
        let _ = self.inner.ticket.set(ticket);
    }

    /// Half-close: sends FIN after the last byte written. The client reads to its end; we can go on reading what it sends.
    ///
    /// # Errors
    ///
    /// That of shutdown(2). That the connection is gone already is not an error here; reading tells.
    pub async fn shutdown_write(&mut self) -> io::Result<()> {
        self.inner.shutdown_write()
    }

    /// Says why a front end is about to end the connection, where the connection cannot know: [`CloseReason::Drained`], a limit of the
    /// relay's own. To be called before the end is brought about; it ends nothing by itself. FINs and resets are noted without it.
    pub fn note_close(&self, reason: CloseReason) {
        self.account().note(reason);
    }

    /// Ends the connection with RST: the client gets an error, what is unsent is thrown away, and no TIME-WAIT stays behind.
    pub fn abort(self) {
        reset_when_dropped(&SockRef::from(&self.inner.stream));
        self.account().note(CloseReason::Aborted);
    }

    /// Splits into a half that reads and one that writes, each to be moved where it is needed. The connection ends
    /// when both are dropped; dropping the one that writes sends FIN.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        split::split(self)
    }

    /// The bare tokio stream. From here on nothing is counted or limited: for the counters, the connection ends as `handed_over`.
    pub fn into_tcp_stream(self) -> TcpStream {
        self.account().note(CloseReason::HandedOver);
        self.inner.record().take_back();
        let inner =
            Arc::into_inner(self.inner).expect("a whole connection has no halves, and no handle holds it any more");
        inner.stream
    }

    /// The socket, for the relay, which reads and writes through a shared reference and sees to the account itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.inner.stream
    }

    pub(crate) fn account(&self) -> &Account {
        &self.inner.account
    }

    pub(crate) fn record(&self) -> &Record {
        self.inner.record()
    }
}

impl AsFd for Connection {
    /// For socket options and `sendfile`; what passes by the descriptor is neither counted nor limited.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.stream.as_fd()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Connection { inner, read, .. } = self.get_mut();
        inner.poll_read(read, cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Connection { inner, write, .. } = self.get_mut();
        inner.poll_write(write, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing to do: the kernel sends what was written.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// [`shutdown_write`](Connection::shutdown_write).
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.inner.shutdown_write())
    }
}
