//! Option blocks as the systems send them.

use super::spec::OptionMix;

/// The options of one system's SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The block, a multiple of 4 bytes, with zeros for the timestamp.
    pub syn: &'static [u8],
    /// Where in it the value of the timestamp stands.
    pub timestamp_at: Option<usize>,
}

const LINUX: Layout =
    Layout { syn: &[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 8], timestamp_at: Some(8) };
const WINDOWS: Layout = Layout { syn: &[2, 4, 5, 180, 1, 3, 3, 8, 1, 1, 4, 2], timestamp_at: None };
const MACOS: Layout = Layout {
    syn: &[2, 4, 5, 180, 1, 3, 3, 6, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 4, 2, 0, 0],
    timestamp_at: Some(12),
};
const FREEBSD: Layout =
    Layout { syn: &[2, 4, 5, 180, 1, 3, 3, 6, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0], timestamp_at: Some(12) };
const NONE: Layout = Layout { syn: &[2, 4, 5, 180], timestamp_at: None };

/// What an ACK has: filling and timestamps, of which value and echo follow here.
pub const ACK: &[u8] = &[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
/// Where in [`ACK`] the value stands.
pub const ACK_TIMESTAMP_AT: usize = 4;

impl OptionMix {
    /// In the order in which they take turns.
    pub fn layouts(self) -> &'static [Layout] {
        match self {
            OptionMix::Linux => &[LINUX],
            OptionMix::Windows => &[WINDOWS],
            OptionMix::Macos => &[MACOS],
            OptionMix::Freebsd => &[FREEBSD],
            OptionMix::None => &[NONE],
            OptionMix::Mixed => &[LINUX, WINDOWS, MACOS, FREEBSD, NONE],
        }
    }
}
