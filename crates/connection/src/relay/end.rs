//! One side of a relay.

use std::future::{pending, poll_fn};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::RelayEnd;
use super::inq::{self, Left};
use super::pipe::Pipe;
use crate::account::Account;
use crate::stats::CloseReason;
use crate::sys::tell_when_empty;
use crate::upstream::Stream;

#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Client,
    Upstream,
}

/// One side of the relay, read and written through a shared reference, since both directions use it.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) side: Side,
    pub(super) socket: Socket<'a>,
    /// The client's side is counted.
    pub(super) account: Option<&'a Account>,
}

/// What was got from a socket.
pub(super) enum Got {
    /// Nothing there yet.
    Nothing,
    /// Bytes, in the buffer.
    Read(usize),
    /// Bytes, in the pipe.
    Spliced(usize),
    Fin,
}

impl<'a> End<'a> {
    /// Reads into a buffer.
    pub(super) fn try_read(self, buffer: &mut [u8]) -> Result<Got, RelayEnd> {
        let read = self.socket.try_read(buffer);
        self.note_read(read.as_ref().copied());
        Ok(match self.unless_blocked(read)? {
            None => Got::Nothing,
            Some(0) => Got::Fin,
            Some(len) => Got::Read(len),
        })
    }

    /// Fills an empty pipe, or if that is not possible, reads into a buffer.
    ///
    /// Splice does not pass TCP's urgent mark, of which it says the same as of an empty queue: "would block", or when the FIN has come too,
    /// that this is the end. Only read knows; and it passes the mark, without the urgent byte. Besides, not every kind of kernel has splice.
    pub(super) fn try_splice(self, pipe: &mut Pipe, buffer: &mut [u8]) -> Result<Got, RelayEnd> {
        let got = self.socket.try_io(Interest::READABLE, || match pipe.fill(&self.socket) {
            Ok(len) if len > 0 => Ok(Got::Spliced(len)),
            Err(error) if !is_of_splice(&error) => Err(error),
            _ => Ok(match self.socket.read(buffer)? {
                0 => Got::Fin,
                len => Got::Read(len),
            }),
        });
        match &got {
            Ok(Got::Read(len) | Got::Spliced(len)) => self.note_read(Ok(*len)),
            Ok(Got::Fin) => self.note_read(Ok(0)),
            Ok(Got::Nothing) => {}
            Err(error) => self.note_read(Err(error)),
        }
        Ok(self.unless_blocked(got)?.unwrap_or(Got::Nothing))
    }

    /// Writes; `None`: no room yet.
    pub(super) fn try_write(self, bytes: &[u8]) -> Result<Option<usize>, RelayEnd> {
        self.wrote(self.socket.try_write(bytes))
    }

    /// Empties a pipe, as far as there is room; `None`: no room yet.
    pub(super) fn try_empty(self, pipe: &mut Pipe) -> Result<Option<usize>, RelayEnd> {
        self.wrote(self.socket.try_io(Interest::WRITABLE, || pipe.empty(&self.socket)))
    }

    fn note_read(self, outcome: Result<usize, &io::Error>) {
        if let Some(account) = self.account {
            account.read(outcome);
        }
    }

    fn wrote(self, outcome: io::Result<usize>) -> Result<Option<usize>, RelayEnd> {
        if let Some(account) = self.account {
            account.wrote(outcome.as_ref().copied());
        }
        self.unless_blocked(outcome)
    }

    fn unless_blocked<T>(self, outcome: io::Result<T>) -> Result<Option<T>, RelayEnd> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(self.end_of(error)),
        }
    }

    /// Waits until reading may bring something. At most one reader waits for each socket, and one writer: tokio keeps one waker for each.
    pub(super) async fn readable(&self) -> Result<(), RelayEnd> {
        poll_fn(|cx| self.socket.poll_read_ready(cx)).await.map_err(|error| self.end_of(error))
    }

    /// Waits until there may be room for writing.
    pub(super) async fn writable(&self) -> Result<(), RelayEnd> {
        poll_fn(|cx| self.socket.poll_write_ready(cx)).await.map_err(|error| self.end_of(error))
    }

    /// Has what is written from now on leave at once, be it ever so little. Nagle's algorithm does not hold back what is written first.
    pub(super) fn send_at_once(self) {
        match (self.side, self.socket) {
            (Side::Upstream, Socket::Tcp(stream)) => {
                let _ = stream.set_nodelay(true); // A broken connection; writing tells.
            }
            (Side::Upstream, Socket::Unix(_)) | (Side::Client, _) => {} // Connections have been so from their beginning.
        }
    }

    /// Passes a FIN on; the last of the two is left to the closing of the socket, which is what comes next and sends it too.
    ///
    /// That the socket is not connected any more is left to the next read or write to tell.
    pub(super) fn pass_fin(self, last: bool) -> Result<(), RelayEnd> {
        if let Some(account) = self.account {
            account.note(CloseReason::LocalClose);
        }
        if last {
            return Ok(());
        }
        match SockRef::from(&self.socket).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(self.end_of(error)),
            _ => Ok(()),
        }
    }

    /// Waits until the connection is broken, by a RST for example, and says how.
    ///
    /// A Unix socket never is, in this sense: what its peer wrote before it went away can still be read, so reading tells.
    pub(super) async fn broken(&self) -> io::Error {
        let error = match self.socket {
            Socket::Tcp(stream) => match stream.ready(Interest::ERROR).await {
                // The pump may have taken the error in the meantime; then only that there was one is known.
                Ok(_) => stream.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
                Err(error) => error,
            },
            Socket::Unix(_) => pending().await,
        };
        if let Some(account) = self.account {
            account.failed(&error);
        }
        error
    }

    pub(super) fn end_of(self, error: io::Error) -> RelayEnd {
        let reset = matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        match (self.side, self.socket) {
            (Side::Client, _) if reset => RelayEnd::ClientReset,
            (Side::Client, _) => RelayEnd::ClientFailed(error),
            (Side::Upstream, Socket::Unix(_)) if error.kind() == io::ErrorKind::BrokenPipe => RelayEnd::UpstreamRefused,
            (Side::Upstream, _) if reset => RelayEnd::UpstreamReset,
            (Side::Upstream, _) => RelayEnd::UpstreamFailed(error),
        }
    }

    /// Whether what the peer wrote can still be read when it takes nothing more.
    pub(super) fn outlives_its_peer(self) -> bool {
        matches!(self.socket, Socket::Unix(_))
    }
}

/// Whether reading may succeed where splicing did not. Nothing was taken from the socket.
fn is_of_splice(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL | libc::ENOSYS))
}

/// A connected stream socket of either kind, by reference.
#[derive(Clone, Copy)]
pub(super) enum Socket<'a> {
    Tcp(&'a TcpStream),
    Unix(&'a UnixStream),
}

impl Socket<'_> {
    fn try_write(self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.try_write(bytes),
            Socket::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Reads. Where the kernel says that this was all, tokio is told to wait for it to say that there is more.
    fn try_read(self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut last = None;
        let read = self.try_io(Interest::READABLE, || match inq::read(&self, buffer)? {
            (len, Left::Nothing) if len > 0 => {
                last = Some(len);
                Err(io::ErrorKind::WouldBlock.into()) // Has tokio forget the readiness it knew of before, and none that came since.
            }
            (len, _) => Ok(len),
        });
        last.map_or(read, Ok)
    }

    /// Has reads of small messages tell that they were all. Without it, as with a Unix socket, each is followed by one that finds nothing.
    pub(super) fn tell_when_empty(self) {
        if let Socket::Tcp(stream) = self {
            let _ = tell_when_empty(stream); // A broken connection; reading tells.
        }
    }

    /// Reads without asking tokio first; to be called within [`try_io`](Socket::try_io).
    fn read(self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(&self)).read(buffer)
    }

    fn try_io<T>(self, interest: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Socket::Tcp(stream) => stream.try_io(interest, io),
            Socket::Unix(stream) => stream.try_io(interest, io),
        }
    }

    fn poll_read_ready(self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            Socket::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Socket::Tcp(stream) => stream.poll_write_ready(cx),
            Socket::Unix(stream) => stream.poll_write_ready(cx),
        }
    }
}

impl AsFd for Socket<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl<'a> From<&'a Stream> for Socket<'a> {
    fn from(stream: &'a Stream) -> Socket<'a> {
        match stream {
            Stream::Tcp(stream) => Socket::Tcp(stream),
            Stream::Unix(stream) => Socket::Unix(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::time::Duration;

    use listener::Via;
    use tokio::time::timeout;

    use super::*;
    use crate::connection::{Connection, Handshake};
    use crate::stats::ConnectionStats;

    /// What a sender has left in the queue of the socket that is returned, with an urgent byte at its head.
    async fn urgent_byte_and(data: &[u8], fin: bool) -> (std::net::TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let receiver = listener.accept().unwrap().0;
        receiver.set_nonblocking(true).unwrap();
        SockRef::from(&sender).send_out_of_band(b"!").unwrap();
        sender.write_all(data).unwrap();
        if fin {
            sender.shutdown(Shutdown::Write).unwrap();
        }
        let receiver = TcpStream::from_std(receiver).unwrap();
        receiver.readable().await.unwrap();
        (sender, receiver)
    }

    #[tokio::test]
    async fn splice_at_an_urgent_mark_is_neither_nothing_nor_the_end() {
        for fin in [false, true] {
            let (_sender, stream) = urgent_byte_and(b"behind", fin).await;
            let end = End { side: Side::Client, socket: Socket::Tcp(&stream), account: None };
            let (mut pipe, mut buffer) = (Pipe::take().unwrap(), [0; 64]);
            assert!(matches!(end.try_splice(&mut pipe, &mut buffer), Ok(Got::Read(6))), "FIN: {fin}");
            assert_eq!((&buffer[..6], pipe.len()), (&b"behind"[..], 0));
            match end.try_splice(&mut pipe, &mut buffer) {
                Ok(Got::Fin) => assert!(fin),
                Ok(Got::Nothing) => assert!(!fin),
                _ => panic!("there is nothing more"),
            }
        }
    }

    /// A connection that the kernel has given up, since its client took nothing; and the client.
    async fn given_up(stats: &Arc<ConnectionStats>) -> (Connection, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        SockRef::from(&stream).set_tcp_user_timeout(Some(Duration::from_millis(1))).unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        let given_up = async {
            while !stream.ready(Interest::WRITABLE | Interest::ERROR).await.unwrap().is_error() {
                let _ = stream.try_write(&[0; 65_536]);
            }
        };
        timeout(Duration::from_secs(20), given_up).await.expect("a probe of the closed window");
        let handshake = Handshake { via: Via::Kernel, options: None, duration: None };
        (Connection::new(stream, listener.local_addr().unwrap(), peer, handshake, stats), client)
    }

    #[tokio::test]
    async fn the_kernel_giving_up_is_a_user_timeout_whichever_way_bytes_move() {
        for splices in [false, true] {
            let stats = Arc::default();
            let (connection, _client) = given_up(&stats).await;
            let account = Some(connection.account());
            let end = End { side: Side::Client, socket: Socket::Tcp(connection.stream()), account };
            let mut buffer = [0; 64];
            let got = if splices {
                end.try_splice(&mut Pipe::take().unwrap(), &mut buffer)
            } else {
                end.try_read(&mut buffer)
            };
            let Err(RelayEnd::ClientFailed(error)) = got else { panic!("splices: {splices}") };
            assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
            drop(connection);
            assert_eq!(stats.closed(CloseReason::UserTimeout), 1, "splices: {splices}");
        }
    }
}
