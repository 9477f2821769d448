//! A received TCP segment.

use crate::capture::Capture;
use crate::error::{Malformed, ParseError};
use crate::flags::Flags;
use crate::options::Options;
use crate::seq::SeqNum;

/// A TCP segment as it was received, without the ports (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: SeqNum,
    /// Acknowledgment number; says nothing without [`Flags::ACK`].
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// Window as it stands in the header, not scaled.
    pub window: u16,
    /// The data, as far as it was captured.
    pub payload: &'a [u8],
    /// Length of the data on the wire, in bytes; more than `payload.len()` when the capture was cut.
    pub payload_len: usize,
    /// The option block, at most 40 bytes.
    options: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads the options. Costs a walk over at most 40 bytes each time it is called.
    ///
    /// Options that overlap their neighbour or the end stop the walk; what came before them counts. Of an option that
    /// stands twice, the last counts.
    #[inline]
    pub fn options(&self) -> Options {
        Options::parse(self.options)
    }

    /// SEG.LEN: the sequence numbers this segment occupies, SYN and FIN included (RFC 9293 §3.4).
    #[inline]
    pub fn seg_len(&self) -> u32 {
        let controls = u32::from(self.flags.contains(Flags::SYN)) + u32::from(self.flags.contains(Flags::FIN));
        u32::try_from(self.payload_len).unwrap_or(u32::MAX).saturating_add(controls)
    }

    /// Reads a segment and its ports. The checksum is judged elsewhere: it needs the addresses.
    #[inline]
    pub(crate) fn parse(bytes: Capture<'a>) -> Result<(Ports, Segment<'a>), ParseError> {
        let (fixed, rest) = bytes.take::<20>(Malformed::TcpLength)?;
        let [p0, p1, p2, p3, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, _, _] = *fixed;
        let header_len = usize::from(offset >> 4) * 4;
        let Some(options_len) = header_len.checked_sub(fixed.len()) else {
            return Err(ParseError::Malformed(Malformed::DataOffset));
        };
        let (options, payload) = rest.split(options_len, Malformed::DataOffset)?;
        let ports = Ports { source: u16::from_be_bytes([p0, p1]), destination: u16::from_be_bytes([p2, p3]) };
        let segment = Segment {
            seq: SeqNum::new(u32::from_be_bytes([s0, s1, s2, s3])),
            ack: SeqNum::new(u32::from_be_bytes([a0, a1, a2, a3])),
            flags: Flags::from_bits(flags),
            window: u16::from_be_bytes([w0, w1]),
            payload: payload.captured(),
            payload_len: payload.wire_len(),
            options,
        };
        Ok((ports, segment))
    }
}

/// The ports of a segment, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) source: u16,
    pub(crate) destination: u16,
}
