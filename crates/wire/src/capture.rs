//! Bytes of which the capture may hold only the beginning.

use crate::error::{Malformed, ParseError};

/// A stretch of a packet: what was captured of it, and how long it is on the wire.
///
/// A header that the wire does not hold is a fault of the sender ([`ParseError::Malformed`]); one that only the capture
/// lacks is not ([`ParseError::Truncated`]). This type tells the two apart so that no parser has to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capture<'a> {
    captured: &'a [u8],
    /// Never less than `captured.len()`.
    wire_len: usize,
}

impl<'a> Capture<'a> {
    /// Captured bytes beyond `wire_len` are no part of the packet and are dropped.
    #[inline]
    pub(crate) fn new(captured: &'a [u8], wire_len: usize) -> Capture<'a> {
        Capture { captured: captured.get(..wire_len).unwrap_or(captured), wire_len }
    }

    #[inline]
    pub(crate) fn captured(self) -> &'a [u8] {
        self.captured
    }

    #[inline]
    pub(crate) fn wire_len(self) -> usize {
        self.wire_len
    }

    #[inline]
    pub(crate) fn is_cut(self) -> bool {
        self.captured.len() < self.wire_len
    }

    /// The first `N` bytes; `short` is the fault when the packet itself has fewer.
    #[inline]
    pub(crate) fn peek<const N: usize>(self, short: Malformed) -> Result<&'a [u8; N], ParseError> {
        self.captured.first_chunk().ok_or_else(|| self.missing(N, short))
    }

    /// The first `N` bytes and the rest.
    #[inline]
    pub(crate) fn take<const N: usize>(self, short: Malformed) -> Result<(&'a [u8; N], Capture<'a>), ParseError> {
        let (head, rest) = self.captured.split_first_chunk().ok_or_else(|| self.missing(N, short))?;
        Ok((head, Capture { captured: rest, wire_len: self.wire_len.saturating_sub(N) }))
    }

    /// The first `len` bytes and the rest.
    #[inline]
    pub(crate) fn split(self, len: usize, short: Malformed) -> Result<(&'a [u8], Capture<'a>), ParseError> {
        let (head, rest) = self.captured.split_at_checked(len).ok_or_else(|| self.missing(len, short))?;
        Ok((head, Capture { captured: rest, wire_len: self.wire_len.saturating_sub(len) }))
    }

    /// Cuts off what lies beyond `wire_len` (Ethernet padding); `long` is the fault when there is not even that much.
    #[inline]
    pub(crate) fn shorten(self, wire_len: usize, long: Malformed) -> Result<Capture<'a>, ParseError> {
        if wire_len > self.wire_len {
            return Err(ParseError::Malformed(long));
        }
        Ok(Capture::new(self.captured, wire_len))
    }

    #[cold]
    fn missing(self, len: usize, short: Malformed) -> ParseError {
        if len > self.wire_len { ParseError::Malformed(short) } else { ParseError::Truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Malformed = Malformed::TooShort;

    #[test]
    fn header_missing_on_the_wire_is_malformed() {
        let capture = Capture::new(&[1, 2, 3], 3);
        assert_eq!(capture.peek::<4>(SHORT), Err(ParseError::Malformed(SHORT)));
        assert_eq!(capture.split(4, SHORT).map(|_| ()), Err(ParseError::Malformed(SHORT)));
    }

    #[test]
    fn header_missing_in_the_capture_alone_is_truncated() {
        let capture = Capture::new(&[1, 2, 3], 4);
        assert_eq!(capture.take::<4>(SHORT).map(|_| ()), Err(ParseError::Truncated));
        assert!(capture.is_cut());
    }

    #[test]
    fn split_counts_both_lengths_down() {
        let (head, rest) = Capture::new(&[1, 2, 3], 10).split(2, SHORT).unwrap();
        assert_eq!((head, rest.captured(), rest.wire_len()), (&[1, 2][..], &[3][..], 8));
    }

    #[test]
    fn shorten_drops_padding_and_refuses_to_grow() {
        let capture = Capture::new(&[1, 2, 3], 3);
        assert_eq!(capture.shorten(2, SHORT).unwrap().captured(), &[1, 2]);
        assert_eq!(capture.shorten(4, SHORT).map(|_| ()), Err(ParseError::Malformed(SHORT)));
    }

    #[test]
    fn captured_bytes_beyond_the_wire_length_are_not_the_packet() {
        let capture = Capture::new(&[1, 2, 3], 2);
        assert_eq!((capture.captured(), capture.is_cut()), (&[1, 2][..], false));
    }
}
