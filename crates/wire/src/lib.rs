//! Bytes to meaning and back: Ethernet, IPv4, IPv6, TCP, checksums, sequence numbers.
//!
//! What arrives is parsed once, at the door, into a [`Packet`]: the [`FourTuple`] and a view of the TCP [`Segment`] that
//! borrows the bytes it came in. Whatever is inside a `Packet` needs no second look at lengths. What leaves is a [`Reply`]
//! (a SYN-ACK, a RST, a challenge ACK) or, for tools, an [`OutgoingSegment`] with every field chosen by the caller.
//!
//! The crate takes no memory, does no I/O, knows no time, and panics on no input. Deliberately absent:
//!
//! - reassembly: a fragment is refused, the kernel has a reassembler;
//! - source routes, AH, ESP and IPv6 extension headers that ask for more than to be skipped: refused;
//! - judgement of addresses and flags: broadcast, martian and land packets or SYN+FIN parse, and the listener decides;
//! - ICMP, UDP, and TCP options other than the four that a handshake negotiates.
//!
//! ```
//! use wire::{Checksums, Flags, Packet, ParseError, Reply, ReplyOptions, REPLY_MAX_LEN, SeqNum};
//!
//! /// Writes the SYN-ACK for a SYN and returns its length; `None` for any other segment.
//! fn answer(ip_packet: &[u8], isn: SeqNum, buf: &mut [u8; REPLY_MAX_LEN]) -> Result<Option<usize>, ParseError> {
//!     let Packet { tuple, segment } = Packet::parse_ip(ip_packet, ip_packet.len(), Checksums::Verify)?;
//!     if segment.flags != Flags::SYN {
//!         return Ok(None);
//!     }
//!     let options = ReplyOptions { mss: Some(1460), sack_permitted: segment.options().sack_permitted, ..Default::default() };
//!     let ack = segment.seq + 1; // the SYN alone: data in it is left to be sent again
//!     let reply = Reply { tuple, seq: isn, ack, flags: Flags::SYN | Flags::ACK, window: 65535, options };
//!     Ok(Some(reply.emit(buf)))
//! }
//! # let mut buf = [0; REPLY_MAX_LEN];
//! # assert_eq!(answer(&[], SeqNum::new(1), &mut buf), Err(ParseError::Malformed(wire::Malformed::TooShort)));
//! ```
#![no_std]
#![forbid(unsafe_code)]
// "Panics on no input" is kept by construction: nothing here indexes with a computed number.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)
)]

#[cfg(test)]
extern crate std;

mod capture;
mod checksum;
mod emit;
mod error;
mod ethernet;
mod extension;
mod flags;
mod flow_label;
mod ip;
mod option_block;
mod options;
mod outgoing;
mod packet;
mod reply;
mod segment;
mod seq;
mod tuple;

pub use checksum::{Checksums, Sum};
pub use error::{ChecksumOf, EmitError, Malformed, ParseError};
pub use ethernet::EthernetHeader;
pub use flags::Flags;
pub use option_block::{OptionBlock, ReplyOptions};
pub use options::{Options, TimestampOption};
pub use outgoing::OutgoingSegment;
pub use packet::Packet;
pub use reply::{REPLY_MAX_LEN, Reply};
pub use segment::Segment;
pub use seq::SeqNum;
pub use tuple::{Endpoint, FourTuple};
