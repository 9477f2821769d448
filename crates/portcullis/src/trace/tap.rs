//! The taps: packet sockets that get a copy of what passes the filter, on its way in and out.
//!
//! They are ordinary sockets with a receive buffer of fixed size; what does not fit the kernel drops and counts. The server's own taps
//! and sockets are not touched: what is watched costs it the filter and the copy.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use ipnet::IpNet;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, MultiHeaders, recvmmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};
use wire::{Checksums, FourTuple, Packet};

use super::filter::{self, Sample, Share};
use super::flow::Seg;

/// Bytes of the receive buffer: some 5000 short packets, as the kernel counts their memory. Without CAP_NET_ADMIN it is
/// `net.core.rmem_max` at most.
const BUFFER_BYTES: usize = 4 << 20;

/// Packets of one system call.
const BATCH: usize = 64;

/// IP and TCP headers with all their options fit.
const SNAP_LEN: usize = 128;

/// Not for this host, seen because an interface listens to everything.
const PACKET_OTHERHOST: u8 = 3;

/// A segment as the tap saw it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Since the Unix epoch, by the kernel's stamp.
    pub at: Duration,
    pub interface: u32,
    /// `local` is its destination, `peer` its source.
    pub tuple: FourTuple,
    pub seg: Seg,
}

/// One packet socket.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
    share: Share,
    buffers: Vec<[u8; SNAP_LEN]>,
    /// The kernel's count, which wraps around.
    last_drop_count: u32,
    drop_count: u64,
}

impl Tap {
    /// A tap for all interfaces. It takes everything until [`filter`](Tap::filter) was called.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW.
    pub fn open(share: Share) -> io::Result<Tap> {
        let all = i32::from((libc::ETH_P_ALL as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(all)))?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
        }
        Ok(Tap { socket, share, buffers: vec![[0; SNAP_LEN]; BATCH], last_drop_count: 0, drop_count: 0 })
    }

    /// Sets the filter, in place of the one that was there, in one step.
    pub fn filter(&self, guarded: &[SocketAddr], peer: Option<IpNet>, sample: Sample) -> io::Result<()> {
        self.socket.attach_filter(&filter::program(guarded, peer, self.share, sample))
    }

    /// Packets that came faster than they were read, since it was opened, as far as the kernel has told.
    pub fn drop_count(&self) -> u64 {
        self.drop_count
    }

    /// Reads what has come, one batch at most; returns how many packets that were.
    pub fn read(&mut self, into: &mut Vec<Seen>) -> io::Result<usize> {
        let mut headers = MultiHeaders::<LinkAddr>::preallocate(BATCH, Some(cmsg_space!(libc::timespec, u32)));
        let mut slices: Vec<_> = self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        // MSG_TRUNC: the length of the whole packet, however little is copied.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let messages = match recvmmsg(self.socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) {
            Ok(messages) => messages,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
            // An interface went down. The others go on.
            Err(Errno::ENETDOWN) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let mut count = 0;
        for message in messages {
            count += 1;
            let mut at = Duration::ZERO;
            for control in message.cmsgs()? {
                match control {
                    ControlMessageOwned::ScmTimestampns(stamp) => at = since_epoch(stamp),
                    ControlMessageOwned::RxqOvfl(drops) => {
                        self.drop_count += u64::from(drops.wrapping_sub(self.last_drop_count));
                        self.last_drop_count = drops;
                    }
                    _ => {}
                }
            }
            let Some(link) = message.address.filter(|link| link.pkttype() != PACKET_OTHERHOST) else { continue };
            let Some(bytes) = message.iovs().next() else { continue };
            // Whose sum is wrong, the kernel sorts out; and of what is sent here it is not computed yet.
            let Ok(packet) = Packet::parse_ip(bytes, message.bytes, Checksums::Trust) else { continue };
            into.push(Seen {
                at,
                interface: link.ifindex() as u32,
                tuple: packet.tuple,
                seg: Seg::of(&packet.segment),
            });
        }
        Ok(count)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn since_epoch(stamp: TimeSpec) -> Duration {
    let seconds = u64::try_from(stamp.tv_sec()).unwrap_or(0);
    Duration::new(seconds, u32::try_from(stamp.tv_nsec()).unwrap_or(0).min(999_999_999))
}
