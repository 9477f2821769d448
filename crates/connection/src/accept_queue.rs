//! The queue between the listener's workers, which make connections, and the application, which takes them.

use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use listener::Refusal;
use socket2::SockRef;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::connection::{Connection, Handshake};
use crate::stats::ConnectionStats;

/// A connection that waits to be accepted. Not yet known to any tokio runtime: it was made on a worker's thread.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) stream: net::TcpStream,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) handshake: Handshake,
}

/// Makes an accept queue for at most `limit` connections, at least 1; connections taken from it are counted in `stats`.
///
/// What a place costs is a socket: a descriptor and some 4 KiB of kernel memory, plus early data of at most 16 KiB. When the queue is
/// full, a finished handshake is refused with [`Refusal::AcceptQueueFull`] *before* a socket is made; the listener then keeps
/// it half-open and asks again at the client's next segment, so the client waits, as with the kernel's own queue.
pub fn accept_queue(limit: usize, stats: Arc<ConnectionStats>) -> (AcceptSender, AcceptReceiver) {
    let (sender, receiver) = mpsc::channel(limit.max(1));
    (AcceptSender { sender, stats: Arc::clone(&stats) }, AcceptReceiver { receiver, stats })
}

/// The workers' end of the queue. Clones lead to the same receiver.
#[derive(Clone, Debug)]
pub struct AcceptSender {
    sender: mpsc::Sender<Arrival>,
    stats: Arc<ConnectionStats>,
}

impl AcceptSender {
    /// For metrics: reads the queue's length without keeping the queue open.
    pub fn gauge(&self) -> AcceptGauge {
        AcceptGauge { sender: self.sender.downgrade(), limit: self.sender.max_capacity() }
    }

    /// A place in the queue, given back when dropped.
    pub(crate) fn reserve(&self) -> Result<Place, Refusal> {
        match self.sender.clone().try_reserve_owned() {
            Ok(permit) => Ok(Place(permit)),
            Err(TrySendError::Full(_)) => Err(Refusal::AcceptQueueFull),
            Err(TrySendError::Closed(_)) => Err(Refusal::Closed),
        }
    }

    pub(crate) fn stats(&self) -> &ConnectionStats {
        &self.stats
    }
}

/// A reserved place in the queue.
#[derive(Debug)]
pub(crate) struct Place(mpsc::OwnedPermit<Arrival>);

impl Place {
    pub(crate) fn fill(self, arrival: Arrival) {
        self.0.send(arrival);
    }
}

/// How full an accept queue is.
#[derive(Clone, Debug)]
pub struct AcceptGauge {
    sender: mpsc::WeakSender<Arrival>,
    limit: usize,
}

impl AcceptGauge {
    /// Connections in the queue, places reserved this moment included; 0 once all senders are gone.
    pub fn len(&self) -> usize {
        self.sender.upgrade().map_or(0, |sender| sender.max_capacity() - sender.capacity())
    }

    /// Whether no connection waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections the queue holds at most.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// The application's end of the queue.
///
/// When it is dropped, the connections still in it are reset, as those in the queue of a kernel listener are, and counted as
/// `unaccepted`; the listener gets [`Refusal::Closed`] from then on.
#[derive(Debug)]
pub struct AcceptReceiver {
    receiver: mpsc::Receiver<Arrival>,
    stats: Arc<ConnectionStats>,
}

impl AcceptReceiver {
    /// The next connection; `None` when all senders are gone, or the queue was [closed](AcceptReceiver::close), and it is empty.
    ///
    /// Cancel safe: a connection is either returned or still in the queue.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch the socket (out of memory, or of epoll watches). That connection was reset; others may follow.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub async fn accept(&mut self) -> Option<io::Result<Connection>> {
        let arrival = self.receiver.recv().await?;
        Some(Connection::from_arrival(arrival, &self.stats).inspect_err(|_| self.stats.count_unaccepted()))
    }

    /// Takes no more connections; those in the queue can still be accepted.
    pub fn close(&mut self) {
        self.receiver.close();
    }

    /// Connections in the queue.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether no connection waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Connections the queue holds at most.
    pub fn limit(&self) -> usize {
        self.receiver.max_capacity()
    }
}

impl Drop for AcceptReceiver {
    fn drop(&mut self) {
        self.receiver.close();
        while let Ok(arrival) = self.receiver.try_recv() {
            reset_when_dropped(&SockRef::from(&arrival.stream));
            self.stats.count_unaccepted();
        }
    }
}

/// Makes the closing of a socket send RST. That the option cannot be set happens to no TCP socket.
pub(crate) fn reset_when_dropped(socket: &SockRef<'_>) {
    let outcome = socket.set_linger(Some(Duration::ZERO));
    debug_assert!(outcome.is_ok(), "SO_LINGER on a TCP socket: {outcome:?}");
}
