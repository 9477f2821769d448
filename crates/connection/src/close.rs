//! Closing so that the client can tell a complete answer from a broken one.
//!
//! ```text
//!        we close first                              the client closes first
//! ESTABLISHED                                  ESTABLISHED
//!     │ FIN ──►                                    │ ◄── FIN
//! FIN-WAIT-1                                   CLOSE-WAIT
//!     │ ◄── ACK        ◄── FIN, no ACK yet         │ FIN ──►
//! FIN-WAIT-2            CLOSING                LAST-ACK
//!     │ ◄── FIN             │ ◄── ACK              │ ◄── ACK
//! TIME-WAIT             TIME-WAIT              CLOSED
//! ```
//!
//! # TIME-WAIT
//!
//! Whoever sends FIN first keeps TIME-WAIT, for 60 seconds on Linux (RFC 9293 §3.4.1 asks for twice the maximum segment lifetime). It does
//! two things: it acknowledges the other side's FIN again if our last ACK was lost, and it keeps segments that are still on their way
//! from being taken for a new connection's. It costs no socket and no descriptor, but some 250 bytes of kernel memory, at most
//! `net.ipv4.tcp_max_tw_buckets` times; and it holds its 4-tuple, which for a server matters little: the port is shared, and a client that
//! comes again by the same 4-tuple gets in at once, if its SYN has a newer timestamp (RFC 6191) or a higher sequence number (RFC 1122 §4.2.2.13).
//!
//! One thing is weaker for an [adopted](crate::adopt()) connection in the place of TIME-WAIT: its socket knows no timestamp of the
//! client's before the client's first segment, so until then only sequence numbers tell a late segment apart (RFC 7323 §5 asks for both).
//!
//! There are three ways to have less of it, each with its price:
//!
//! | way | leaves TIME-WAIT | price |
//! |---|---|---|
//! | [`close`](Connection::close) | here | none but the above |
//! | [`close_with`](Connection::close_with) and [`FirstFin::Peers`] | at the client | the socket is kept for as long as the client may take; the protocol must tell it to close, or that the answer is over, as a `Content-Length` does |
//! | [`abort`](Connection::abort) (`SO_LINGER` with 0) | nowhere | what the client has not read yet may be lost (RFC 1122 §4.2.2.13), and a segment that comes late meets no guard |
//!
//! `net.ipv4.tcp_tw_reuse` is about connections that this host makes, and does nothing for those it accepts.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use listener::TcpState;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{sleep, timeout};

use crate::connection::Connection;
use crate::stats::CloseReason;
use crate::sys;

/// How [`Connection::close`] ended.
#[derive(Debug)]
pub enum CloseOutcome {
    /// Both sides have sent FIN, and the client has acknowledged ours: everything we wrote has arrived.
    ///
    /// That it was read by somebody there is more than TCP can tell.
    Clean,
    /// The client sent RST, now or before.
    PeerReset,
    /// The client did not finish in time; it was sent RST.
    DeadlineExceeded {
        /// Bytes it sent that were not read. What came before was read and thrown away, so these came last.
        unread: u32,
        /// Bytes we wrote that it has not acknowledged. If this is 0, all but its FIN, or its ACK of ours, has come.
        unacked: u32,
    },
    /// The connection broke otherwise: given up by the kernel, aborted by a [handle](crate::ConnectionHandle::abort).
    Failed(io::Error),
}

/// Who sends FIN first, and with that who keeps TIME-WAIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstFin {
    /// We do, at once. TIME-WAIT is here.
    #[default]
    Ours,
    /// The client does, if it does so in this time; else we do. In this time the client must be able to know that
    /// nothing more will come.
    Peers {
        /// How long to wait for its FIN before ours is sent. It is a part of the whole close's deadline.
        within: Duration,
    },
}

/// What the client still sends while we close is thrown away in pieces of this size.
const DISCARD_BYTES: usize = 4096;

/// The last ACK wakes nobody: a socket whose both directions are shut is always ready. So the state is looked at, first after this time,
/// then after twice as long each time. The ACK takes a round trip, and each look takes less than a microsecond.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(1);
/// The longest time between two looks: what the last ACK is noticed late at most.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(50);

impl Connection {
    /// Closes gracefully: sends FIN, reads and throws away what the client still sends until its FIN, waits until it has acknowledged
    /// ours, and resets if all that has not happened within `deadline`. The other [timeouts](crate::Timeouts) of the
    /// application's do not hold any more.
    ///
    /// A plain drop is no substitute where the client may still be sending: unread data makes the kernel send RST, which can
    /// destroy the end of our answer on its way (RFC 1122 §4.2.2.13). Dropping this future is a plain drop.
    pub async fn close(self, deadline: Duration) -> CloseOutcome {
        self.close_with(FirstFin::Ours, deadline).await
    }

    /// The same, with a choice of who sends FIN first.
    pub async fn close_with(mut self, first: FirstFin, deadline: Duration) -> CloseOutcome {
        self.lift_limits();
        match timeout(deadline, self.finish(first)).await {
            Ok(Ok(())) => self.broken_outcome().unwrap_or(CloseOutcome::Clean),
            Ok(Err(error)) => self.broken_outcome().unwrap_or(CloseOutcome::Failed(error)),
            Err(_elapsed) => self.give_up(),
        }
    }

    async fn finish(&mut self, first: FirstFin) -> io::Result<()> {
        if let FirstFin::Peers { within } = first {
            // That it is over is no failure: our FIN then comes first.
            timeout(within, self.read_to_fin()).await.unwrap_or(Ok(()))?;
        }
        self.shutdown_write().await?;
        self.read_to_fin().await?;
        self.last_ack().await
    }

    async fn read_to_fin(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_discard(cx)).await
    }

    /// The buffer lives for the time of a look: kept over the wait, it would take its place in each task that may ever close.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut discarded = [MaybeUninit::uninit(); DISCARD_BYTES];
        loop {
            let mut buffer = ReadBuf::uninit(&mut discarded);
            ready!(Pin::new(&mut *self).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Waits until our FIN is acknowledged. After both FINs only that, or an error, leads to CLOSED or TIME-WAIT, which is CLOSED for a
    /// socket.
    async fn last_ack(&self) -> io::Result<()> {
        let mut pause = LOOK_AGAIN_MIN;
        while self.state()? != TcpState::Closed {
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN_MAX);
        }
        match self.stream().take_error()? {
            Some(error) => {
                self.account().failed(&error);
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// What became of a connection that broke, be it before the close, when the error went to somebody else.
    fn broken_outcome(&self) -> Option<CloseOutcome> {
        self.record().broken().map(|errno| match errno {
            libc::ECONNRESET | libc::EPIPE => CloseOutcome::PeerReset,
            errno => CloseOutcome::Failed(io::Error::from_raw_os_error(errno)),
        })
    }

    fn give_up(self) -> CloseOutcome {
        let unread = sys::unread_bytes(&self).unwrap_or(0);
        let unacked = self.unacked_bytes();
        self.note_close(CloseReason::Deadline);
        self.abort();
        CloseOutcome::DeadlineExceeded { unread, unacked }
    }

    fn unacked_bytes(&self) -> u32 {
        let fin = match self.state() {
            Ok(TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck) => 1,
            _ => 0,
        };
        sys::unacked_len(self).unwrap_or(0).saturating_sub(fin)
    }
}
