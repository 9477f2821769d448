//! Segments for tools.

use crate::emit::{Header, emit};
use crate::error::EmitError;
use crate::flags::Flags;
use crate::option_block::OptionBlock;
use crate::seq::SeqNum;
use crate::tuple::FourTuple;

/// A segment to be sent, every field chosen by the caller: what load generators and test clients send.
///
/// The rest is fixed as in a [`Reply`](crate::Reply).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutgoingSegment<'a> {
    /// `local` is the source, `peer` the destination.
    pub tuple: FourTuple,
    /// IPv4 TTL or IPv6 hop limit.
    pub hop_limit: u8,
    /// Sequence number.
    pub seq: SeqNum,
    /// Acknowledgment number.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// Window as it stands in the header.
    pub window: u16,
    /// TCP options.
    pub options: OptionBlock,
    /// Data.
    pub payload: &'a [u8],
}

impl OutgoingSegment<'_> {
    /// Writes the IP packet to the start of `buf`, checksums included, and returns its length in bytes.
    ///
    /// # Errors
    ///
    /// See [`EmitError`]; `buf` is then unchanged.
    pub fn emit(&self, buf: &mut [u8]) -> Result<usize, EmitError> {
        let OutgoingSegment { tuple, hop_limit, seq, ack, flags, window, ref options, payload } = *self;
        emit(&Header { tuple, hop_limit, seq, ack, flags, window }, options, payload, buf)
    }
}
