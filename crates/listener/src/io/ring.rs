//! The tap: a packet socket with a receive ring, which sees what the network stack sees, before it does.
//!
//! `TPACKET_V2` hands over frame by frame, so a lone SYN is answered at once; version 3 would hold it back until a block
//! is full or a timer of the kernel's fires. A `SOCK_DGRAM` socket begins every packet at its IP header, whatever the
//! link layer is: Ethernet, loopback, or none at all (tun).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use wire::Checksums;

use super::estate::TapEstate;
use super::filter::{self, Share};
use super::sieve::Sieve;
use super::sys::{self, LinkAddress, RingFrame, RingMemory};

/// The shape of a ring: how many frames wait between the kernel and a worker. At the bound the kernel drops, and counts,
/// the newest.
#[derive(Clone, Copy, Debug)]
struct Shape {
    frames: usize,
    frame_size: usize,
}

impl Shape {
    const fn of(share: Share) -> Shape {
        match share {
            // 8 MiB: four milliseconds at a million SYNs per second.
            Share::Syns => Shape { frames: 4096, frame_size: 2048 },
            // 8 MiB. A frame holds a first flight of ten Ethernet segments that the sender put together.
            Share::Others => Shape { frames: 512, frame_size: 16 * 1024 },
        }
    }
}

/// A frame begins with `tpacket2_hdr`, `sockaddr_ll` and alignment, 80 bytes in all on Linux 6.18.
const FRAME_HEADER_MAX: usize = 112;

const _: () = assert!(Shape::of(Share::Syns).frame_size >= Share::Syns.snap_len() as usize + FRAME_HEADER_MAX);
const _: () = assert!(Shape::of(Share::Others).frame_size >= Share::Others.snap_len() as usize + FRAME_HEADER_MAX);

const BLOCK_SIZE: usize = 64 * 1024;

// `linux/if_packet.h`.
const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const TP_STATUS_CSUM_VALID: u32 = 1 << 7;
const PACKET_HOST: u8 = 0;
const PACKET_IGNORE_OUTGOING: i32 = 23;
const TPACKET_V2: i32 = 1;

/// A packet as the tap saw it.
pub(super) struct Captured<'a> {
    /// From the IP header on, as much as was captured.
    pub bytes: &'a [u8],
    /// Length on the wire, from the IP header on.
    pub wire_len: usize,
    /// Whether the checksums are still to be verified.
    pub checksums: Checksums,
    pub vlan: Option<VlanTag>,
    /// Whether the link layer addressed it to this host alone.
    pub to_us: bool,
    /// Who sent it: where an answer goes.
    pub from: LinkAddress,
}

/// An 802.1Q tag that the device took off the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VlanTag {
    pub tci: u16,
    pub tpid: u16,
}

impl VlanTag {
    /// VLAN identifier; 0 is a priority tag, which names no VLAN.
    pub(super) fn id(self) -> u16 {
        self.tci & 0x0fff
    }
}

/// One worker's tap for its share of the packets.
pub(super) struct Ring {
    memory: RingMemory,
    share: Share,
    shape: Shape,
    next: usize,
    socket: Arc<Socket>,
}

/// A ring's socket, for whoever wants to give it away while the ring is read.
#[derive(Debug)]
pub(super) struct Tap {
    socket: Arc<Socket>,
    shape: Shape,
}

impl Tap {
    /// What a successor needs to [`inherit`](Ring::inherit) the ring.
    ///
    /// # Errors
    /// Of dup(2).
    pub(super) fn estate(&self) -> io::Result<TapEstate> {
        let Shape { frames, frame_size } = self.shape;
        let socket = self.socket.as_fd().try_clone_to_owned()?;
        Ok(TapEstate { socket, frames: frames as u32, frame_size: frame_size as u32 })
    }
}

impl Ring {
    /// A tap that lets nothing through yet: see [`Ring::open_for`].
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW; `OutOfMemory` where the ring does not fit.
    pub(super) fn new(share: Share) -> io::Result<Ring> {
        let shape = Shape::of(share);
        // Protocol 0: no packet arrives before `bind` names one.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        filter::attach(&socket, &filter::drop_all())?;
        let fd = sys::fd(&socket);
        sys::set_option(fd, libc::SOL_PACKET, libc::PACKET_VERSION, TPACKET_V2)?;
        // Loopback would show each packet twice, once on its way out.
        sys::set_option(fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_SIZE as u32,
            tp_block_nr: (shape.frames * shape.frame_size / BLOCK_SIZE) as u32,
            tp_frame_size: shape.frame_size as u32,
            tp_frame_nr: shape.frames as u32,
        };
        sys::set_option(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, request)?;
        let memory = RingMemory::map(fd, shape.frames, shape.frame_size)?;
        sys::bind_packet(fd)?;
        Ok(Ring { memory, share, shape, next: 0, socket: Arc::new(socket) })
    }

    /// A predecessor's tap, ring and all. What is in the ring is read from [`Ring::begin_at`] on.
    ///
    /// # Errors
    /// `InvalidInput` where the ring is not of the shape that it is said to have.
    pub(super) fn inherit(left: TapEstate, share: Share) -> io::Result<Ring> {
        let TapEstate { socket, frames, frame_size } = left;
        let shape = Shape { frames: frames as usize, frame_size: frame_size as usize };
        let socket = Socket::from(socket);
        // The kernel maps a ring as a whole or not at all.
        let memory = RingMemory::map(sys::fd(&socket), shape.frames, shape.frame_size)?;
        Ok(Ring { memory, share, shape, next: 0, socket: Arc::new(socket) })
    }

    /// Its socket.
    pub(super) fn tap(&self) -> Tap {
        Tap { socket: self.socket.clone(), shape: self.shape }
    }

    /// The frame that is read next.
    pub(super) fn next(&self) -> usize {
        self.next
    }

    /// Goes on where a predecessor stopped.
    pub(super) fn begin_at(&mut self, next: usize) {
        self.next = next % self.capacity();
    }

    /// Makes this the first of a group whose members share the packets, by [`Ring::share_out`]; until then it gets them all.
    ///
    /// Inside a group only the group's own flag keeps outgoing packets away; Linux before 5.6 does not have it, and there
    /// they are recognised one by one.
    pub(super) fn found_group(&self) -> io::Result<Group> {
        let quiet = FANOUT_FLAG_IGNORE_OUTGOING;
        let flags = self.fanout(0, quiet | FANOUT_FLAG_UNIQUEID).map(|()| quiet);
        let flags = flags.or_else(|_| self.fanout(0, FANOUT_FLAG_UNIQUEID).map(|()| 0))?;
        let fanout = sys::get_option(sys::fd(&self.socket), libc::SOL_PACKET, libc::PACKET_FANOUT, 0)?;
        Ok(Group { id: fanout & 0xffff, flags })
    }

    /// Joins a group, whose members are numbered as they join.
    pub(super) fn join_group(&self, group: Group) -> io::Result<()> {
        self.fanout(group.id, group.flags)
    }

    fn fanout(&self, id: i32, flags: i32) -> io::Result<()> {
        let wanted = id | (FANOUT_CBPF | flags) << 16;
        sys::set_option(sys::fd(&self.socket), libc::SOL_PACKET, libc::PACKET_FANOUT, wanted)
    }

    /// Has this program say which member of the group takes a packet.
    pub(super) fn share_out(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        sys::set_fanout_program(sys::fd(&self.socket), program)
    }

    /// Opens the tap for these guarded addresses, in one step.
    pub(super) fn open_for(&self, guarded: &[SocketAddr], segment_max: u32) -> io::Result<()> {
        filter::attach(&self.socket, &filter::tap(guarded, self.share, segment_max))
    }

    /// Opens the tap, with an eBPF filter.
    pub(super) fn open_with(&self, sieve: &mut Sieve) -> io::Result<()> {
        sieve.attach(&self.socket, self.share)
    }

    /// Hands the next packet, if there is one, to `use_packet`, then gives its frame back. `false` when there is none.
    pub(super) fn with_next(&mut self, use_packet: impl FnOnce(Captured<'_>)) -> bool {
        let Some(frame) = self.memory.frame(self.next) else { return false };
        use_packet(captured(frame));
        self.memory.release(self.next);
        self.next = (self.next + 1) % self.capacity();
        true
    }

    /// Packets the kernel dropped because the ring was full, since the last call.
    pub(super) fn take_drops(&self) -> u64 {
        let none = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        sys::get_option(sys::fd(&self.socket), libc::SOL_PACKET, libc::PACKET_STATISTICS, none)
            .map_or(0, |stats| u64::from(stats.tp_drops))
    }

    /// Frames in the ring: no more than this many can have come before any given moment.
    pub(super) const fn capacity(&self) -> usize {
        self.shape.frames
    }
}

/// A group of taps that share the packets, as the kernel numbered it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    id: i32,
    flags: i32,
}

const FANOUT_CBPF: i32 = 6;
const FANOUT_FLAG_UNIQUEID: i32 = 0x2000;
const FANOUT_FLAG_IGNORE_OUTGOING: i32 = 0x4000;

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn captured(frame: RingFrame<'_>) -> Captured<'_> {
    // CSUMNOTREADY: a sender on this host, in a container or a guest left the sum to a device that never was.
    // CSUM_VALID: somebody below has checked it.
    let trusted = frame.status & (TP_STATUS_CSUMNOTREADY | TP_STATUS_CSUM_VALID) != 0;
    let tpid_known = frame.status & TP_STATUS_VLAN_TPID_VALID != 0;
    let vlan = (frame.status & TP_STATUS_VLAN_VALID != 0).then_some(VlanTag {
        tci: frame.vlan_tci,
        tpid: if tpid_known { frame.vlan_tpid } else { libc::ETH_P_8021Q as u16 },
    });
    Captured {
        bytes: frame.bytes,
        wire_len: frame.wire_len,
        checksums: if trusted { Checksums::Trust } else { Checksums::Verify },
        vlan,
        to_us: frame.from.packet_type == PACKET_HOST,
        from: frame.from,
    }
}
