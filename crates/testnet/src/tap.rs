//! A packet socket on an interface: frames out, TCP segments in.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};

use crate::link::Interface;
use crate::packet::Frame;
use crate::sys;
use crate::wait::readable;

/// Sends frames through an interface as they are, and sees what comes in through it.
///
/// Sees incoming frames alone: not those its own host sends.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
}

impl Tap {
    /// Opens a tap; frames are kept from now on.
    pub fn new(interface: &Interface) -> Tap {
        let socket = interface.namespace().run(|| {
            let socket = sys::packet_socket().expect("packet socket: CAP_NET_RAW is needed");
            for option in [libc::PACKET_IGNORE_OUTGOING, libc::PACKET_AUXDATA] {
                sys::set_option(socket.as_fd(), libc::SOL_PACKET, option, 1).expect("packet socket option");
            }
            sys::bind_packet(socket.as_fd(), interface.index(), libc::ETH_P_ALL as u16).expect("bind packet socket");
            socket
        });
        Tap { socket }
    }

    /// Sends one Ethernet frame.
    pub fn send(&self, frame: &[u8]) {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).expect("send a frame");
        assert_eq!(sent, frame.len());
    }

    /// The next TCP segment that came in, waiting for one until the deadline. Other frames are skipped.
    pub fn next(&self, deadline: Instant) -> Option<Frame> {
        let mut buffer = [0; 70_000];
        loop {
            match sys::receive_frame(self.socket.as_fd(), &mut buffer) {
                Ok(aux) => {
                    let frame = Frame::parse(&buffer[..aux.len], aux.vlan_tci, aux.checksum_unfinished);
                    if frame.is_some() {
                        return frame;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !readable(self.socket.as_fd(), deadline) {
                        return None;
                    }
                }
                Err(error) => panic!("receive a frame: {error}"),
            }
        }
    }

    /// The next TCP segment for which `wanted` holds, waiting `within` for one. Others are thrown away.
    pub fn find(&self, within: Duration, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        let deadline = Instant::now() + within;
        loop {
            let frame = self.next(deadline)?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}
