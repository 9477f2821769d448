//! How long things took: counts by bucket, which any number of threads add to.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Durations by size. An observation is two atomic additions and a short search.
#[derive(Debug)]
pub(crate) struct Durations {
    /// In seconds, ascending.
    bounds: &'static [f64],
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
    /// Of nanoseconds; full after 584 years of them.
    sum: AtomicU64,
}

/// Durations by size, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationCounts {
    /// The upper bounds of the buckets in seconds, ascending.
    pub bounds: &'static [f64],
    /// Durations in each bucket and in none before it; one more than there are bounds, for what is above them all.
    pub counts: Vec<u64>,
    /// All durations added up, in seconds.
    pub sum: f64,
}

impl Durations {
    /// None so far.
    pub(crate) fn new(bounds: &'static [f64]) -> Durations {
        Durations { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = self.bounds.iter().position(|&le| seconds <= le).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX / 2), Relaxed);
    }

    /// Read one by one, so the sum may be a moment apart from the counts.
    pub(crate) fn read(&self) -> DurationCounts {
        DurationCounts {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: self.sum.load(Relaxed) as f64 / 1e9,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it_and_the_last_bucket_has_none() {
        let durations = Durations::new(&[0.5, 2.0]);
        for millis in [0, 500, 501, 2000, 2001, 90_000] {
            durations.observe(Duration::from_millis(millis));
        }
        let read = durations.read();
        assert_eq!(read.counts, [2, 2, 2]);
        assert!((read.sum - 95.002).abs() < 1e-9, "{}", read.sum);
    }
}
