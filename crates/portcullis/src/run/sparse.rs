//! Log lines for what can happen a million times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets one event in ten seconds through, and counts the others.
#[derive(Debug)]
pub struct Sparse {
    began: Instant,
    /// Milliseconds since `began` from which on the next event is let through.
    next_ms: AtomicU64,
    held_back: AtomicU64,
}

impl Sparse {
    const PERIOD: Duration = Duration::from_secs(10);

    /// Lets the first event through.
    pub fn new() -> Sparse {
        Sparse { began: Instant::now(), next_ms: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// `Some(n)` if this event is to be logged, `n` being those held back since the last one that was.
    pub fn event(&self) -> Option<u64> {
        self.event_at(self.began.elapsed())
    }

    fn event_at(&self, elapsed: Duration) -> Option<u64> {
        let now = elapsed.as_millis() as u64;
        let next = self.next_ms.load(Ordering::Relaxed);
        let after = now + Sparse::PERIOD.as_millis() as u64;
        // Of several threads at once one wins the exchange.
        let mine =
            now >= next && self.next_ms.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_ten_seconds_passes_and_the_others_are_counted() {
        let sparse = Sparse::new();
        assert_eq!(sparse.event_at(Duration::from_secs(1)), Some(0));
        for _ in 0..5 {
            assert_eq!(sparse.event_at(Duration::from_secs(10)), None);
        }
        assert_eq!(sparse.event_at(Duration::from_secs(11)), Some(5));
        assert_eq!(sparse.event_at(Duration::from_secs(12)), None);
    }
}
