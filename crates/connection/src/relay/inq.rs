//! Reading from a TCP socket that tells at once whether there is more.
//!
//! A message that is relayed costs the call that reads it, the call that writes it, and on a socket that epoll watches by edges a third one
//! that finds nothing more. Fewer bytes than there is room for do not prove that the queue is empty: a read ends at TCP's urgent mark,
//! and what lies behind it would wait for the next segment. Told by the kernel (`TCP_INQ`, Linux 4.18), the third call is saved.

use std::io;
use std::os::fd::AsFd;

use super::sys;

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

/// Reads, and says besides what is left.
pub(super) fn read(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Left)> {
    let (len, left) = sys::recvmsg(socket, buffer)?;
    let left = match left {
        Some(0) => Left::Nothing,
        Some(_) => Left::Something,
        None => Left::Untold,
    };
    Ok((len, left))
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
