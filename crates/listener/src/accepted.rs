//! What a finished handshake hands over: plain data, from which a connection can be made.

use std::time::Duration;

use wire::{FourTuple, SeqNum};

/// The TCP options both ends agreed on in the handshake.
///
/// An option counts as agreed when the client's SYN offered it and our SYN-ACK answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The client's MSS in bytes: the largest payload it accepts in a segment (RFC 9293 §3.7.1).
    ///
    /// Exact when a half-open entry was found; a cookie rounds it down to the nearest code.
    pub peer_mss: u16,
    /// The shift of the windows the client advertises (RFC 7323 §2.2), 0 to 14; `None`: no window scaling either way.
    pub peer_wscale: Option<u8>,
    /// The shift of the windows we advertise; `Some` exactly when `peer_wscale` is.
    pub local_wscale: Option<u8>,
    /// Selective acknowledgments permitted (RFC 2018).
    pub sack: bool,
    /// Timestamps in use (RFC 7323 §3.2).
    pub timestamps: Option<Timestamps>,
}

/// Where the two timestamp clocks stand at the end of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// Our TSval for the next segment, in milliseconds: not before the one in our SYN-ACK, whose clock it continues.
    pub local: u32,
    /// The client's TSval in the handshake's last segment.
    pub peer: u32,
}

/// How the listener recognised the handshake's last segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// An entry of the half-open queue: every option is exact.
    Queue,
    /// A SYN cookie: nothing had been stored for this client.
    Cookie,
    /// The kernel's own listener did the handshake (the `kernel` tier).
    Kernel,
}

/// A handshake that is complete: the client is in ESTABLISHED, and now somebody must hold the other end.
///
/// Only the listener makes one, from a half-open entry or a cookie that validated.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// `local` is the guarded address the client connected to, `peer` the client.
    pub tuple: FourTuple,
    /// Interface index for a link-local IPv6 client, whose address means nothing without one; else 0.
    pub scope_id: u32,
    /// Our initial sequence number, the one in the SYN-ACK (ISS of RFC 9293 §3.3.1).
    pub iss: SeqNum,
    /// The client's initial sequence number (IRS).
    pub irs: SeqNum,
    /// The options in force.
    pub options: Negotiated,
    /// The client's receive window in bytes, scaled already (SND.WND).
    pub peer_window: u32,
    /// The window in bytes that our SYN-ACK promised (RCV.WND); the connection must start with exactly this one.
    pub local_window: u32,
    /// Entry or cookie.
    pub via: Via,
    /// From the SYN to its last segment. `None` where only a cookie without a clock was left to tell.
    pub handshake: Option<Duration>,
}

/// The bytes a client sent right behind its handshake, seen by the packet tap before a socket existed.
pub trait EarlyData {
    /// Looks at the wire once more, then returns all bytes seen so far from `irs + 1` on, contiguous and in order.
    ///
    /// Bounded by [`EARLY_DATA_MAX_BYTES`]; what lies beyond is left to the client's retransmission.
    fn collect(&mut self) -> &[u8];
}

/// Bytes kept per connection that arrived between the handshake's last segment and the socket's adoption.
///
/// Ten segments of 1460 bytes, the initial window of RFC 6928, fit.
pub const EARLY_DATA_MAX_BYTES: usize = 16 * 1024;

/// Whoever turns a finished handshake into a connection. Called on a worker's thread: must not block.
pub trait Establish: Send + 'static {
    /// A connection that stands and has not been given to the application yet.
    type Connection;

    /// Makes the connection, or says why not.
    ///
    /// Returns with it how many bytes of early data it has in its receive queue, beyond doubt: the listener acknowledges
    /// exactly these to the client, since the kernel did not see the segments that carried them.
    ///
    /// # Errors
    /// The client is not left hanging: for want of room, descriptors or memory its handshake is kept half-open, and the
    /// next segment it sends asks again; a closed application or an unknown error gets it a RST. Only for a busy 4-tuple
    /// there is silence, because a RST would hit the connection that the kernel holds.
    fn establish(&mut self, accepted: &Accepted, early: &mut dyn EarlyData)
    -> Result<(Self::Connection, u32), Refusal>;

    /// Gives the connection to the application, once its early data has been acknowledged.
    fn hand_over(&mut self, connection: Self::Connection);
}

/// Why a finished handshake could not become a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The application has not accepted the connections it already has.
    AcceptQueueFull,
    /// No descriptors left (EMFILE, ENFILE).
    NoDescriptors,
    /// The kernel is out of buffers or memory (ENOBUFS, ENOMEM).
    NoMemory,
    /// The kernel still holds the 4-tuple (EADDRNOTAVAIL), in a state that must not be disturbed.
    TupleBusy,
    /// The application has gone away: nobody will ever accept.
    Closed,
    /// Anything else; carries the errno.
    System(i32),
}
