//! The Internet checksum (RFC 1071).

/// Adds the 16-bit words of some bytes to a sum that is not folded yet; an odd last byte counts as a high byte.
pub(crate) fn add(mut sum: u64, bytes: &[u8]) -> u64 {
    for word in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
    }
    sum
}

/// Folds the carries and complements: what goes into the header.
pub(crate) fn finish(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example() {
        // RFC 1071 §3: the words sum to ddf2.
        let sum = add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(finish(sum), !0xddf2);
    }

    #[test]
    fn an_odd_byte_is_padded_with_zero() {
        assert_eq!(add(0, &[1, 2, 3]), add(0, &[1, 2, 3, 0]));
    }
}
