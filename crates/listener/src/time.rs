//! A point on the monotonic clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds on a clock that never goes back. Where zero lies does not matter to the core.
///
/// The core never reads a clock: every function that needs the time takes one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The point `nanos` after the clock's zero.
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// The point `secs` after the clock's zero.
    pub const fn from_secs(secs: u64) -> Time {
        Time(secs * 1_000_000_000)
    }

    /// Nanoseconds since the clock's zero.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if that lies in the future.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment as a [`Stamp`].
    pub(crate) const fn stamp(self) -> Stamp {
        Stamp((self.0 >> Stamp::SHIFT) as u32)
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The clock's zero, if that comes first.
impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, span: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A moment in four bytes: units of 2^16 ns (65.5 µs), around the circle once in 78 hours.
///
/// Good for spans far shorter than that, such as the life of a half-open entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(u32);

impl Stamp {
    const SHIFT: u32 = 16;

    /// Time from this moment to `now`, modulo 78 hours.
    pub(crate) const fn until(self, now: Time) -> Duration {
        let units = now.stamp().0.wrapping_sub(self.0);
        Duration::from_nanos((units as u64) << Stamp::SHIFT)
    }

    /// The count of units, for the coarse clock that rides in a cookie.
    pub(crate) const fn units(self) -> u32 {
        self.0
    }

    /// The moment with this count of units.
    pub(crate) const fn from_units(units: u32) -> Stamp {
        Stamp(units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_measures_across_its_wrap() {
        let wrap = 1u64 << 48;
        let before = Time::from_nanos(wrap - 1_000_000_000);
        let after = Time::from_nanos(wrap + 1_000_000_000);
        let span = before.stamp().until(after);
        assert!(span.abs_diff(Duration::from_secs(2)) < Duration::from_micros(132), "{span:?}");
    }

    #[test]
    fn since_a_later_time_is_zero() {
        assert_eq!(Time::from_secs(1).since(Time::from_secs(2)), Duration::ZERO);
    }
}
