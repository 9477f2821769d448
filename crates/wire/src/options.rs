//! TCP options: reading.

/// The options of a segment that a handshake negotiates (RFC 9293 §3.2, RFC 7323, RFC 2018).
///
/// What they mean depends on the segment: MSS, window scale and SACK-permitted count only on a SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// Largest segment the sender can take, in bytes of TCP payload (RFC 9293 §3.7.1). As sent: may be absurd, even 0.
    pub mss: Option<u16>,
    /// Window shift count; a larger one counts as 14 (RFC 7323 §2.3).
    pub wscale: Option<u8>,
    /// The sender understands selective acknowledgments (RFC 2018 §2).
    pub sack_permitted: bool,
    /// Timestamps (RFC 7323 §3.2).
    pub timestamps: Option<TimestampOption>,
}

/// A timestamps option (RFC 7323 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TimestampOption {
    /// The sender's clock.
    pub tsval: u32,
    /// The clock value that the sender echoes; meaningless on a SYN.
    pub tsecr: u32,
}

impl TimestampOption {
    /// From the fields as they stand in the option.
    #[inline]
    fn new(tsval: [u8; 4], tsecr: [u8; 4]) -> TimestampOption {
        TimestampOption { tsval: u32::from_be_bytes(tsval), tsecr: u32::from_be_bytes(tsecr) }
    }
}

impl Options {
    /// Reads an option block: the bytes between the fixed header and the data.
    #[inline]
    pub(crate) fn parse(block: &[u8]) -> Options {
        let known = match block.len() {
            20 => block.try_into().ok().and_then(linux_syn),
            12 => block.try_into().ok().and_then(linux_ack),
            _ => None,
        };
        known.unwrap_or_else(|| walk(block))
    }

    /// Takes one option, kind and length included. A known kind with a wrong length is as good as unknown.
    fn note(&mut self, option: &[u8]) {
        match *option {
            [MSS, 4, m0, m1] => self.mss = Some(u16::from_be_bytes([m0, m1])),
            [WSCALE, 3, shift] => self.wscale = Some(shift.min(WSCALE_MAX)),
            [SACK_PERMITTED, 2] => self.sack_permitted = true,
            [TIMESTAMPS, 10, v0, v1, v2, v3, e0, e1, e2, e3] => {
                self.timestamps = Some(TimestampOption::new([v0, v1, v2, v3], [e0, e1, e2, e3]));
            }
            _ => {}
        }
    }
}

/// Option kinds (RFC 9293 §3.2, RFC 7323 §2.2 and §3.2, RFC 2018 §2).
pub(crate) const END: u8 = 0;
pub(crate) const NOP: u8 = 1;
pub(crate) const MSS: u8 = 2;
pub(crate) const WSCALE: u8 = 3;
pub(crate) const SACK_PERMITTED: u8 = 4;
pub(crate) const TIMESTAMPS: u8 = 8;

/// RFC 7323 §2.3: on a larger shift count TCP "MUST use 14 instead of the specified value".
pub(crate) const WSCALE_MAX: u8 = 14;

/// Any options in any order (RFC 9293 MUST-5, MUST-6, MUST-7). Every step goes at least one byte on, so 40 bytes bound it.
fn walk(mut block: &[u8]) -> Options {
    let mut options = Options::default();
    while let [kind, behind @ ..] = block {
        block = match *kind {
            END => break,
            NOP => behind,
            _ => {
                let Some((option, behind)) = split_option(block) else { break };
                options.note(option);
                behind
            }
        };
    }
    options
}

/// `None` when the length is missing, below 2, or runs beyond the block: nothing behind it can be trusted.
fn split_option(block: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(*block.get(1)?);
    if len < 2 { None } else { block.split_at_checked(len) }
}

/// MSS, SACK-permitted, timestamps, NOP, window scale: the SYN of Linux and Android.
#[inline]
fn linux_syn(block: &[u8; 20]) -> Option<Options> {
    let [k0, k1, m0, m1, k4, k5, k6, k7, v0, v1, v2, v3, e0, e1, e2, e3, k16, k17, k18, shift] = *block;
    let fixed = [k0, k1, k4, k5, k6, k7, k16, k17, k18];
    (fixed == [MSS, 4, SACK_PERMITTED, 2, TIMESTAMPS, 10, NOP, WSCALE, 3]).then(|| Options {
        mss: Some(u16::from_be_bytes([m0, m1])),
        wscale: Some(shift.min(WSCALE_MAX)),
        sack_permitted: true,
        timestamps: Some(TimestampOption::new([v0, v1, v2, v3], [e0, e1, e2, e3])),
    })
}

/// NOP, NOP, timestamps: every segment behind the SYN (RFC 7323 appendix A).
#[inline]
fn linux_ack(block: &[u8; 12]) -> Option<Options> {
    let [k0, k1, k2, k3, v0, v1, v2, v3, e0, e1, e2, e3] = *block;
    ([k0, k1, k2, k3] == [NOP, NOP, TIMESTAMPS, 10]).then(|| Options {
        timestamps: Some(TimestampOption::new([v0, v1, v2, v3], [e0, e1, e2, e3])),
        ..Options::default()
    })
}
