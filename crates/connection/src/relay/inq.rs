//! Reading from a TCP socket that tells at once whether there is more.
//!
//! A message that is relayed costs the call that reads it, the call that writes it, and on a socket that epoll watches by edges a third one
//! that finds nothing more. Fewer bytes than there is room for do not prove that the queue is empty: a read ends at TCP's urgent mark,
//! and what lies behind it would wait for the next segment. Told by the kernel (`TCP_INQ`, Linux 4.18), the third call is saved.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use crate::sys::TCP_INQ;

/// `CMSG_SPACE` of one `int`, with room to spare: the socket may have been told to give other messages too.
const CONTROL_LEN: usize = 64;

/// What is left in a socket's queue when something has been taken out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing, and no FIN either.
    Nothing,
    /// Bytes, or a FIN.
    Something,
    /// The socket does not [tell](tell_when_empty).
    Untold,
}

/// Reads, and says besides what is left ([recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html)).
pub(super) fn read(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Left)> {
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
    Ok((
        len,
        match left {
            Some(0) => Left::Nothing,
            Some(_) => Left::Something,
            None => Left::Untold,
        },
    ))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use socket2::SockRef;

    use super::*;
    use crate::sys::tell_when_empty;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (sender, listener.accept().unwrap().0)
    }

    #[test]
    fn connections_tell_as_their_listener_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        tell_when_empty(&listener).unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sender.write_all(b"x").unwrap();
        assert_eq!(read(&listener.accept().unwrap().0, &mut [0; 2]).unwrap(), (1, Left::Nothing));
    }

    #[test]
    fn queue_is_known_to_be_empty_when_it_is_and_only_then() {
        let (mut sender, receiver) = pair();
        sender.write_all(b"hello").unwrap();
        assert_eq!(read(&receiver, &mut [0; 2]).unwrap(), (2, Left::Untold));
        tell_when_empty(&receiver).unwrap();
        assert_eq!(read(&receiver, &mut [0; 2]).unwrap(), (2, Left::Something));
        assert_eq!(read(&receiver, &mut [0; 2]).unwrap(), (1, Left::Nothing));
    }

    #[test]
    fn behind_an_urgent_mark_and_before_a_fin_there_is_more() {
        let (mut sender, receiver) = pair();
        tell_when_empty(&receiver).unwrap();
        sender.write_all(b"a").unwrap();
        SockRef::from(&sender).send_out_of_band(b"!").unwrap();
        sender.write_all(b"behind").unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(read(&receiver, &mut buffer).unwrap(), (1, Left::Something), "the urgent mark");
        assert_eq!(read(&receiver, &mut buffer).unwrap(), (6, Left::Something), "the FIN");
        assert_eq!(read(&receiver, &mut buffer).unwrap().0, 0);
        assert_eq!((&receiver).read(&mut buffer).unwrap(), 0);
    }
}
