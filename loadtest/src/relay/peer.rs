//! What both ends of a relay share: the bytes that choose what the upstream does, and how bulk is made and thrown away.

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, recv};

/// Bytes of a small request, and of its answer.
pub const REQUEST_LEN: usize = 64;

/// Bytes handed to the kernel, or thrown away, at a time.
const BULK_LEN: usize = 1 << 20;

/// What a connection is for: the first byte that the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The upstream throws away what it gets.
    Sink = b'S',
    /// The upstream sends for as long as somebody takes it.
    Source = b'D',
    /// The upstream sends back what it gets.
    Echo = b'E',
}

impl Purpose {
    /// By the first byte.
    pub fn of(first: u8) -> Option<Purpose> {
        [Purpose::Sink, Purpose::Source, Purpose::Echo].into_iter().find(|purpose| *purpose as u8 == first)
    }
}

/// Makes bulk and throws it away, without copying it.
#[derive(Debug)]
pub struct Bulk {
    pages: File,
    unread: Vec<u8>,
}

impl Bulk {
    /// Bulk whose first byte, and every other, says [`Purpose::Sink`].
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> io::Result<Bulk> {
        let mut pages = File::from(memfd_create(c"bulk", MFdFlags::MFD_CLOEXEC)?);
        pages.write_all(&vec![Purpose::Sink as u8; BULK_LEN])?;
        Ok(Bulk { pages, unread: vec![0; BULK_LEN] })
    }

    /// Sends as much as the socket takes; `None`: nothing, for now.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&self, to: &TcpStream) -> io::Result<Option<usize>> {
        let mut offset = 0;
        unless_blocked(sendfile(to.as_fd(), &self.pages, Some(&mut offset), BULK_LEN))
    }

    /// Throws away what has come, unread (tcp(7), `MSG_TRUNC`); `None`: nothing has. 0: it was the end.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn discard(&mut self, from: &TcpStream) -> io::Result<Option<usize>> {
        unless_blocked(recv(from.as_raw_fd(), &mut self.unread, MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT))
    }
}

fn unless_blocked(outcome: nix::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(len) => Ok(Some(len)),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
