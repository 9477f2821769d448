//! A connection as somebody else sees it: a registry, an access log, an operator.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use listener::TcpState;

use super::{Handshake, Inner};
use crate::record::{CloseSummary, Record};
use crate::stats::CloseReason;
use crate::sys;

/// Looks at a connection, and can end it, from any task or thread. Clones are of the same connection.
///
/// It keeps neither the connection nor its socket open: when the application lets go of them, what the handle still tells are
/// the facts. Those take some 400 bytes for as long as there is a handle, so a registry should forget handles of connections that have ended.
///
/// ```no_run
/// use tokio::io::AsyncWriteExt;
///
/// async fn serve(mut connection: connection::Connection) {
///     let handle = connection.handle();
///     let _ = connection.write_all(b"welcome\n").await; // What became of it is in the summary.
///     drop(connection);
///     let end = handle.summary().expect("the connection was dropped");
///     println!("{} {} {:?} {} bytes, {}", end.id, end.peer, end.duration, end.sent_bytes, end.reason.label());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ConnectionHandle {
    record: Arc<Record>,
    socket: Weak<Inner>,
}

impl ConnectionHandle {
    pub(super) fn new(inner: &Arc<Inner>) -> ConnectionHandle {
        ConnectionHandle { record: Arc::clone(inner.account.record()), socket: Arc::downgrade(inner) }
    }

    /// A number that no other connection of this process has or had.
    pub fn id(&self) -> u64 {
        self.record.id
    }

    /// The client's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.record.peer
    }

    /// The address the client connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.record.local
    }

    /// How the connection came about.
    pub fn handshake(&self) -> Handshake {
        self.record.handshake
    }

    /// Since the application was given the connection; at its end this stands still.
    pub fn age(&self) -> Duration {
        self.record.age()
    }

    /// Bytes the application read so far.
    pub fn received_bytes(&self) -> u64 {
        self.record.received_bytes()
    }

    /// Bytes the application wrote so far, which the kernel may still be sending.
    pub fn sent_bytes(&self) -> u64 {
        self.record.sent_bytes()
    }

    /// The state the kernel has the connection in, at this moment; `None` when the application has let go of it.
    pub fn state(&self) -> Option<TcpState> {
        self.with_socket(|inner| sys::tcp_state(&inner.stream).ok()).flatten()
    }

    /// How long no byte has come or gone, as the kernel has it: since it was accepted at most, and also for what passes by our account.
    /// What the kernel sends again counts; an ACK, a probe and a FIN do not. `None` when the application has let go of it.
    pub fn idle(&self) -> Option<Duration> {
        let quiet = self.with_socket(|inner| sys::quiet(&inner.stream).ok()).flatten()?;
        Some(quiet.min(self.age()))
    }

    /// The states of RFC 9293 that the connection has gone through, as far as this process has part in them: by the FINs and RSTs that it
    /// read, and those it sent. What the kernel does alone is left out: FIN-WAIT-2 and CLOSING, and all that comes behind the last of them.
    pub fn states(&self) -> Vec<TcpState> {
        self.record.states()
    }

    /// Why the connection ends or has ended, as far as is known; `None` while nothing points to an end.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.record.reason()
    }

    /// What there is to say at the end; `None` while the connection lives.
    pub fn summary(&self) -> Option<CloseSummary> {
        self.record.summary()
    }

    /// [`Connection::note_close`](crate::Connection::note_close), from elsewhere; nothing if the connection has ended.
    pub fn note_close(&self, reason: CloseReason) {
        self.with_socket(|inner| inner.account.note(reason));
    }

    /// Half-closes the connection from our side, whatever its task is doing: what was written goes out, then FIN. Reads go on until the
    /// client's FIN; writes fail with `BrokenPipe`. `reason` is counted, unless another stands already. False if the application had let
    /// go of it.
    pub fn half_close(&self, reason: CloseReason) -> bool {
        let half_close = |inner: &Inner| {
            inner.account.note(reason);
            inner.shutdown_write().is_ok()
        };
        self.with_socket(half_close).unwrap_or(false)
    }

    /// Ends the connection with RST, whatever its task is doing: reads and writes fail with
    /// [`ConnectionAborted`](std::io::ErrorKind::ConnectionAborted), also those that wait, and what was in the socket's queues is
    /// thrown away. `reason` is counted, unless the connection was broken already. False if the application had let go of it.
    ///
    /// The kernel does it, on the socket itself, so it reaches a task that waits for a descriptor or a relay as well as one that reads.
    /// shutdown(2) would not do: it sends FIN, and the client would take half an answer for a whole one.
    pub fn abort(&self, reason: CloseReason) -> bool {
        self.with_socket(|inner| inner.abort(reason).is_ok()).unwrap_or(false)
    }

    /// Holds the socket for the time of a system call. If the application lets go of it just then, it is closed here.
    fn with_socket<T>(&self, look: impl FnOnce(&Inner) -> T) -> Option<T> {
        let lent = self.record.lent();
        if !*lent {
            return None; // Not even for a moment may it have another owner.
        }
        let inner = self.socket.upgrade()?;
        let seen = look(&inner);
        drop(inner); // Before the lock: whoever takes the socket back under it is then the only owner.
        drop(lent);
        Some(seen)
    }
}
