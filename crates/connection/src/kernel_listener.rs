//! The `kernel` tier: the kernel's own listener, with the same connections at the end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use listener::Via;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

use crate::connection::{Connection, Handshake};
use crate::stats::ConnectionStats;
use crate::sys::{self, ListenQueue};
use crate::timeouts::Timeouts;

/// The pause after the first failure for want of descriptors or memory; each further one doubles it.
const BACK_OFF_MIN: Duration = Duration::from_millis(5);
/// The longest pause: what is freed is noticed within this time.
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// A shortage that comes and goes is reported this often at most.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Listens through the kernel. Needs no capability, and has no defence but the kernel's own.
#[derive(Debug)]
pub struct KernelListener {
    inner: Arc<TcpListener>,
    local: SocketAddr,
    via: Via,
    stats: Arc<ConnectionStats>,
    back_off: BackOff,
}

impl KernelListener {
    /// Listens on an address; port 0 lets the kernel choose. An IPv6 address takes IPv6 connections alone, `[::]` too, so that
    /// `0.0.0.0` can be listened on beside it. The kernel keeps `backlog` finished handshakes for us, or `net.core.somaxconn`
    /// if that is less. Connections are counted in `stats`.
    ///
    /// # Errors
    ///
    /// EADDRINUSE, EACCES for a port below 1024, EADDRNOTAVAIL, and others of socket(2) and bind(2).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub fn bind(addr: SocketAddr, backlog: u32, stats: Arc<ConnectionStats>) -> io::Result<KernelListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A restart must not wait for the TIME-WAIT of old connections.
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        KernelListener::listen(socket, backlog, stats)
    }

    /// Goes on with the listening socket of another process, and with what waits in its queue. As long as both hold it, each connection
    /// is whose accepts it.
    ///
    /// # Errors
    ///
    /// Where it is no TCP socket that is bound.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub fn inherit(left: OwnedFd, backlog: u32, stats: Arc<ConnectionStats>) -> io::Result<KernelListener> {
        let socket = Socket::from(left);
        socket.set_nonblocking(true)?;
        // Connections have their listener's limits, and are thought to begin without any.
        Timeouts::default().apply(&SockRef::from(&socket))?;
        KernelListener::listen(socket, backlog, stats)
    }

    /// One that listens already is told its new backlog.
    ///
    /// What each connection is to have is set here once: the kernel gives it the options of its listener.
    fn listen(socket: Socket, backlog: u32, stats: Arc<ConnectionStats>) -> io::Result<KernelListener> {
        socket.set_tcp_nodelay(true)?;
        // Saves the relay a call for each message, and is not there before Linux 4.18.
        let _ = sys::tell_when_empty(&socket);
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let inner = Arc::new(TcpListener::from_std(socket.into())?);
        let local = inner.local_addr()?;
        Ok(KernelListener { inner, local, via: Via::Kernel, stats, back_off: BackOff::default() })
    }

    /// The address listened on, with the port the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Says how the handshakes of this listener's connections come about, if not by the kernel alone.
    pub fn with_via(self, via: Via) -> KernelListener {
        KernelListener { via, ..self }
    }

    /// A view of the kernel's queue. It does not keep the socket open.
    pub fn gauge(&self) -> KernelGauge {
        KernelGauge { socket: Arc::downgrade(&self.inner) }
    }

    /// The next connection.
    ///
    /// When descriptors or memory run out (EMFILE, ENFILE, ENOBUFS, ENOMEM) it pauses, 5 ms at first and 1 s at most, and tries again;
    /// the connection waits in the kernel's queue meanwhile. A connection that broke before it was accepted is passed over.
    ///
    /// Cancel safe, the pause included.
    ///
    /// # Errors
    ///
    /// Only such as no further call will cure.
    pub async fn accept(&mut self) -> io::Result<Connection> {
        loop {
            self.back_off.wait().await;
            match self.inner.accept().await {
                Ok((stream, peer)) => {
                    self.back_off.pause = Duration::ZERO;
                    // An error here is that of a connection that broke already.
                    if let Ok(connection) = self.adopt(stream, peer) {
                        return Ok(connection);
                    }
                }
                Err(error) => match Failure::of(&error) {
                    Failure::OfOneConnection => {}
                    Failure::Passing => self.back_off.lengthen(&error),
                    Failure::Fatal => return Err(error),
                },
            }
        }
    }

    fn adopt(&self, stream: TcpStream, peer: SocketAddr) -> io::Result<Connection> {
        // Under a wildcard it is for the connection to say.
        let local = if self.local.ip().is_unspecified() { stream.local_addr()? } else { self.local };
        let handshake = Handshake { via: self.via, options: None, duration: None };
        Ok(Connection::new(stream, local, peer, handshake, &self.stats))
    }
}

/// The queue of a kernel listener, seen from outside.
#[derive(Clone, Debug)]
pub struct KernelGauge {
    socket: Weak<TcpListener>,
}

impl KernelGauge {
    /// Connections that wait to be accepted, and how many may; zeros once the listener is gone.
    pub fn queue(&self) -> ListenQueue {
        self.socket.upgrade().and_then(|socket| sys::listen_queue(&*socket).ok()).unwrap_or_default()
    }

    /// The socket, for a process that is to [`inherit`](KernelListener::inherit) it.
    ///
    /// # Errors
    ///
    /// Of dup(2); `NotConnected` once the listener is gone.
    pub fn share(&self) -> io::Result<OwnedFd> {
        let socket = self.socket.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        socket.as_fd().try_clone_to_owned()
    }
}

/// What an error of `accept` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// accept(2): "Linux accept() passes already-pending network errors on the new socket as an error code from accept()."
    OfOneConnection,
    /// Of descriptors or memory, or unknown: waiting may help, and trying at once would spin.
    Passing,
    /// Of the listening socket itself.
    Fatal,
}

impl Failure {
    fn of(error: &io::Error) -> Failure {
        let Some(errno) = error.raw_os_error() else {
            return Failure::Fatal; // Of the runtime, at its end.
        };
        match errno {
            libc::EBADF | libc::EFAULT | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP => Failure::Fatal,
            libc::ECONNABORTED | libc::EPERM | libc::EINTR | libc::ENETDOWN | libc::EPROTO | libc::ENOPROTOOPT => {
                Failure::OfOneConnection
            }
            libc::EHOSTDOWN | libc::ENONET | libc::EHOSTUNREACH | libc::ENETUNREACH => Failure::OfOneConnection,
            _ => Failure::Passing,
        }
    }
}

/// When to try again. It outlives a cancelled `accept`, so that a loop of cancellations does not spin either.
#[derive(Debug, Default)]
struct BackOff {
    pause: Duration,
    until: Option<Instant>,
    warned: Option<Instant>,
}

impl BackOff {
    async fn wait(&mut self) {
        if let Some(until) = self.until {
            sleep_until(until).await;
            self.until = None;
        }
    }

    fn lengthen(&mut self, error: &io::Error) {
        let now = Instant::now();
        if self.warned.is_none_or(|warned| now - warned >= WARNING_INTERVAL) {
            tracing::warn!(%error, "cannot accept connections; they wait in the kernel's queue");
            self.warned = Some(now);
        }
        self.pause = (self.pause * 2).clamp(BACK_OFF_MIN, BACK_OFF_MAX);
        self.until = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_up_to_its_bound() {
        let error = io::Error::from_raw_os_error(libc::EMFILE);
        let mut back_off = BackOff::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            back_off.lengthen(&error);
            pauses.push(back_off.pause.as_millis());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000]);
    }

    #[test]
    fn errors_of_one_connection_do_not_stop_the_listener() {
        let of = |errno| Failure::of(&io::Error::from_raw_os_error(errno));
        for errno in [libc::ECONNABORTED, libc::EPROTO, libc::ENETDOWN, libc::EHOSTUNREACH, libc::EPERM] {
            assert_eq!(of(errno), Failure::OfOneConnection);
        }
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EXDEV] {
            assert_eq!(of(errno), Failure::Passing);
        }
        assert_eq!(of(libc::EBADF), Failure::Fatal);
        assert_eq!(Failure::of(&io::Error::other("runtime is shutting down")), Failure::Fatal);
    }
}
