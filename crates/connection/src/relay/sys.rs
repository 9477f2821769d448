//! The system calls of the relay that no crate here wraps.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use crate::sys::TCP_INQ;

/// Whether the process ignores SIGPIPE, as Rust's runtime arranges before `main`
/// ([sigaction(2)](https://man7.org/linux/man-pages/man2/sigaction.2.html)).
pub(super) fn sigpipe_is_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and the kernel's answer is written to `action`, which has room for it.
    let result = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all of `action` was zeroed, and zeros are a `sigaction`.
    result == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// `CMSG_SPACE` of one `int`, with room to spare: the socket may have been told to give other messages too.
const CONTROL_LEN: usize = 64;

/// Reads into the buffer, and gives beside the length what `TCP_INQ` tells of the queue behind it, if the socket tells
/// ([recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html)).
pub(super) fn recvmsg(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<libc::c_int>)> {
    #[repr(align(8))]
    struct Control([MaybeUninit<u8>; CONTROL_LEN]);
    let mut control = Control([MaybeUninit::uninit(); CONTROL_LEN]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data, for which zeros are a value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN as _;
    // SAFETY: the message has one part, which is all of `buffer`, and all of `control`, which is aligned as its headers are; both live on.
    let len = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0) };
    let len = usize::try_from(len).map_err(|_negative| io::Error::last_os_error())?;
    // SAFETY: the kernel has set the lengths in `message` to what it wrote to `control`, whole headers with their data.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    let tells = first.filter(|header| (header.cmsg_level, header.cmsg_type) == (libc::IPPROTO_TCP, TCP_INQ));
    // SAFETY: behind a header of this type is one `int`, unaligned for all we know.
    let left = tells.map(|header| unsafe { libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned() });
    Ok((len, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disposition_of_sigpipe_is_read_from_the_kernel() {
        assert!(sigpipe_is_ignored(), "as the test harness is Rust's");
    }
}
