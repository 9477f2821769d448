//! Descriptors over a Unix socket: [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html), `SCM_RIGHTS`.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::sys;

/// Sends a descriptor, with one byte of its own.
///
/// # Errors
/// Of sendmsg(2); `WouldBlock` after the socket's timeout.
pub fn send_descriptor(stream: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [descriptor.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&[0])], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives a descriptor that [`send_descriptor`] sent.
///
/// # Errors
/// Of recvmsg(2), among them `WouldBlock` after the socket's timeout; `UnexpectedEof`; `InvalidData` where a byte comes without
/// a descriptor, which is so too when this process may have no more of them.
pub fn recv_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let received = sys::receive_byte(stream.as_fd())?.ok_or(io::ErrorKind::UnexpectedEof)?;
    received.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no descriptor came"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_descriptor_that_was_sent_is_the_same_file_at_the_other_end() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send_descriptor(&here, writer.as_fd()).unwrap();
        drop(writer);
        std::fs::File::from(recv_descriptor(&there).unwrap()).write_all(b"hello").unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap(); // To the end: nobody else has the other side.
        assert_eq!(read, "hello");
    }

    #[test]
    fn a_byte_alone_and_an_end_are_errors() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&[0]).unwrap();
        assert_eq!(recv_descriptor(&there).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(here);
        assert_eq!(recv_descriptor(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
