//! What the parts of a connection share: the socket, its account, and how far it has come.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::account::Account;
use crate::limits::Ticket;
use crate::record::Record;
use crate::stats::CloseReason;
use crate::sys;
use crate::timeouts::{Progress, Timeouts, Watch};

/// The socket of a connection, read and written through a shared reference: by the connection or by its two halves.
///
/// One reader and one writer at a time: tokio keeps one waker for each.
#[derive(Debug)]
pub(super) struct Inner {
    // Dropped first: what is counted as closed is closed.
    pub(super) stream: TcpStream,
    pub(super) account: Account,
    pub(super) progress: Progress,
    /// Whether the socket may have limits that a new one has not.
    kernel_limits: AtomicBool,
    /// Given back when all else is gone.
    pub(super) ticket: OnceLock<Ticket>,
}

impl Inner {
    pub(super) fn new(stream: TcpStream, account: Account) -> Inner {
        let (progress, kernel_limits, ticket) = (Progress::default(), AtomicBool::new(false), OnceLock::new());
        Inner { stream, account, progress, kernel_limits, ticket }
    }

    pub(super) fn record(&self) -> &Record {
        self.account.record()
    }

    pub(super) fn poll_read(
        &self,
        watch: &mut Watch,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(())); // Reading nothing would look like the client's FIN.
        }
        let polled = self.poll_recv(cx, buf);
        watch.judge(polled, &self.progress, self.record(), cx)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let outcome = self.try_once(Interest::READABLE, buf.remaining(), || sys::recv(&self.stream, buf));
            self.account.read(outcome.as_ref().copied());
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(self.explain(error))),
                Ok(0) => {
                    self.progress.half_closed(self.record());
                    return Poll::Ready(Ok(()));
                }
                Ok(_) => return Poll::Ready(Ok(())),
            }
        }
    }

    pub(super) fn poll_write(
        &self,
        watch: &mut Watch,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.poll_send(cx, bufs);
        watch.judge(polled, &self.progress, self.record(), cx)
    }

    fn poll_send(&self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        // A signal is no way to learn that a connection is gone.
        let send = || SockRef::from(&self.stream).send_vectored_with_flags(bufs, libc::MSG_NOSIGNAL);
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let outcome = self.try_once(Interest::WRITABLE, len, send);
            self.account.wrote(outcome.as_ref().copied());
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome.map_err(|error| self.explain(error))),
            }
        }
    }

    /// Does an operation of `wanted` bytes on a socket that is thought to be ready, and waits for the kernel to say so again where it
    /// turns out not to be: after "not now", and after fewer bytes than were wanted, which saves the call that would say "not now".
    /// epoll(7) allows this for streams, edge-triggered as tokio uses it.
    fn try_once(
        &self,
        interest: Interest,
        wanted: usize,
        operation: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut short = None;
        let outcome = self.stream.try_io(interest, || match operation()? {
            len if 0 < len && len < wanted => {
                short = Some(len);
                Err(io::ErrorKind::WouldBlock.into()) // Has tokio forget the readiness it knew of before, and none that came since.
            }
            len => Ok(len),
        });
        short.map_or(outcome, Ok)
    }

    /// Sets the limits that the kernel keeps, in the place of those set before. A new socket has none, and need not be told so.
    pub(super) fn set_kernel_limits(&self, timeouts: &Timeouts) -> io::Result<()> {
        let any = timeouts.concern_the_kernel();
        if any || self.kernel_limits.load(Relaxed) {
            // Noted first: a call that fails half-way leaves some behind.
            self.kernel_limits.store(true, Relaxed);
            timeouts.apply(&SockRef::from(&self.stream))?;
            self.kernel_limits.store(any, Relaxed);
        }
        Ok(())
    }

    /// Sends FIN. That the connection is gone already is not an error here; reading tells.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        self.account.note(CloseReason::LocalClose);
        self.progress.half_closed(self.record());
        match SockRef::from(&self.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            _ => Ok(()),
        }
    }

    /// Ends the connection from any task: RST to the client, an error for whoever reads or writes.
    pub(super) fn abort(&self, reason: CloseReason) -> io::Result<()> {
        // Noted first: the error that this makes is then not taken for the client's doing.
        self.account.note(reason);
        self.record().broke(&aborted());
        sys::disconnect(&self.stream.as_fd())
    }

    /// The kernel calls every reset a reset by the peer.
    fn explain(&self, error: io::Error) -> io::Error {
        if self.record().broken() == Some(libc::ECONNABORTED) { aborted() } else { error }
    }
}

fn aborted() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNABORTED)
}
