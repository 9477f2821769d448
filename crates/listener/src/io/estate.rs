//! What a running engine leaves to the process that takes its place.
//!
//! ## The raw tier
//!
//! The silenced listening sockets and the packet sockets change hands with all that the kernel keeps for them: the port stays
//! reserved, and the rings go on filling. The engine stops at some frame of each ring, and its successor goes on with that frame;
//! so every packet is judged once, by one of them.
//!
//! ## The bpf tier
//!
//! The programs' places on the devices change hands by a directory on a bpffs: the one in which they are pinned for good, or one that
//! is made for the occasion. The successor puts its own programs, with maps of their own, into the places in one step, while the
//! listening sockets stand; so every packet meets the programs of one of them.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The sockets of a raw engine, shared with it until it [hands over](super::Engine::hand_over).
#[derive(Debug, Default)]
pub struct Estate {
    /// The silenced listening sockets, by their address.
    pub reserved: Vec<(SocketAddr, OwnedFd)>,
    /// Of each worker, in the order in which the workers share out the packets: the tap for SYNs and the one for everything else.
    pub taps: Vec<[TapEstate; 2]>,
}

/// A packet socket and the shape of its ring.
#[derive(Debug)]
pub struct TapEstate {
    /// The socket.
    pub socket: OwnedFd,
    /// Frames in its ring.
    pub frames: u32,
    /// Bytes of a frame.
    pub frame_size: u32,
}

/// Where a bpf engine's programs are to be found.
#[derive(Debug)]
pub struct BpfEstate {
    /// A directory on a bpffs.
    pub dir: PathBuf,
    /// The lock of that directory, which both processes hold for a while.
    pub lock: OwnedFd,
}

/// Where one worker stopped, and its half-open connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bookmark {
    /// The frame of each of its two rings that is to be read next; means nothing in the bpf tier.
    pub next: [u32; 2],
    /// Its half-open entries as [`Listen::entries`](crate::Listen::entries) gives them.
    pub entries: Vec<u8>,
}
