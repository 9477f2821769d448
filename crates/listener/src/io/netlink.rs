//! The netlink protocol as far as sock_diag and rtnetlink need it: requests, answers, attributes.
//!
//! See [netlink(7)](https://man7.org/linux/man-pages/man7/netlink.7.html). All numbers are in host order.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt};
use nix::sys::time::TimeVal;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEADER_LEN: usize = 16;

/// The kernel fills answers of at most 32 KiB (`netlink_dump`), so a larger one is an error, not an allocation.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// How long the kernel may take to answer. It answers within the `send` call; only a lost answer takes this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What a request expects back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// One message.
    One,
    /// Nothing but the word that it was done.
    Ack,
    /// Any number of messages, then the end mark.
    Dump,
}

/// A netlink socket that talks to the kernel of the network namespace it was opened in, one request at a time.
#[derive(Debug)]
pub(super) struct Netlink {
    fd: OwnedFd,
    protocol: SockProtocol,
    sequence: u32,
    buffer: Box<[u8]>,
    /// The last exchange broke off, so answers to it may still be on their way, or a dump half done.
    broken: bool,
}

impl Netlink {
    /// Opens a socket for `protocol`, with a receive timeout, so that a request can never hang its thread.
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Netlink> {
        Ok(Netlink {
            fd: open_for_requests(protocol)?,
            protocol,
            sequence: 0,
            buffer: vec![0; ANSWER_MAX_BYTES].into_boxed_slice(),
            broken: false,
        })
    }

    /// Sends one request and calls `each` with the type and body of every message that answers it.
    ///
    /// # Errors
    ///
    /// The errno with which the kernel refused; `TimedOut` when no answer came; `InvalidData` for an answer that does not
    /// parse; `Interrupted` when what was dumped changed meanwhile, so that `each` may have missed some or seen some twice.
    pub(super) fn request(
        &mut self,
        kind: u16,
        expect: Expect,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        if self.broken {
            self.fd = open_for_requests(self.protocol)?;
        }
        self.broken = true;
        self.send(kind, expect, body)?;
        let mut dump_interrupted = false;
        loop {
            let len = receive(self.fd.as_fd(), &mut self.buffer)?;
            let step = read_answer(&self.buffer[..len], self.sequence, expect, &mut dump_interrupted, &mut each)?;
            if let Step::Finished(outcome) = step {
                self.broken = false;
                outcome?;
                return if dump_interrupted { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
            }
        }
    }

    fn send(&mut self, kind: u16, expect: Expect, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = NLM_F_REQUEST
            | match expect {
                Expect::One => 0,
                Expect::Ack => NLM_F_ACK,
                Expect::Dump => NLM_F_DUMP,
            };
        let mut message = Vec::with_capacity(HEADER_LEN + body.len());
        message.extend_from_slice(&((HEADER_LEN + body.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(body);
        socket::send(self.fd.as_raw_fd(), &message, MsgFlags::empty())?;
        Ok(())
    }
}

/// Whether more of the answer is to come.
enum Step {
    More,
    /// The answer is complete; the kernel refused if it is an error.
    Finished(io::Result<()>),
}

fn read_answer(
    datagram: &[u8],
    sequence: u32,
    expect: Expect,
    dump_interrupted: &mut bool,
    each: &mut impl FnMut(u16, &[u8]),
) -> io::Result<Step> {
    for message in Messages(datagram) {
        let message = message?;
        if message.sequence != sequence {
            continue;
        }
        *dump_interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.kind {
            NLMSG_ERROR => return Ok(Step::Finished(verdict(message.body))),
            // The end of a dump carries an error number too.
            NLMSG_DONE => {
                return Ok(Step::Finished(if message.body.is_empty() { Ok(()) } else { verdict(message.body) }));
            }
            kind => {
                each(kind, message.body);
                if expect == Expect::One {
                    return Ok(Step::Finished(Ok(())));
                }
            }
        }
    }
    Ok(Step::More)
}

/// The negative errno that starts an error message or ends a dump; 0 means success.
fn verdict(body: &[u8]) -> io::Result<()> {
    match read_u32(body, 0).map(|raw| raw as i32) {
        Some(0) => Ok(()),
        Some(raw) => Err(io::Error::from_raw_os_error(raw.wrapping_neg())),
        None => Err(malformed()),
    }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of one datagram. An error ends the walk.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = io::Result<Message<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.0);
        if rest.is_empty() {
            return None;
        }
        let len = read_u32(rest, 0).map_or(0, |len| len as usize);
        if rest.len() < HEADER_LEN || !(HEADER_LEN..=rest.len()).contains(&len) {
            return Some(Err(malformed()));
        }
        self.0 = rest.get(align(len)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([rest[4], rest[5]]),
            flags: u16::from_ne_bytes([rest[6], rest[7]]),
            sequence: u32::from_ne_bytes([rest[8], rest[9], rest[10], rest[11]]),
            body: &rest[HEADER_LEN..len],
        }))
    }
}

/// The attributes (`struct nlattr`) of a message body as pairs of type and value. What does not parse ends the walk.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        /// The two top bits of the type are flags: nested, byte order.
        const TYPE_MASK: u16 = 0x3fff;
        let rest = std::mem::take(&mut self.0);
        let len = usize::from(read_u16(rest, 0)?);
        let kind = read_u16(rest, 2)? & TYPE_MASK;
        let value = rest.get(4..len)?;
        self.0 = rest.get(align(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A netlink socket bound to multicast groups, non-blocking.
pub(super) fn open_for_events(protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let fd = open_raw(protocol, SockFlag::SOCK_NONBLOCK)?;
    socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

fn open_for_requests(protocol: SockProtocol) -> io::Result<OwnedFd> {
    let fd = open_raw(protocol, SockFlag::empty())?;
    // Connected to port 0, the kernel: no other process can send to this socket.
    socket::connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    let timeout = TimeVal::new(ANSWER_TIMEOUT.as_secs() as _, 0);
    socket::setsockopt(&fd, sockopt::ReceiveTimeout, &timeout)?;
    Ok(fd)
}

fn open_raw(protocol: SockProtocol, flags: SockFlag) -> io::Result<OwnedFd> {
    Ok(socket::socket(AddressFamily::Netlink, SockType::Raw, flags | SockFlag::SOCK_CLOEXEC, protocol)?)
}

fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // With MSG_TRUNC the return value is the length of the datagram, not of the part that fitted.
        match socket::recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Ok(len) if len > buffer.len() => return Err(malformed()),
            Ok(len) => return Ok(len),
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Messages and attributes start at multiples of four.
const fn align(len: usize) -> usize {
    (len + 3) & !3
}

pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "netlink message does not parse")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_LEN + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    /// Reads one datagram as the answer to request 7; gives the step, the interrupted flag and the bodies seen.
    fn read(datagram: &[u8], expect: Expect) -> (io::Result<Step>, bool, Vec<Vec<u8>>) {
        let (mut interrupted, mut seen) = (false, Vec::new());
        let step = read_answer(datagram, 7, expect, &mut interrupted, &mut |_, body| seen.push(body.to_vec()));
        (step, interrupted, seen)
    }

    #[test]
    fn dump_with_end_mark_is_finished() {
        let datagram =
            [message(20, 2, 7, b"one"), message(20, 2, 7, b"two!"), message(NLMSG_DONE, 2, 7, &[0; 4])].concat();
        let (step, interrupted, seen) = read(&datagram, Expect::Dump);
        assert!(matches!(step, Ok(Step::Finished(Ok(())))));
        assert!(!interrupted);
        assert_eq!(seen, [b"one".to_vec(), b"two!".to_vec()]);
    }

    #[test]
    fn dump_that_was_interrupted_says_so() {
        let (step, interrupted, _) = read(&message(20, 2 | NLM_F_DUMP_INTR, 7, b"one"), Expect::Dump);
        assert!(matches!(step, Ok(Step::More)));
        assert!(interrupted);
    }

    #[test]
    fn answer_to_an_earlier_request_is_skipped() {
        let (step, _, seen) = read(&message(20, 0, 6, b"late"), Expect::One);
        assert!(matches!(step, Ok(Step::More)));
        assert!(seen.is_empty());
    }

    #[test]
    fn error_message_becomes_its_errno() {
        let body = [(-libc::ENOENT).to_ne_bytes().as_slice(), &[0; 16]].concat();
        let (step, ..) = read(&message(NLMSG_ERROR, 0, 7, &body), Expect::One);
        let Ok(Step::Finished(Err(error))) = step else { panic!("no refusal") };
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_walk_and_never_a_panic() {
        let datagram = [message(20, 2, 7, b"four"), message(NLMSG_ERROR, 0, 7, &[0; 20])].concat();
        for len in 0..datagram.len() {
            let (step, _, seen) = read(&datagram[..len], Expect::Dump);
            assert!(!matches!(step, Ok(Step::Finished(_))), "cut at {len}");
            assert!(seen.len() <= 1);
        }
    }

    #[test]
    fn length_field_out_of_range_is_malformed() {
        for len in [0u32, 15, 21, u32::MAX] {
            let mut datagram = message(20, 0, 7, b"four");
            datagram[..4].copy_from_slice(&len.to_ne_bytes());
            assert!(read(&datagram, Expect::One).0.is_err(), "length {len}");
        }
    }

    #[test]
    fn attributes_stop_at_the_first_that_overruns() {
        let mut bytes = Vec::new();
        bytes.extend([7, 0, 3, 0x80, b'a', b'b', 0, 0]); // length 7, type 3 with the nested flag, value "ab\0", one pad
        bytes.extend([9, 0, 4, 0, b'x']); // says 5 bytes of value, has 1
        assert_eq!(Attributes(&bytes).collect::<Vec<_>>(), [(3, b"ab\0".as_slice())]);
        assert_eq!(Attributes(&[0, 0, 1, 0, 0, 0, 0, 0]).count(), 0);
    }
}
