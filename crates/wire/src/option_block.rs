//! TCP options: writing.

use crate::emit::{WriteOptions, Writer};
use crate::options::{END, MSS, NOP, SACK_PERMITTED, TIMESTAMPS, TimestampOption, WSCALE, WSCALE_MAX};

/// The options a reply carries. The default carries none.
///
/// They are written in the order and with the padding of Linux: MSS; timestamps with SACK-permitted or two NOPs in front;
/// SACK-permitted alone behind two NOPs; window scale behind a NOP. No layout of the same options is shorter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReplyOptions {
    /// Largest segment we can take, in bytes of TCP payload: MTU less 40 (IPv4) or 60 (IPv6), whatever options later
    /// segments carry (RFC 9293 §3.7.1).
    pub mss: Option<u16>,
    /// Our window shift count; sent as 14 if larger (RFC 7323 §2.3). Only if the SYN had one.
    pub wscale: Option<u8>,
    /// We understand selective acknowledgments. Only if the SYN said so.
    pub sack_permitted: bool,
    /// Timestamps. Only if the SYN had them.
    pub timestamps: Option<TimestampOption>,
}

impl WriteOptions for ReplyOptions {
    #[inline]
    fn word_count(&self) -> usize {
        let stamps = if self.timestamps.is_some() { 3 } else { usize::from(self.sack_permitted) };
        usize::from(self.mss.is_some()) + stamps + usize::from(self.wscale.is_some())
    }

    #[inline]
    fn write(&self, out: &mut Writer<'_>) {
        if let Some(mss) = self.mss {
            let [m0, m1] = mss.to_be_bytes();
            out.word(u32::from_be_bytes([MSS, 4, m0, m1]));
        }
        if let Some(TimestampOption { tsval, tsecr }) = self.timestamps {
            let [p0, p1] = if self.sack_permitted { [SACK_PERMITTED, 2] } else { [NOP, NOP] };
            out.word(u32::from_be_bytes([p0, p1, TIMESTAMPS, 10]));
            out.word(tsval);
            out.word(tsecr);
        } else if self.sack_permitted {
            out.word(u32::from_be_bytes([NOP, NOP, SACK_PERMITTED, 2]));
        }
        if let Some(shift) = self.wscale {
            out.word(u32::from_be_bytes([NOP, WSCALE, 3, shift.min(WSCALE_MAX)]));
        }
    }
}

/// Words of a [`ReplyOptions`] that has them all: MSS 1, SACK-permitted and timestamps 3, window scale 1.
pub(crate) const REPLY_WORDS_MAX: usize = 5;

/// An option block in any layout, ready for the header: whole words, at most 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionBlock {
    bytes: [u8; BLOCK_MAX_LEN],
    word_count: usize,
}

impl OptionBlock {
    /// No options.
    pub const EMPTY: OptionBlock = OptionBlock { bytes: [END; BLOCK_MAX_LEN], word_count: 0 };

    /// These bytes as they are, in any order and however wrong, filled up to a whole word with end-of-list (0).
    ///
    /// `None` if there are more than 40, the most that a header can hold.
    pub fn from_bytes(bytes: &[u8]) -> Option<OptionBlock> {
        let mut block = OptionBlock::EMPTY;
        block.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        block.word_count = bytes.len().div_ceil(4);
        Some(block)
    }
}

impl From<ReplyOptions> for OptionBlock {
    /// As a [`Reply`](crate::Reply) with these options has them.
    fn from(options: ReplyOptions) -> OptionBlock {
        let mut block = OptionBlock { word_count: options.word_count(), ..OptionBlock::EMPTY };
        options.write(&mut Writer::new(&mut block.bytes));
        block
    }
}

impl WriteOptions for OptionBlock {
    #[inline]
    fn word_count(&self) -> usize {
        self.word_count
    }

    #[inline]
    fn write(&self, out: &mut Writer<'_>) {
        for word in self.bytes.as_chunks::<4>().0.iter().take(self.word_count) {
            out.word(u32::from_be_bytes(*word));
        }
    }
}

/// The data offset counts at most 15 words, 5 of them the fixed header (RFC 9293 §3.1).
const BLOCK_MAX_LEN: usize = 40;
