//! Open loop: what is due depends on the clock alone, not on what became of it.

use std::time::{Duration, Instant};

/// One thread's share of a rate. Frame n is due at start + n / rate.
#[derive(Clone, Debug)]
pub struct Pacer {
    rate: Option<f64>,
    since: Instant,
    due_then: f64,
}

impl Pacer {
    /// The first frame is due at once.
    pub fn new(rate: Option<f64>, now: Instant) -> Pacer {
        Pacer { rate, since: now, due_then: 1.0 }
    }

    /// Frames due by now, when `done` of them are done. Without a rate nothing more is due than was done.
    ///
    /// `rate` is what is asked for now: at another than the last time, a new stage begins.
    pub fn due(&mut self, rate: Option<f64>, now: Instant, done: u64) -> u64 {
        let due = match self.rate {
            Some(rate) => self.due_then + rate * now.saturating_duration_since(self.since).as_secs_f64(),
            None => done as f64,
        };
        if rate != self.rate {
            *self = Pacer { rate, since: now, due_then: due };
        }
        due as u64
    }

    /// How long to sleep when nothing is due: until the next frame, but neither so short that sleeping is all the work, nor so long
    /// that nobody would hear of another rate, or of the end.
    pub fn nap(&self) -> Duration {
        const SHORTEST: Duration = Duration::from_micros(50);
        const LONGEST: Duration = Duration::from_millis(10);
        let interval = self.rate.map_or(0.0, |rate| 1.0 / rate);
        Duration::try_from_secs_f64(interval).map_or(LONGEST, |nap| nap.clamp(SHORTEST, LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_follows_the_clock() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let rate = Some(1000.0);
        let mut pacer = Pacer::new(rate, start);
        assert_eq!(pacer.due(rate, start, 0), 1);
        assert_eq!(pacer.due(rate, after(10), 0), 11);
        assert_eq!(pacer.due(rate, after(1000), 0), 1001);
    }

    #[test]
    fn stages_add_up() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut pacer = Pacer::new(Some(1000.0), start);
        assert_eq!(pacer.due(Some(10.0), after(1000), 0), 1001);
        assert_eq!(pacer.due(None, after(2000), 1011), 1011);
        assert_eq!(pacer.due(Some(1000.0), after(3000), 5000), 5000);
        assert_eq!(pacer.due(Some(1000.0), after(4000), 5000), 6000);
    }

    #[test]
    fn naps_are_bounded() {
        let nap = |rate| Pacer::new(Some(rate), Instant::now()).nap();
        assert_eq!(nap(0.0), Duration::from_millis(10));
        assert_eq!(nap(1000.0), Duration::from_millis(1));
        assert_eq!(nap(1e9), Duration::from_micros(50));
    }
}
