//! Pipes, through which bulk passes from socket to socket without being copied.
//!
//! To a TCP upstream a pipe costs the relay 0.30 to 0.44 s of CPU time per GiB, copying 0.42 to 0.67 s; to a Unix socket 0.24 to 0.37 s
//! against 0.41 to 0.56 s; and a third more passes per second (`benches/relay.rs`, six runs each, one outlier left out; Linux 6.18,
//! loopback, a virtual machine with two cores). A pipe of 256 KiB saves another tenth or so, and would hold that much more for each slow receiver.

use std::cell::RefCell;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use nix::fcntl::{self, SpliceFFlags};
use nix::sys::resource::{Resource, getrlimit};

use super::RELAY_BUFFER_BYTES;
use super::sys::sigpipe_is_ignored;

/// Pipes of the process, at most.
const PIPES_MAX: usize = 1024;
/// A pipe for so many descriptors that the process may have: pipes, with two descriptors each, take a thirty-second part.
const DESCRIPTORS_PER_PIPE: usize = 64;

static PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// An empty pipe, kept for the next step of any relay on this thread.
    static SPARE: RefCell<Option<Pipe>> = const { RefCell::new(None) };
}

/// A pipe and the bytes in it, [`RELAY_BUFFER_BYTES`] at most.
///
/// They stay where they came in, in up to 16 pieces of the kernel's memory, which can be larger than what is left in them: 4 KiB is usual for
/// a network device, 32 KiB on loopback. A sender of small pieces gains nothing by that, since those are copied.
///
/// One per thread serves all relays on it, as long as receivers take everything at once; what they leave stays in its pipe, and
/// the thread gets another. The process has one for every 64 descriptors of its limit when it makes the first, and 1024 at most; who gets
/// none copies.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
    len: usize,
    _share: Share,
}

impl Pipe {
    /// An empty pipe; `None` when there are as many as there may be, or no descriptors are left, or the process would die of SIGPIPE.
    pub(super) fn take() -> Option<Pipe> {
        SPARE.take().or_else(|| {
            let share = Share::take()?;
            let (reader, writer) = sigpipe_is_ignored().then(io::pipe)?.ok()?;
            Some(Pipe { reader, writer, len: 0, _share: share })
        })
    }

    /// Gives an empty pipe to the thread.
    pub(super) fn give_back(self) {
        debug_assert_eq!(self.len, 0, "what is in the pipe would come out at another relay's end");
        SPARE.set(Some(self));
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Fills the empty pipe from a socket, and says with how much: 0 at the end of what the socket brings.
    pub(super) fn fill(&mut self, from: &impl AsFd) -> io::Result<usize> {
        debug_assert_eq!(self.len, 0, "else \"would block\" would not tell which of the two would");
        self.len = splice(from, &self.writer, RELAY_BUFFER_BYTES)?;
        Ok(self.len)
    }

    /// Empties the pipe, which is not empty, into a socket as far as that has room, and says how much it took.
    pub(super) fn empty(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let len = splice(&self.reader, to, self.len)?;
        self.len -= len;
        Ok(len)
    }
}

/// Moves up to `len` bytes between a pipe and a socket without copying them
/// ([splice(2)](https://man7.org/linux/man-pages/man2/splice.2.html)). Never waits for the pipe; a non-blocking socket is not waited for either.
///
/// Into a socket whose peer is gone it raises SIGPIPE, and there is no flag against that; see [`sigpipe_is_ignored`].
fn splice(from: &impl AsFd, to: &impl AsFd, len: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    Ok(fcntl::splice(from, None, to, None, len, flags)?)
}

/// The right to have one pipe.
#[derive(Debug)]
struct Share;

impl Share {
    fn take() -> Option<Share> {
        let one_more = |count| (count < Share::max()).then_some(count + 1);
        PIPES.fetch_update(Relaxed, Relaxed, one_more).ok().map(|_| Share)
    }

    fn max() -> usize {
        static MAX: OnceLock<usize> = OnceLock::new();
        *MAX.get_or_init(|| {
            let (soft, _hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or_default();
            usize::try_from(soft).map_or(PIPES_MAX, |descriptors| PIPES_MAX.min(descriptors / DESCRIPTORS_PER_PIPE))
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_of_splice_comes_back() {
        let [no_pipe, nor_this] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        assert_eq!(splice(&no_pipe, &nor_this, 1).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
