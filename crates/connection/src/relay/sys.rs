//! The system calls of the relay that no crate here wraps.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::null_mut;

/// Moves up to `len` bytes between a pipe and a socket without copying them
/// ([splice(2)](https://man7.org/linux/man-pages/man2/splice.2.html)). Never waits for the pipe; a non-blocking socket is not waited for either.
///
/// Into a socket whose peer is gone it raises SIGPIPE, and there is no flag against that; see [`sigpipe_is_ignored`].
pub(super) fn splice(from: &impl AsFd, to: &impl AsFd, len: usize) -> io::Result<usize> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    // SAFETY: both descriptors are open for as long as they are borrowed, and no offsets are given: no memory of ours is touched.
    let moved = unsafe { libc::splice(from, null_mut(), to, null_mut(), len, flags) };
    usize::try_from(moved).map_err(|_negative| io::Error::last_os_error())
}

/// Whether the process ignores SIGPIPE, as Rust's runtime arranges before `main`
/// ([sigaction(2)](https://man7.org/linux/man-pages/man2/sigaction.2.html)).
pub(super) fn sigpipe_is_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and the kernel's answer is written to `action`, which has room for it.
    let result = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all of `action` was zeroed, and zeros are a `sigaction`.
    result == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// How many descriptors the process may have
/// ([getrlimit(2)](https://man7.org/linux/man-pages/man2/getrlimit.2.html), the soft limit of `RLIMIT_NOFILE`).
pub(super) fn descriptors_max() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit` to `limit`.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_signals_are_read_from_the_kernel() {
        assert!(descriptors_max().unwrap() > 0);
        assert!(sigpipe_is_ignored(), "as the test harness is Rust's");
    }

    #[test]
    fn error_of_the_call_comes_back() {
        let [no_pipe, nor_this] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        assert_eq!(splice(&no_pipe, &nor_this, 1).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
