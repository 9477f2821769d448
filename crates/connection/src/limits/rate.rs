//! How many in a second.

use std::time::Duration;

use tokio::time::Instant;

/// How much may be saved up.
const BURST: Duration = Duration::from_secs(1);

/// Lets so many pass in a second, evenly, and up to as many at once after a second without any.
///
/// The generic cell rate algorithm (ITU-T I.371): all it knows is the moment at which the last one would have been due at an even pace.
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    due: Option<Instant>,
}

impl Rate {
    /// For a rate of at least 1.
    pub(super) fn new(per_second: u32) -> Rate {
        Rate { interval: Duration::from_secs(1) / per_second.max(1), due: None }
    }

    /// Takes the place of one more, if there is one now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let free = self.wait(now).is_none();
        if free {
            self.due = Some(self.next(now));
        }
        free
    }

    /// When one more may pass; `None`: now.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        let due = self.next(now);
        (due > now + BURST).then(|| due - BURST)
    }

    /// When one that passes now would be due at an even pace.
    fn next(&self, now: Instant) -> Instant {
        self.due.map_or(now, |due| due.max(now)) + self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_at_once_then_an_even_pace() {
        let (mut rate, start) = (Rate::new(10), Instant::now());
        assert_eq!((0..100).filter(|_| rate.take(start)).count(), 10);
        let next = rate.wait(start).unwrap();
        assert_eq!(next - start, Duration::from_millis(100));
        assert!(!rate.take(next - Duration::from_millis(1)));
        assert!(rate.take(next) && !rate.take(next));
    }

    #[test]
    fn a_pause_earns_no_more_than_a_second_s_worth() {
        let (mut rate, start) = (Rate::new(5), Instant::now());
        assert!(rate.take(start));
        assert_eq!((0..100).filter(|_| rate.take(start + Duration::from_secs(3600))).count(), 5);
    }

    #[test]
    fn a_refusal_costs_the_refused_nothing() {
        let (mut rate, start) = (Rate::new(1), Instant::now());
        assert!(rate.take(start));
        assert!((0..100).all(|_| !rate.take(start)));
        assert_eq!(rate.wait(start), Some(start + Duration::from_secs(1)));
        assert!(rate.take(start + Duration::from_secs(1)));
    }
}
