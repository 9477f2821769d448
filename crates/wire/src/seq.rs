//! Sequence numbers.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// A TCP sequence or acknowledgment number: a point on a circle of 2^32 (RFC 9293 §3.4).
///
/// There is no `Ord`: on a circle "less" has no meaning without a window. [`before`](SeqNum::before) and
/// [`after`](SeqNum::after) compare two points less than 2^31 apart, which all points of one connection are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeqNum(u32);

impl SeqNum {
    /// The sequence number with this value.
    pub const fn new(value: u32) -> SeqNum {
        SeqNum(value)
    }

    /// The value, as it stands in the header.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Whether this point lies before `other`.
    pub const fn before(self, other: SeqNum) -> bool {
        self.distance_from(other) < 0
    }

    /// Whether this point lies after `other`.
    pub const fn after(self, other: SeqNum) -> bool {
        self.distance_from(other) > 0
    }

    /// Whether this point lies in the window of `len` numbers that starts at `start`.
    pub const fn in_window(self, start: SeqNum, len: u32) -> bool {
        self.0.wrapping_sub(start.0) < len
    }

    /// Steps from `origin` to this point, negative when this point lies before it. Never panics.
    pub const fn distance_from(self, origin: SeqNum) -> i32 {
        self.0.wrapping_sub(origin.0) as i32
    }
}

impl Add<u32> for SeqNum {
    type Output = SeqNum;
    fn add(self, steps: u32) -> SeqNum {
        SeqNum(self.0.wrapping_add(steps))
    }
}

impl AddAssign<u32> for SeqNum {
    fn add_assign(&mut self, steps: u32) {
        *self = *self + steps;
    }
}

impl Sub<u32> for SeqNum {
    type Output = SeqNum;
    fn sub(self, steps: u32) -> SeqNum {
        SeqNum(self.0.wrapping_sub(steps))
    }
}

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    const ZERO: SeqNum = SeqNum::new(0);
    const LAST: SeqNum = SeqNum::new(u32::MAX);
    const HALF: u32 = 1 << 31;

    #[test]
    fn steps_wrap_around() {
        assert_eq!(LAST + 1, ZERO);
        assert_eq!(ZERO - 1, LAST);
        let mut seq = LAST;
        seq += 2;
        assert_eq!(seq.value(), 1);
    }

    #[test]
    fn order_holds_across_the_wrap() {
        assert!(LAST.before(ZERO) && ZERO.after(LAST));
        assert!(!ZERO.before(LAST) && !LAST.after(ZERO));
        assert!(!ZERO.before(ZERO) && !ZERO.after(ZERO));
    }

    #[test]
    fn opposite_points_are_before_each_other() {
        let opposite = ZERO + HALF;
        assert!(opposite.before(ZERO) && ZERO.before(opposite));
        assert_eq!(opposite.distance_from(ZERO), i32::MIN);
        assert!((ZERO + (HALF - 1)).after(ZERO));
    }

    #[test]
    fn window_includes_its_start_and_not_its_end() {
        let start = LAST - 1;
        for (seq, inside) in [(start - 1, false), (start, true), (LAST, true), (ZERO, true), (ZERO + 1, false)] {
            assert_eq!(seq.in_window(start, 3), inside, "{seq}");
        }
        assert!(!start.in_window(start, 0));
        assert!((start - 2).in_window(start, u32::MAX) && !(start - 1).in_window(start, u32::MAX));
    }

    #[test]
    fn display_is_the_value() {
        assert_eq!(LAST.to_string(), "4294967295");
    }

    proptest! {
        #[test]
        fn adding_and_subtracting_cancel(value: u32, steps: u32) {
            let seq = SeqNum::new(value);
            prop_assert_eq!(seq + steps - steps, seq);
            prop_assert_eq!(seq - steps + steps, seq);
            prop_assert_eq!((seq + steps).value(), value.wrapping_add(steps));
        }

        #[test]
        fn order_follows_distance_from_any_origin(value: u32, steps in 1..HALF) {
            let (seq, later) = (SeqNum::new(value), SeqNum::new(value) + steps);
            prop_assert!(seq.before(later) && later.after(seq) && !seq.after(later) && !later.before(seq));
            prop_assert_eq!(later.distance_from(seq), steps as i32);
            prop_assert_eq!(seq.distance_from(later), -(steps as i32));
        }

        #[test]
        fn window_is_the_same_anywhere_on_the_circle(start: u32, offset: u32, len: u32) {
            let start = SeqNum::new(start);
            prop_assert_eq!((start + offset).in_window(start, len), offset < len);
        }
    }
}
