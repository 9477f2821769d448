//! The Internet checksum (RFC 1071).

use core::net::IpAddr;

/// Whether the checksums of a captured packet are to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksums {
    /// Check the IPv4 header and TCP.
    Verify,
    /// Check nothing: the kernel has done it, or has left the sum unfinished, as it does for every sender on this host
    /// (`CHECKSUM_PARTIAL`, seen in a ring as `TP_STATUS_CSUMNOTREADY`).
    Trust,
}

/// A running one's complement sum.
///
/// Pieces may have any length: a piece that starts at an odd offset is rotated into place (RFC 1071 §2 B).
///
/// ```
/// let whole = wire::Sum::new().bytes(&[0x45, 0x00, 0x12]);
/// assert_eq!(wire::Sum::new().bytes(&[0x45]).bytes(&[0x00, 0x12]).finish(), whole.finish());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum modulo 2^64 - 1 of the data as native-endian words. 2^16 - 1 divides 2^64 - 1, so folding it to 16 bits gives
    /// the sum of 16-bit words, and no amount of data can overflow it.
    total: u64,
    /// Whether an odd number of bytes went in so far.
    odd: bool,
}

impl Sum {
    /// The sum of nothing.
    pub const fn new() -> Sum {
        Sum { total: 0, odd: false }
    }

    /// The sum of the pseudo-header in front of `tcp_len` bytes of TCP (RFC 9293 §3.1, RFC 8200 §8.1).
    #[inline]
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, tcp_len: u32) -> Sum {
        Sum::new().address(source).address(destination).word(PROTOCOL_TCP).word(tcp_len)
    }

    /// With `bytes` appended.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Sum {
        let piece = sum_words(bytes);
        // One byte further is a factor of 2^8 in either byte order; modulo 2^64 - 1 that is a rotation.
        let piece = if self.odd { piece.rotate_left(8) } else { piece };
        Sum { total: add(self.total, piece), odd: self.odd != (bytes.len() % 2 == 1) }
    }

    /// With a header word appended, most significant byte first. It must start at an even offset, as header words do.
    #[inline]
    #[must_use]
    pub(crate) fn word(self, word: u32) -> Sum {
        debug_assert!(!self.odd, "header words stand at even offsets");
        Sum { total: add(self.total, word.to_be().into()), odd: self.odd }
    }

    /// The checksum: what goes into the header whose checksum field was summed as zero.
    #[inline]
    pub fn finish(self) -> u16 {
        !u16::from_be(fold(self.total))
    }

    /// Whether data that includes its own checksum is intact.
    #[inline]
    pub fn is_valid(self) -> bool {
        self.finish() == 0
    }

    #[inline]
    fn address(self, address: IpAddr) -> Sum {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }
}

const PROTOCOL_TCP: u32 = 6;

/// Sum of native-endian words; an odd byte at the end counts as if a zero followed.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    let (eights, tail) = bytes.as_chunks::<8>();
    let (fours, tail) = tail.as_chunks::<4>();
    let (twos, tail) = tail.as_chunks::<2>();
    let mut sum = 0;
    for eight in eights {
        sum = add(sum, u64::from_ne_bytes(*eight));
    }
    for four in fours {
        sum = add(sum, u32::from_ne_bytes(*four).into());
    }
    for two in twos {
        sum = add(sum, u16::from_ne_bytes(*two).into());
    }
    for byte in tail {
        sum = add(sum, u16::from_ne_bytes([*byte, 0]).into());
    }
    sum
}

/// One's complement addition: the carry comes back in at the bottom.
#[inline]
fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry) // cannot overflow: after a carry the sum is at most 2^64 - 2
}

#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff); // at most 2^33 - 2
    let sum = (sum >> 16) + (sum & 0xffff); // at most 2^17 + 2^16 - 2
    let sum = (sum >> 16) + (sum & 0xffff); // at most 2^16 + 1
    let sum = (sum >> 16) + (sum & 0xffff); // at most 2^16 - 1
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// RFC 1071 as it is read aloud: 16-bit words, big-endian, carries added back one by one.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum: u16 = 0;
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            let (next, carry) = sum.overflowing_add(word);
            sum = next + u16::from(carry);
        }
        !sum
    }

    #[test]
    fn rfc_1071_section_3_example() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().bytes(&data).finish(), !0xddf2);
    }

    #[test]
    fn carries_fold_at_the_extremes() {
        for len in 0..64 {
            let ones: Vec<u8> = std::vec![0xff; len];
            assert_eq!(Sum::new().bytes(&ones).finish(), naive(&ones), "{len} bytes of 0xff");
        }
        for total in [0, 1, 0xffff, 0x1_0000, 0xffff_ffff, 0xffff_ffff_0000_0000, u64::MAX - 1, u64::MAX] {
            assert_eq!(u64::from(fold(total)) % 0xffff, total % 0xffff, "{total:#x}");
        }
    }

    #[test]
    fn nothing_but_zeros_is_not_valid() {
        assert!(!Sum::new().bytes(&[0; 20]).is_valid());
    }

    #[test]
    fn pseudo_header_is_that_of_the_rfcs() {
        let v4 = Sum::pseudo_header([192, 0, 2, 1].into(), [198, 51, 100, 2].into(), 20);
        assert_eq!(v4.finish(), naive(&[192, 0, 2, 1, 198, 51, 100, 2, 0, 6, 0, 20]));
        let (source, destination) = ([0x20; 16], [0xfd; 16]);
        let v6 = Sum::pseudo_header(source.into(), destination.into(), 0x0001_0002);
        let bytes = [&source[..], &destination[..], &[0, 1, 0, 2, 0, 0, 0, 6]].concat();
        assert_eq!(v6.finish(), naive(&bytes));
    }

    proptest! {
        #[test]
        fn fast_sum_equals_naive_sum(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::new().bytes(&bytes).finish(), naive(&bytes));
        }

        #[test]
        fn pieces_of_any_length_sum_to_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8)
        ) {
            let in_pieces = pieces.iter().fold(Sum::new(), |sum, piece| sum.bytes(piece));
            prop_assert_eq!(in_pieces.finish(), naive(&pieces.concat()));
        }

        #[test]
        fn data_with_its_checksum_is_valid(mut bytes in prop::collection::vec(any::<u8>(), 1..100)) {
            bytes.resize(bytes.len().next_multiple_of(2), 0);
            let checksum = Sum::new().bytes(&bytes).finish();
            prop_assert!(Sum::new().bytes(&bytes).bytes(&checksum.to_be_bytes()).is_valid());
            prop_assert!(!Sum::new().bytes(&bytes).bytes(&(checksum ^ 1).to_be_bytes()).is_valid());
        }
    }
}
