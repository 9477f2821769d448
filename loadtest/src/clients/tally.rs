//! What became of the clients, counted while they come.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::Outcome;
use crate::results::{ClientResults, Quantiles};

/// The longest latency that is told apart, in microseconds: ten minutes.
const LONGEST_US: u64 = 600_000_000;
/// Points of the curve for each halving of what is left.
const CURVE_STEPS_PER_HALF: u32 = 4;

/// Counts, and the two distributions.
#[derive(Debug)]
pub struct Tally {
    came: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// The slowest connect since it was last asked for.
    slowest_us: AtomicU64,
    latencies: Mutex<Latencies>,
}

#[derive(Debug)]
struct Latencies {
    connect: Histogram<u64>,
    total: Histogram<u64>,
}

/// How far the clients are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Were due.
    pub came: u64,
    /// Ended well.
    pub ok: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// The slowest connect since the last look, in microseconds.
    pub slowest_us: u64,
}

impl Default for Tally {
    fn default() -> Tally {
        let histogram = || Histogram::new_with_max(LONGEST_US, 3).expect("legal bounds");
        Tally {
            came: AtomicU64::new(0),
            outcomes: Default::default(),
            slowest_us: AtomicU64::new(0),
            latencies: Mutex::new(Latencies { connect: histogram(), total: histogram() }),
        }
    }
}

impl Tally {
    /// A client was due.
    pub fn came(&self) {
        self.came.fetch_add(1, Ordering::Relaxed);
    }

    /// A client ended; `connected` is how long it took to connect.
    pub fn ended(&self, outcome: Outcome, connected: Option<Duration>, total: Duration) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        let mut latencies = self.latencies.lock().expect("nobody panics with the lock");
        if let Some(connected) = connected {
            self.slowest_us.fetch_max(micros(connected), Ordering::Relaxed);
            latencies.connect.saturating_record(micros(connected));
        }
        if outcome == Outcome::Ok {
            latencies.total.saturating_record(micros(total));
        }
    }

    /// How far they are; forgets the slowest.
    pub fn progress(&self) -> Progress {
        let of = |outcome: Outcome| self.outcomes[outcome as usize].load(Ordering::Relaxed);
        let ended: u64 = Outcome::ALL.into_iter().map(of).sum();
        Progress {
            came: self.came.load(Ordering::Relaxed),
            ok: of(Outcome::Ok),
            failed: ended - of(Outcome::Ok),
            slowest_us: self.slowest_us.swap(0, Ordering::Relaxed),
        }
    }

    /// Everything.
    pub fn results(&self) -> ClientResults {
        let counts = Outcome::ALL.map(|outcome| (outcome, self.outcomes[outcome as usize].load(Ordering::Relaxed)));
        let latencies = self.latencies.lock().expect("nobody panics with the lock");
        ClientResults {
            attempts: self.came.load(Ordering::Relaxed),
            outcomes: counts
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(outcome, count)| (outcome.name().to_owned(), count))
                .collect::<BTreeMap<_, _>>(),
            connect_us: quantiles(&latencies.connect),
            total_us: quantiles(&latencies.total),
            connect_curve: curve(&latencies.connect),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A distribution in short.
pub fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64;
    Quantiles {
        count: histogram.len(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: histogram.max() as f64,
    }
}

fn curve(histogram: &Histogram<u64>) -> Vec<(u64, f64)> {
    let points = histogram.iter_quantiles(CURVE_STEPS_PER_HALF);
    points.map(|point| (point.value_iterated_to(), point.quantile())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_is_counted_once_and_latencies_where_there_are_some() {
        let tally = Tally::default();
        (0..4).for_each(|_| tally.came());
        tally.ended(Outcome::Ok, Some(Duration::from_millis(1)), Duration::from_millis(3));
        tally.ended(Outcome::Reset, Some(Duration::from_millis(2)), Duration::from_millis(9));
        tally.ended(Outcome::Refused, None, Duration::from_millis(1));
        assert_eq!(tally.progress(), Progress { came: 4, ok: 1, failed: 2, slowest_us: 2000 });
        assert_eq!(tally.progress().slowest_us, 0);
        let results = tally.results();
        assert_eq!((results.attempts, results.ok()), (4, 1));
        assert_eq!(results.success(), 0.25);
        assert_eq!((results.connect_us.count, results.total_us.count), (2, 1));
        assert!((results.connect_us.max - 2000.0).abs() < 2.0);
        assert_eq!(results.outcomes.values().sum::<u64>(), 3);
        assert_eq!(results.connect_curve.last().map(|point| point.1), Some(1.0));
    }

    #[test]
    fn without_clients_there_is_nothing() {
        let results = Tally::default().results();
        assert_eq!(results.success(), 1.0);
        assert_eq!(results.connect_us.count, 0);
    }
}
