//! Whether segments of no connection come in numbers: guessed cookies, most likely.

use std::time::Duration;

use crate::time::Time;

/// Such segments in a second, at which they are looked up and dropped one by one; and at or below which, for [`CALM`], no
/// longer.
const HIGH: u64 = 5_000;
const LOW: u64 = 1_000;
const CALM: Duration = Duration::from_secs(10);

/// The programs look one in so many of such segments up, while they do not look up all.
const SAMPLE: u64 = 64;

pub(super) struct Guesses {
    come: bool,
    quiet_since: Time,
}

/// They have begun to come, at this rate per second; or they come no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Begun(u64),
    Ended,
}

impl Guesses {
    pub(super) fn new(now: Time) -> Guesses {
        Guesses { come: false, quiet_since: now }
    }

    /// Whether they come in numbers.
    pub(super) fn come(&self) -> bool {
        self.come
    }

    /// So many were `seen` since the last look: all that came, or those of the sample.
    pub(super) fn judge(&mut self, seen: u64, all: bool, now: Time, elapsed: Duration) -> Option<Change> {
        let count = if all { seen } else { seen * SAMPLE };
        let rate = (count as f64 / elapsed.as_secs_f64()) as u64;
        if rate > LOW {
            self.quiet_since = now;
        }
        if !self.come && rate > HIGH {
            self.come = true;
            return Some(Change::Begun(rate));
        }
        if self.come && now.since(self.quiet_since) >= CALM {
            self.come = false;
            return Some(Change::Ended);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn they_begin_above_the_high_mark_and_end_after_ten_quiet_seconds() {
        let mut now = Time::from_secs(100);
        let mut guesses = Guesses::new(now);
        assert_eq!(guesses.judge(7, false, now, TICK), None, "4480 in a second");
        assert_eq!(guesses.judge(8, false, now, TICK), Some(Change::Begun(5120)));
        // Once they come all are counted.
        assert_eq!(guesses.judge(101, true, now, TICK), None);
        for _ in 0..99 {
            now = now + TICK;
            assert_eq!(guesses.judge(100, true, now, TICK), None);
            assert!(guesses.come());
        }
        now = now + TICK;
        assert_eq!(guesses.judge(100, true, now, TICK), Some(Change::Ended));
        assert!(!guesses.come());
    }

    #[test]
    fn a_single_one_above_the_low_mark_begins_the_wait_again() {
        let now = Time::from_secs(100);
        let mut guesses = Guesses::new(now);
        guesses.judge(10_000, true, now, TICK);
        assert_eq!(guesses.judge(101, true, now + Duration::from_secs(9), TICK), None);
        assert_eq!(guesses.judge(0, true, now + Duration::from_secs(18), TICK), None);
        assert_eq!(guesses.judge(0, true, now + Duration::from_secs(19), TICK), Some(Change::Ended));
    }
}
