//! The system calls that no safe library wraps: each function is one of them, or one view of shared memory.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{self, ControlMessageOwned, MsgFlags};

/// A plain-data socket option: any bit pattern is a value, no padding.
///
/// # Safety
/// Implementors are `repr(C)` structs or integers without padding and without invalid bit patterns.
pub(super) unsafe trait OptionValue: Copy {}
// SAFETY: an integer.
unsafe impl OptionValue for i32 {}
// SAFETY: four unsigned integers of the same size.
unsafe impl OptionValue for libc::tpacket_req {}
// SAFETY: two unsigned integers of the same size.
unsafe impl OptionValue for libc::tpacket_stats {}

const PACKET_FANOUT_DATA: i32 = 22; // `linux/if_packet.h`.

/// [setsockopt(2)](https://man7.org/linux/man-pages/man2/setsockopt.2.html).
pub(super) fn set_option<T: OptionValue>(socket: BorrowedFd<'_>, level: i32, name: i32, value: T) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which lives through the call and holds no uninitialised bytes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

/// Gives the group of packet sockets that this one is in a classic program that says which member takes a packet (packet(7),
/// `PACKET_FANOUT_DATA`).
pub(super) fn set_fanout_program(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the pointer and length describe `program`, whose own pointer and length describe a slice; the kernel reads both during
    // the call alone.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_FANOUT_DATA,
            (&raw const program).cast::<c_void>(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

/// [getsockopt(2)](https://man7.org/linux/man-pages/man2/getsockopt.2.html) into a value that starts as `initial`.
pub(super) fn get_option<T: OptionValue>(socket: BorrowedFd<'_>, level: i32, name: i32, initial: T) -> io::Result<T> {
    let mut value = initial;
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`, and every bit pattern is a valid `T`.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast::<c_void>(), &raw mut len) };
    check(result).map(|_| value)
}

/// [bind(2)](https://man7.org/linux/man-pages/man2/bind.2.html) of a packet socket: all protocols, all interfaces.
pub(super) fn bind_packet(socket: BorrowedFd<'_>) -> io::Result<()> {
    let addr = LinkAddress { protocol: libc::ETH_P_ALL as u16, ..LinkAddress::default() }.to_raw();
    // SAFETY: the pointer and length describe `addr`, which lives through the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const addr).cast::<libc::sockaddr>(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

/// A link-layer address with its interface: `sockaddr_ll` of
/// [packet(7)](https://man7.org/linux/man-pages/man7/packet.7.html).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkAddress {
    pub interface: u32,
    /// EtherType in host order.
    pub protocol: u16,
    /// `PACKET_HOST` and its like.
    pub packet_type: u8,
    pub len: u8,
    pub bytes: [u8; 8],
}

impl LinkAddress {
    fn to_raw(self) -> libc::sockaddr_ll {
        libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: self.protocol.to_be(),
            sll_ifindex: self.interface as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: self.len,
            sll_addr: self.bytes,
        }
    }

    fn from_raw(raw: &libc::sockaddr_ll) -> LinkAddress {
        LinkAddress {
            interface: raw.sll_ifindex as u32,
            protocol: u16::from_be(raw.sll_protocol),
            packet_type: raw.sll_pkttype,
            len: raw.sll_halen.min(8),
            bytes: raw.sll_addr,
        }
    }
}

/// One message of [`send_batch`].
pub(super) struct Message<'a> {
    pub to: LinkAddress,
    pub bytes: &'a [u8],
}

/// Messages per call of [`send_batch`].
pub(super) const BATCH_MAX: usize = 64;

/// [sendmmsg(2)](https://man7.org/linux/man-pages/man2/sendmmsg.2.html), never blocking: how many of the first
/// [`BATCH_MAX`] messages the kernel took.
pub(super) fn send_batch(socket: BorrowedFd<'_>, messages: &[Message<'_>]) -> io::Result<usize> {
    let count = messages.len().min(BATCH_MAX);
    // SAFETY: all-zero is a valid value of these plain C structs.
    let (mut names, mut vectors, mut headers) = unsafe {
        (
            zeroed::<[libc::sockaddr_ll; BATCH_MAX]>(),
            zeroed::<[libc::iovec; BATCH_MAX]>(),
            zeroed::<[libc::mmsghdr; BATCH_MAX]>(),
        )
    };
    for (index, message) in messages[..count].iter().enumerate() {
        names[index] = message.to.to_raw();
        vectors[index] =
            libc::iovec { iov_base: message.bytes.as_ptr().cast_mut().cast::<c_void>(), iov_len: message.bytes.len() };
        let header = &mut headers[index].msg_hdr;
        header.msg_name = (&raw mut names[index]).cast::<c_void>();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        header.msg_iov = &raw mut vectors[index];
        header.msg_iovlen = 1;
    }
    // SAFETY: `count` headers are filled in; names, vectors and the bytes they point to live through the call, and
    // sendmmsg only reads the bytes.
    let sent =
        unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as libc::c_uint, libc::MSG_DONTWAIT) };
    check(sent).map(|sent| sent as usize)
}

/// The receive ring of a packet socket, version `TPACKET_V2`, shared with the kernel.
///
/// Reference: `Documentation/networking/packet_mmap.rst` of Linux.
pub(super) struct RingMemory {
    base: NonNull<u8>,
    len: usize,
    frame_size: usize,
}

// SAFETY: the mapping is owned by this value alone and is not tied to a thread.
unsafe impl Send for RingMemory {}

/// The header and bytes of one received frame.
pub(super) struct RingFrame<'a> {
    pub status: u32,
    /// Length of the packet on the wire, from its network header on.
    pub wire_len: usize,
    /// The captured part, from the network header on.
    pub bytes: &'a [u8],
    pub vlan_tci: u16,
    pub vlan_tpid: u16,
    pub from: LinkAddress,
}

impl RingMemory {
    /// [mmap(2)](https://man7.org/linux/man-pages/man2/mmap.2.html) of a ring that `PACKET_RX_RING` has set up.
    pub(super) fn map(socket: BorrowedFd<'_>, frame_count: usize, frame_size: usize) -> io::Result<RingMemory> {
        let len = frame_count * frame_size;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; nothing else refers to it.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(RingMemory { base, len, frame_size })
    }

    /// The frame at `index`, if the kernel has handed it over. It stays ours until [`release`](RingMemory::release).
    pub(super) fn frame(&self, index: usize) -> Option<RingFrame<'_>> {
        let start = self.start(index);
        let status = self.status(index).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the frame lies inside the mapping (see `start`) and is aligned to 16; with TP_STATUS_USER set, and
        // acquired above, the kernel does not write to it until it is released. `release` needs `&mut self`, so the
        // borrow of the bytes ends before.
        unsafe {
            let header = &*start.cast::<libc::tpacket2_hdr>();
            let link = start.add(HEADER_LEN).cast::<libc::sockaddr_ll>().read();
            let offset = usize::from(header.tp_net).min(self.frame_size);
            let captured = (header.tp_snaplen as usize).min(self.frame_size - offset);
            Some(RingFrame {
                status,
                wire_len: header.tp_len as usize,
                bytes: std::slice::from_raw_parts(start.add(offset), captured),
                vlan_tci: header.tp_vlan_tci,
                vlan_tpid: header.tp_vlan_tpid,
                from: LinkAddress::from_raw(&link),
            })
        }
    }

    /// Gives the frame at `index` back to the kernel.
    pub(super) fn release(&mut self, index: usize) {
        self.status(index).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }

    fn start(&self, index: usize) -> *mut u8 {
        assert!((index + 1) * self.frame_size <= self.len, "frame {index} lies outside the ring");
        // SAFETY: the offset was checked to lie inside the mapping.
        unsafe { self.base.as_ptr().add(index * self.frame_size) }
    }

    /// `tp_status`, the first word of a frame, which both sides write.
    fn status(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the word lies inside the mapping, is aligned (frames are multiples of 16), and is only ever accessed
        // atomically here.
        unsafe { AtomicU32::from_ptr(self.start(index).cast::<u32>()) }
    }
}

/// `TPACKET_ALIGN(sizeof(struct tpacket2_hdr))`: where the link address lies in a frame.
const HEADER_LEN: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(16);

impl Drop for RingMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `map` got; no reference into it can outlive `self`.
        unsafe {
            libc::munmap(self.base.as_ptr().cast::<c_void>(), self.len);
        }
    }
}

/// [sendto(2)](https://man7.org/linux/man-pages/man2/sendto.2.html) on a raw IP socket, never blocking.
pub(super) fn send_raw(socket: &socket2::Socket, packet: &[u8], to: SocketAddr) -> io::Result<()> {
    socket.send_to_with_flags(packet, &to.into(), libc::MSG_DONTWAIT).map(drop)
}

/// Nanoseconds of `CLOCK_BOOTTIME`: goes on during suspend, never jumps.
pub(super) fn boot_nanos() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// [sched_setscheduler(2)](https://man7.org/linux/man-pages/man2/sched_setscheduler.2.html) for the calling thread: at the lowest
/// real-time priority, or as every other thread.
///
/// Its children inherit neither. By `RLIMIT_RTPRIO` alone, without CAP_SYS_NICE, the mark that says so can be set and not be taken off: a
/// call that does not set it again fails whole.
pub(super) fn go_first(yes: bool) -> io::Result<()> {
    let (policy, sched_priority) = if yes { (libc::SCHED_RR, 1) } else { (libc::SCHED_OTHER, 0) };
    let parameters = libc::sched_param { sched_priority };
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the pointer is to a value that lives through the call; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) }).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// [recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html) of one byte, and the descriptor that came with it, if one did.
/// `None` at the end of the stream.
pub(super) fn receive_byte(socket: BorrowedFd<'_>) -> io::Result<Option<Option<OwnedFd>>> {
    let mut byte = [0];
    let mut bytes = [io::IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!(RawFd);
    let message = socket::recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)?;
    if message.bytes == 0 {
        return Ok(None);
    }
    let received = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(received) => received.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made it for us, and nobody else knows its number; so it is closed once, by its owner here.
    Ok(Some(received.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })))
}

/// A socket as the borrowed descriptor the functions here take.
pub(super) fn fd(socket: &socket2::Socket) -> BorrowedFd<'_> {
    socket.as_fd()
}
