//! How replies leave: as frames to where the segment came from, or as raw IP packets along the host's routes.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};
use wire::{REPLY_MAX_LEN, Reply};

use super::ring::VlanTag;
use super::sys::{self, BATCH_MAX, LinkAddress, Message};

/// Room for an 802.1Q tag before the IP header.
const TAG_LEN: usize = 4;

/// A worker's way out. Frames are collected and sent in batches of up to 64 with one system call.
pub(super) struct Transmit {
    frames: Socket,
    v4: Option<Socket>,
    v6: Option<Socket>,
    batch: Vec<Frame>,
    errors: u64,
}

struct Frame {
    to: LinkAddress,
    buffer: [u8; TAG_LEN + REPLY_MAX_LEN],
    start: usize,
    end: usize,
}

impl Transmit {
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW.
    pub(super) fn new() -> io::Result<Transmit> {
        // Protocol 0: this socket receives nothing.
        let frames = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        // Straight to the device: a flood's replies do not queue behind each other in a qdisc.
        sys::set_option(sys::fd(&frames), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
        let v4 = raw(Domain::IPV4)?;
        // A host may have no IPv6 at all.
        let v6 = raw(Domain::IPV6).ok();
        Ok(Transmit { frames, v4: Some(v4), v6, batch: Vec::with_capacity(BATCH_MAX), errors: 0 })
    }

    /// Answers a frame: on the interface and to the link address it came from, with the VLAN tag it had.
    pub(super) fn answer(&mut self, reply: &Reply, to: LinkAddress, vlan: Option<VlanTag>) {
        let mut frame = Frame { to, buffer: [0; TAG_LEN + REPLY_MAX_LEN], start: TAG_LEN, end: TAG_LEN };
        let mut packet = [0; REPLY_MAX_LEN];
        let len = reply.emit(&mut packet);
        frame.buffer[TAG_LEN..TAG_LEN + len].copy_from_slice(&packet[..len]);
        frame.end += len;
        let ether_type = match reply.tuple.peer.addr {
            IpAddr::V4(_) => libc::ETH_P_IP as u16,
            IpAddr::V6(_) => libc::ETH_P_IPV6 as u16,
        };
        frame.to.protocol = ether_type;
        if let Some(tag) = vlan {
            frame.to.protocol = tag.tpid;
            frame.buffer[..2].copy_from_slice(&tag.tci.to_be_bytes());
            frame.buffer[2..TAG_LEN].copy_from_slice(&ether_type.to_be_bytes());
            frame.start = 0;
        }
        self.batch.push(frame);
        if self.batch.len() >= BATCH_MAX {
            self.flush();
        }
    }

    /// Sends one packet along the host's routes, at once.
    ///
    /// The way for loopback, where a frame without a route is a martian, and for whatever does not answer a frame.
    /// `scope` is the interface of a link-local peer, else 0.
    pub(super) fn route(&mut self, reply: &Reply, scope: u32) {
        let mut packet = [0; REPLY_MAX_LEN];
        let len = reply.emit(&mut packet);
        // The port of a raw socket's address means nothing, and must be 0 for IPv6.
        let to = match reply.tuple.peer.addr {
            IpAddr::V4(addr) => SocketAddr::from((addr, 0)),
            IpAddr::V6(addr) => SocketAddrV6::new(addr, 0, 0, scope).into(),
        };
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let sent = socket.as_ref().map(|socket| sys::send_raw(socket, &packet[..len], to));
        if !matches!(sent, Some(Ok(()))) {
            self.errors += 1;
        }
    }

    /// Sends what was collected. A frame that the kernel does not take is counted and dropped: its client, or its timer,
    /// asks again.
    pub(super) fn flush(&mut self) {
        let mut rest = &self.batch[..];
        while !rest.is_empty() {
            let messages: Vec<Message<'_>> = rest
                .iter()
                .take(BATCH_MAX)
                .map(|frame| Message { to: frame.to, bytes: &frame.buffer[frame.start..frame.end] })
                .collect();
            let taken = sys::send_batch(sys::fd(&self.frames), &messages).unwrap_or(0);
            let failed = usize::from(taken < messages.len());
            self.errors += failed as u64;
            rest = &rest[taken + failed..];
        }
        self.batch.clear();
    }

    /// Packets the kernel did not take since the last call.
    pub(super) fn take_errors(&mut self) -> u64 {
        std::mem::take(&mut self.errors)
    }
}
