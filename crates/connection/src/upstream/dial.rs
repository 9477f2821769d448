//! One connection to one server.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::own_ports::OwnPorts;
use super::server::Server;
use super::stream::Stream;

/// The pause before a Unix socket whose queue is full is tried again; each further one doubles it.
const QUEUE_PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest such pause: room in the queue is noticed within it.
const QUEUE_PAUSE_MAX: Duration = Duration::from_millis(50);

/// Connects and hands the header over, all within the limit.
///
/// Nagle's algorithm (RFC 9293 §3.7.4) stays on for a stream that has not been written to, since it does not hold back what comes first; behind a
/// header it is off. So for many clients, who ask once and go, the call is saved; the relay turns it off for the others.
pub(super) async fn dial(server: &Server, header: &[u8], limit: Duration, own_ports: &OwnPorts) -> io::Result<Stream> {
    let connect = async {
        let mut stream = match server {
            Server::Tcp(address) => Stream::Tcp(connect_tcp(*address, own_ports).await?),
            Server::Unix(path) => Stream::Unix(connect_unix(path).await?),
        };
        if !header.is_empty() {
            stream.send_at_once();
            stream.write_all(header).await?;
        }
        Ok(stream)
    };
    timeout(limit, connect).await.map_err(|_elapsed| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))?
}

/// A server on this host whose port is one that the kernel may choose for us can be met by ourselves, when nobody listens: a
/// simultaneous open of one socket (RFC 9293 §3.5). The client would talk to itself, and the server could not come back to its port.
async fn connect_tcp(address: SocketAddr, own_ports: &OwnPorts) -> io::Result<TcpStream> {
    let stream = handshake(address).await?;
    if own_ports.contain(address.port()) && stream.local_addr()? == address {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?; // No TIME-WAIT on the server's port either.
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "connected to itself: nobody listens"));
    }
    Ok(stream)
}

/// As [`TcpStream::connect`], but asks for the error only if epoll says that there is one.
async fn handshake(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // Not before connect(2): a socket that has not begun to connect is ready, with a hang-up.
    let stream = TcpStream::from_std(socket.into())?;
    let ready = stream.ready(Interest::WRITABLE | Interest::ERROR).await?;
    let error = if ready.is_error() || ready.is_write_closed() { stream.take_error()? } else { None };
    error.map_or(Ok(stream), Err)
}

/// unix(7) has no handshake to wait for: a full queue is an error at once, EAGAIN, and nothing tells when there is room.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let mut pause = QUEUE_PAUSE_MIN;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(pause).await,
            outcome => return outcome,
        }
        pause = (2 * pause).min(QUEUE_PAUSE_MAX);
    }
}

/// Whether an error is a want of ours, which says nothing about the server: descriptors, memory, local ports.
pub(super) fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}
