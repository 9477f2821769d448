//! The stages of an adoption. Each is a type, and each step consumes one and gives the next, so no order but the right one compiles.
//!
//! ```text
//! Prepared ──connect──► Connected ──configure──► Muted ──unmute──► Live ──release──► TcpStream
//!                                                  ▲               │
//!                                                  └──────mute─────┘
//! ```
//!
//! A stage that is dropped vanishes without a packet: closing a socket in repair mode sends nothing.

use std::io;
use std::net::{SocketAddr, SocketAddrV6, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::time::Duration;

use listener::{Accepted, Refusal, TcpState};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use wire::{Endpoint, SeqNum};

use crate::sys::{self, Queue, Repair, RepairOption, RepairWindow};

/// Bounds of `TCP_MAXSEG` in the kernel: `TCP_MIN_MSS` and `MAX_TCP_WINDOW`.
const MAXSEG_RANGE: (u32, u32) = (88, 32767);

/// Early data goes into the receive queue in one piece, or in halves of it when memory is short, down to this size.
const CHUNK_MIN_BYTES: usize = 256;

/// Makes the socket drop all packets.
///
/// One eBPF program serves all sockets, where the kernel lets us load it. Else each gets a classic program of its own, which
/// the kernel compiles anew each time: that nearly doubles what an adoption costs.
fn attach_drop_all(socket: &Socket) -> io::Result<()> {
    static PROGRAM: LazyLock<Option<OwnedFd>> = LazyLock::new(|| sys::load_drop_all().ok());
    /// `BPF_RET | BPF_K` with 0: keep no byte of the packet.
    const RET_0: SockFilter = SockFilter::new(0x06, 0, 0, 0);
    match &*PROGRAM {
        Some(program) => sys::attach_program(socket, program),
        None => socket.attach_filter(&[RET_0]),
    }
}

/// In repair mode, with its sequence numbers, deaf to all packets, and not yet anybody's connection.
#[derive(Debug)]
pub(super) struct Prepared {
    socket: Socket,
}

impl Prepared {
    pub(super) fn new(accepted: &Accepted) -> io::Result<Prepared> {
        let domain = if accepted.tuple.local.addr.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        sys::set_repair(&socket, Repair::On)?;
        sys::set_repair_queue(&socket, Queue::Send)?;
        sys::set_queue_seq(&socket, accepted.iss + 1)?;
        // The receive queue comes second because it stays selected, for what is injected later.
        sys::set_repair_queue(&socket, Queue::Receive)?;
        sys::set_queue_seq(&socket, accepted.irs + 1)?;
        // `connect` computes the segment size for good from what it knows of the peer, which is this: without it, 536 bytes.
        // `TCP_REPAIR_OPTIONS` comes too late for that.
        let (min, max) = MAXSEG_RANGE;
        socket.set_tcp_mss(u32::from(accepted.options.peer_mss).clamp(min, max))?;
        // From `connect` on the kernel would find this socket and take in segments whose options it does not know yet.
        attach_drop_all(&socket)?;
        Ok(Prepared { socket })
    }

    /// Takes the 4-tuple. No packet leaves.
    ///
    /// # Errors
    ///
    /// [`Refusal::TupleBusy`] when the kernel holds the 4-tuple already.
    pub(super) fn connect(self, accepted: &Accepted) -> Result<Connected, Refusal> {
        // EADDRNOTAVAIL here means an address that is not ours any more, not one that is taken: repair mode forces its reuse.
        self.socket.bind(&address(accepted.tuple.local, accepted.scope_id)).map_err(|error| refusal(&error))?;
        match self.socket.connect(&address(accepted.tuple.peer, accepted.scope_id)) {
            Ok(()) => Ok(Connected { socket: self.socket }),
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Err(Refusal::TupleBusy),
            Err(error) => Err(refusal(&error)),
        }
    }
}

/// In ESTABLISHED as far as the kernel is concerned, with the kernel's idea of options and windows.
#[derive(Debug)]
pub(super) struct Connected {
    socket: Socket,
}

impl Connected {
    /// Puts what the handshake agreed on in the place of the kernel's own idea.
    pub(super) fn configure(self, accepted: &Accepted) -> io::Result<Muted> {
        self.set_options(accepted)?;
        if let Some(timestamps) = accepted.options.timestamps {
            sys::set_timestamp(&self.socket, millisecond_clock(timestamps.local))?;
        }
        sys::set_repair_window(&self.socket, &window(accepted))?;
        self.socket.set_tcp_nodelay(true)?;
        Ok(Muted { socket: self.socket, start: accepted.irs + 1 })
    }

    fn set_options(&self, accepted: &Accepted) -> io::Result<()> {
        let agreed = &accepted.options;
        // Always given: without it the socket would keep the shift it would have liked, and tell a peer that scales nothing
        // a window 128 times too small. Two shifts of 0 are the same as no scaling.
        let (peer, local) = agreed.peer_wscale.zip(agreed.local_wscale).unwrap_or_default();
        let options = [
            Some(RepairOption::mss(agreed.peer_mss)),
            Some(RepairOption::window_scale(peer, local)),
            agreed.sack.then_some(RepairOption::SACK),
            agreed.timestamps.map(|_| RepairOption::TIMESTAMPS),
        ];
        sys::set_repair_options(&self.socket, &options.into_iter().flatten().collect::<Vec<_>>())
    }
}

/// Complete but for the peer's early data; drops all packets, so that nothing but [`inject`](Muted::inject) adds to its receive queue.
#[derive(Debug)]
pub(super) struct Muted {
    socket: Socket,
    /// Sequence number of the peer's first byte.
    start: SeqNum,
}

impl Muted {
    /// Appends bytes to the receive queue, as many of them as there is memory for, and says how many.
    pub(super) fn inject(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        let mut chunk = bytes.len();
        while done < bytes.len() {
            let end = bytes.len().min(done + chunk);
            match self.socket.send(&bytes[done..end]) {
                Ok(len) => done += len,
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && chunk > CHUNK_MIN_BYTES => chunk /= 2,
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// How many bytes from the peer the socket has, a FIN counted as one.
    pub(super) fn received(&self) -> io::Result<usize> {
        received(&self.socket, self.start)
    }

    /// The same without a FIN.
    pub(super) fn received_data(&self) -> io::Result<usize> {
        let fin = usize::from(sys::tcp_state(&self.socket)? == TcpState::CloseWait);
        Ok(self.received()?.saturating_sub(fin))
    }

    /// A TSval behind all that the socket may have sent.
    pub(super) fn clock(&self) -> io::Result<u32> {
        Ok(millisecond_clock(sys::timestamp(&self.socket)?.wrapping_add(1)))
    }

    /// Lets packets in.
    pub(super) fn unmute(self) -> io::Result<Live> {
        self.socket.detach_filter()?;
        Ok(Live { socket: self.socket, start: self.start })
    }

    /// Gives the connection up with a RST, so that the peer knows.
    pub(super) fn reset(self) -> io::Result<()> {
        self.socket.set_linger(Some(Duration::ZERO))?;
        sys::set_repair(&self.socket, Repair::Off)
    }
}

/// Complete, and taking in packets as any connection does.
#[derive(Debug)]
pub(super) struct Live {
    socket: Socket,
    start: SeqNum,
}

impl Live {
    /// How many bytes from the peer the socket has, a FIN counted as one.
    pub(super) fn received(&self) -> io::Result<usize> {
        received(&self.socket, self.start)
    }

    /// Drops all packets again; gives the connection back as it is when there is no memory for that.
    pub(super) fn mute(self) -> Result<Muted, Live> {
        match attach_drop_all(&self.socket) {
            Ok(()) => Ok(Muted { socket: self.socket, start: self.start }),
            Err(_) => Err(self),
        }
    }

    /// Leaves repair mode: the socket is now as if it had come from `accept(2)`, non-blocking.
    pub(super) fn release(self) -> io::Result<TcpStream> {
        sys::set_repair(&self.socket, Repair::Off)?;
        // Leaving repair mode forbids the reuse of the address, and a listener that restarts could not bind it.
        self.socket.set_reuse_address(true)?;
        Ok(self.socket.into())
    }
}

fn received(socket: &Socket, start: SeqNum) -> io::Result<usize> {
    let next = sys::queue_seq(socket)?;
    // Behind the start only if the kernel were broken; 0 then.
    Ok(usize::try_from(next.distance_from(start)).unwrap_or(0))
}

/// Both windows as the last segments of the handshake left them.
fn window(accepted: &Accepted) -> RepairWindow {
    let next = (accepted.irs + 1).value();
    RepairWindow {
        snd_wl1: next,
        snd_wnd: accepted.peer_window,
        max_window: accepted.peer_window,
        rcv_wnd: accepted.local_window,
        rcv_wup: next,
    }
}

/// The next even number: an odd one would make the clock tick in microseconds (see [`sys::set_timestamp`]), and the peer's PAWS
/// then takes the connection for a ghost after half an hour of silence. Up, not down, lest the clock run backwards.
fn millisecond_clock(tsval: u32) -> u32 {
    tsval.wrapping_add(tsval & 1)
}

fn address(end: Endpoint, scope_id: u32) -> SockAddr {
    socket_addr(end, scope_id).into()
}

/// The scope is for link-local addresses; for others the listener gives 0.
pub(super) fn socket_addr(end: Endpoint, scope_id: u32) -> SocketAddr {
    match SocketAddr::from(end) {
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope_id).into(),
        v4 => v4,
    }
}

/// Sorts an error of a system call.
pub(super) fn refusal(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Refusal::NoDescriptors,
        Some(libc::ENOBUFS | libc::ENOMEM) => Refusal::NoMemory,
        Some(errno) => Refusal::System(errno),
        None => Refusal::System(libc::EIO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_even_and_never_earlier() {
        for (given, set) in [(0, 0), (1, 2), (2, 2), (u32::MAX, 0), (u32::MAX - 1, u32::MAX - 1)] {
            assert_eq!(millisecond_clock(given), set, "{given}");
        }
    }

    #[test]
    fn errors_are_sorted_by_what_is_short() {
        let of = |errno| refusal(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::EMFILE), Refusal::NoDescriptors);
        assert_eq!(of(libc::ENFILE), Refusal::NoDescriptors);
        assert_eq!(of(libc::ENOBUFS), Refusal::NoMemory);
        assert_eq!(of(libc::ENOMEM), Refusal::NoMemory);
        assert_eq!(of(libc::EPERM), Refusal::System(libc::EPERM));
        assert_eq!(of(libc::EADDRNOTAVAIL), Refusal::System(libc::EADDRNOTAVAIL));
    }
}
