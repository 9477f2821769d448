//! How fast things happen: differences of counters, by the clock of the process that counts.

use serde::Serialize;

use super::sample::Sample;
use crate::control::ListenerStatus;

/// What happened to one listener in a second, on average between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    pub syns: f64,
    pub synacks_sent: f64,
    pub cookies_sent: f64,
    pub cookies_valid: f64,
    pub cookies_bad: f64,
    pub accepted: f64,
    pub closed: f64,
    pub refused: f64,
    pub dropped: f64,
    pub ring_dropped: f64,
    pub received_bytes: f64,
    pub sent_bytes: f64,
}

/// Time between two samples of one process, in seconds; `None` if they are of two processes, or of the same moment.
pub fn elapsed(before: &Sample, after: &Sample) -> Option<f64> {
    if before.status.pid != after.status.pid {
        return None;
    }
    let clocks = (before.status.clock_seconds, after.status.clock_seconds);
    let seconds = match clocks {
        // A version that does not tell its clock: ours has to do.
        (0.0, _) | (_, 0.0) => after.received.saturating_duration_since(before.received).as_secs_f64(),
        (before, after) => after - before,
    };
    // NaN is not above zero either.
    (seconds > 0.0 && seconds.is_finite()).then_some(seconds)
}

/// The rates of the listener of this name; `None` where there is nothing to compare with.
pub fn rates(before: &Sample, after: &Sample, name: &str) -> Option<Rates> {
    let seconds = elapsed(before, after)?;
    let of = |sample: &'_ Sample| sample.status.listeners.iter().position(|listener| listener.name == name);
    let (from, to) = (&before.status.listeners[of(before)?], &after.status.listeners[of(after)?]);
    let sum = |counts: &std::collections::BTreeMap<String, u64>| {
        counts.values().fold(0, |sum: u64, n| sum.saturating_add(*n))
    };
    // A counter that goes back is another process's.
    let rate = |count: &dyn Fn(&ListenerStatus) -> u64| Some(count(to).checked_sub(count(from))? as f64 / seconds);
    Some(Rates {
        syns: rate(&|it| it.syns)?,
        synacks_sent: rate(&|it| it.synacks_sent)?,
        cookies_sent: rate(&|it| it.cookies_sent)?,
        cookies_valid: rate(&|it| it.cookies_valid)?,
        cookies_bad: rate(&|it| it.cookies_bad)?,
        accepted: rate(&|it| it.accepted)?,
        closed: rate(&|it| sum(&it.closed))?,
        refused: rate(&|it| sum(&it.refused))?,
        dropped: rate(&|it| sum(&it.dropped))?,
        ring_dropped: rate(&|it| it.ring_dropped)?,
        received_bytes: rate(&|it| it.traffic.received_bytes)?,
        sent_bytes: rate(&|it| it.traffic.sent_bytes)?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::sample;
    use super::*;

    #[test]
    fn rates_go_by_the_clock_of_the_process() {
        let (before, mut after) = (sample(), sample());
        after.status.clock_seconds += 4.0;
        after.received += Duration::from_secs(400); // A terminal that was stopped.
        let web = &mut after.status.listeners[0];
        web.syns += 1000;
        web.closed.insert("error".to_owned(), 8);
        web.traffic.sent_bytes += 4096;
        let rates = rates(&before, &after, "web").unwrap();
        assert_eq!((rates.syns, rates.closed, rates.sent_bytes, rates.accepted), (250.0, 2.0, 1024.0, 0.0));
    }

    #[test]
    fn a_version_without_a_clock_goes_by_ours() {
        let (mut before, mut after) = (sample(), sample());
        (before.status.clock_seconds, after.status.clock_seconds) = (0.0, 0.0);
        after.received = before.received + Duration::from_secs(2);
        after.status.listeners[0].syns += 10;
        assert_eq!(rates(&before, &after, "web").unwrap().syns, 5.0);
    }

    #[test]
    fn what_cannot_be_compared_has_no_rate() {
        let before = sample();
        let later = |change: fn(&mut Sample)| {
            let mut after = sample();
            after.status.clock_seconds += 1.0;
            change(&mut after);
            rates(&before, &after, "web")
        };
        assert!(later(|_| {}).is_some());
        assert_eq!(later(|after| after.status.pid += 1), None, "another process");
        assert_eq!(later(|after| after.status.clock_seconds -= 1.0), None, "the same moment");
        assert_eq!(later(|after| after.status.clock_seconds = 0.5), None, "an earlier one");
        assert_eq!(later(|after| after.status.clock_seconds = f64::NAN), None);
        assert_eq!(later(|after| after.status.listeners[0].syns = 0), None, "a counter that went back");
        assert_eq!(later(|after| after.status.listeners[0].name = "other".to_owned()), None);
    }
}
