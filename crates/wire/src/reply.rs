//! The listener's answers.

use crate::emit::{Header, IPV6_LEN, TCP_FIXED_LEN, emit};
use crate::flags::Flags;
use crate::option_block::{REPLY_WORDS_MAX, ReplyOptions};
use crate::seq::SeqNum;
use crate::tuple::FourTuple;

/// A segment without data that the listener answers with: a SYN-ACK, a RST, a challenge ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `local` is the source of the reply, `peer` its destination: the tuple of the packet that is answered, as it is.
    pub tuple: FourTuple,
    /// Sequence number: of a SYN-ACK the cookie.
    pub seq: SeqNum,
    /// Acknowledgment number.
    pub ack: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// Window as it stands in the header; of a SYN-ACK it is never scaled (RFC 7323 §2.2).
    pub window: u16,
    /// TCP options.
    pub options: ReplyOptions,
}

/// The longest [`Reply`], in bytes: an IPv6 SYN-ACK with all options.
pub const REPLY_MAX_LEN: usize = IPV6_LEN + TCP_FIXED_LEN + REPLY_WORDS_MAX * 4;

impl Reply {
    /// Writes the IP packet to the start of `buf`, checksums included, and returns its length in bytes.
    ///
    /// IPv4: TTL 64, DF, ID 0, TOS 0. IPv6: hop limit 64, flow label stable per connection. The options stand as Linux
    /// orders them and take no more room than they must: an answer is never longer than a question with the same options.
    ///
    /// Returns 0, nothing to send, if the tuple's ends are not of one family; the tuple of a parsed packet always is.
    #[inline]
    pub fn emit(&self, buf: &mut [u8; REPLY_MAX_LEN]) -> usize {
        let Reply { tuple, seq, ack, flags, window, ref options } = *self;
        emit(&Header { tuple, hop_limit: HOP_LIMIT, seq, ack, flags, window }, options, &[], buf).unwrap_or(0)
    }
}

/// RFC 1700's recommended default, and what Linux sends.
const HOP_LIMIT: u8 = 64;
