//! The system calls that no safe library wraps: each function is one of them, or one view of shared memory.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use testnet::set_option;

use super::template::FRAME_MAX;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Has a packet socket send what a ring has in it.
pub fn send_ring(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: without a buffer, the kernel reads the ring alone.
    let sent = unsafe { libc::send(socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The transmit ring of a packet socket, version `TPACKET_V2`, shared with the kernel.
///
/// Reference: `Documentation/networking/packet_mmap.rst` of Linux.
#[derive(Debug)]
pub struct TxMemory {
    base: NonNull<u8>,
    slots: usize,
}

// SAFETY: the mapping is owned by this value alone and is not tied to a thread.
unsafe impl Send for TxMemory {}

/// Of header, frame, and filling.
const SLOT_LEN: usize = 256;
/// `TPACKET2_HDRLEN - sizeof(struct sockaddr_ll)`: where the kernel looks for the frame.
const FRAME_AT: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(16);
const BLOCK_LEN: usize = 1 << 16;
const _: () = assert!(FRAME_AT + FRAME_MAX <= SLOT_LEN);

impl TxMemory {
    /// Gives the socket a ring of so many slots, a multiple of 256, and maps it.
    pub fn new(socket: BorrowedFd<'_>, slots: usize) -> io::Result<TxMemory> {
        set_option(socket, libc::SOL_PACKET, libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as i32)?;
        let len = slots * SLOT_LEN;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: (len / BLOCK_LEN) as u32,
            tp_frame_size: SLOT_LEN as u32,
            tp_frame_nr: slots as u32,
        };
        let request_len = size_of::<libc::tpacket_req>() as libc::socklen_t;
        let (fd, at) = (socket.as_raw_fd(), (&raw const request).cast::<c_void>());
        // SAFETY: the request lives until the call returns, and the length is its own.
        check(unsafe { libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_TX_RING, at, request_len) })?;
        let (protection, none) = (libc::PROT_READ | libc::PROT_WRITE, std::ptr::null_mut());
        // SAFETY: a fresh shared mapping at an address of the kernel's choice; nothing else refers to it.
        let base = unsafe { libc::mmap(none, len, protection, libc::MAP_SHARED, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(TxMemory { base, slots })
    }

    /// Puts a frame into a slot for the kernel to send; `false` when the kernel still has the slot.
    pub fn put(&mut self, slot: usize, frame: &[u8; FRAME_MAX], len: usize) -> bool {
        if self.status(slot).load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE {
            return false;
        }
        // SAFETY: the slot lies inside the mapping (see `start`), is aligned to 16, has room for header and frame (see the assertion
        // above), and is ours while its status is TP_STATUS_AVAILABLE.
        unsafe {
            let start = self.start(slot);
            (&raw mut (*start.cast::<libc::tpacket2_hdr>()).tp_len).write(len as u32);
            start.add(FRAME_AT).cast::<[u8; FRAME_MAX]>().write(*frame);
        }
        self.status(slot).store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
        true
    }

    /// Whether the frame in a slot waits for the kernel to look at it.
    pub fn is_waiting(&self, slot: usize) -> bool {
        self.status(slot).load(Ordering::Acquire) == libc::TP_STATUS_SEND_REQUEST
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots
    }

    fn start(&self, slot: usize) -> *mut u8 {
        assert!(slot < self.slots, "slot {slot} lies outside the ring");
        // SAFETY: the offset was checked to lie inside the mapping.
        unsafe { self.base.as_ptr().add(slot * SLOT_LEN) }
    }

    /// `tp_status`, the first word of a slot, which both sides write.
    fn status(&self, slot: usize) -> &AtomicU32 {
        // SAFETY: the word lies inside the mapping, is aligned, and is only ever accessed atomically here.
        unsafe { AtomicU32::from_ptr(self.start(slot).cast::<u32>()) }
    }
}

impl Drop for TxMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` got; no reference into it can outlive `self`.
        unsafe {
            libc::munmap(self.base.as_ptr().cast::<c_void>(), self.slots * SLOT_LEN);
        }
    }
}

/// An offload of an interface, with the number of the request that switches it (`linux/ethtool.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// `ETHTOOL_SGRO`: segments that are received are put together.
    GenericReceive = 0x2c,
    /// `ETHTOOL_STSO`: TCP hands over segments larger than the MTU.
    TcpSegmentation = 0x1f,
}

/// Switches an offload by [ioctl(2)](https://man7.org/linux/man-pages/man2/ioctl.2.html), `SIOCETHTOOL`.
pub fn set_offload(socket: BorrowedFd<'_>, interface: &str, offload: Offload, on: bool) -> io::Result<()> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946; // `linux/sockios.h`.
    let mut value = [offload as u32, u32::from(on)];
    // SAFETY: ifreq is plain data, for which zero bytes are a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
    // SAFETY: the kernel reads the request and the two words it points to, which live until the call returns.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) }).map(drop)
}
