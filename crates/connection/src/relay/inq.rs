//! Reading from a TCP socket that tells at once whether there is more.
//!
//! A message that is relayed costs the call that reads it, the call that writes it, and on a socket that epoll watches by edges a third one
//! that finds nothing more. Fewer bytes than there is room for do not prove that the queue is empty: a read ends at TCP's urgent mark,
//! and what lies behind it would wait for the next segment. Told by the kernel (`TCP_INQ`, Linux 4.18), the third call is saved.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};

/// Of `linux/tcp.h`: both the option and the type of the message.
const TCP_INQ: libc::c_int = 36;
/// `CMSG_SPACE` of one `int`, with room to spare: the socket may have been told to give other messages too.
const CONTROL_LEN: usize = 64;

/// Has the kernel tell with each [`read`] how much is left
/// ([tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html), `TCP_INQ`).
pub(super) fn tell(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (fd, len) = (socket.as_fd().as_raw_fd(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads one `int` at the address of one.
    let result = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, TCP_INQ, (&raw const on).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads, and says besides whether the queue is known to be empty now, with no FIN in it either
/// ([recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html)). Of a socket that does not [tell], it is not known.
pub(super) fn read(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
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
    Ok((len, left == Some(0)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use socket2::SockRef;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (sender, listener.accept().unwrap().0)
    }

    #[test]
    fn queue_is_known_to_be_empty_when_it_is_and_only_then() {
        let (mut sender, receiver) = pair();
        sender.write_all(b"hello").unwrap();
        assert_eq!(read(&receiver, &mut [0; 2]).unwrap(), (2, false), "it has not been asked to tell");
        tell(&receiver).unwrap();
        assert_eq!(read(&receiver, &mut [0; 2]).unwrap(), (2, false));
        assert_eq!(read(&receiver, &mut [0; 2]).unwrap(), (1, true));
    }

    #[test]
    fn behind_an_urgent_mark_and_before_a_fin_there_is_more() {
        let (mut sender, receiver) = pair();
        tell(&receiver).unwrap();
        sender.write_all(b"a").unwrap();
        SockRef::from(&sender).send_out_of_band(b"!").unwrap();
        sender.write_all(b"behind").unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(read(&receiver, &mut buffer).unwrap(), (1, false), "the urgent mark");
        assert_eq!(read(&receiver, &mut buffer).unwrap(), (6, false), "the FIN");
        assert_eq!(read(&receiver, &mut buffer).unwrap(), (0, false));
        assert_eq!((&receiver).read(&mut buffer).unwrap(), 0);
    }
}
