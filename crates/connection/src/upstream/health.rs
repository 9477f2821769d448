//! Whether a server is up, as its successes and failures tell. No I/O and no clock: time comes in.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::config::HealthConfig;

/// Clients that fail in a row to connect to a server before it counts as down, where servers are not checked.
pub const PASSIVE_FALL: u32 = 3;
/// How long a server that is not checked is left alone after it went down; each failed trial doubles it.
pub const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// The longest time a server that is not checked is left alone: one that came back is noticed within it.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// A server that went down stays so for this long, whatever succeeds: a change is a log line, of which clients must not cause one each.
const DOWN_MIN: Duration = Duration::from_secs(1);

/// The health of one server. It starts up: a pool serves before its first check.
#[derive(Debug)]
pub(super) struct Health {
    recovery: Recovery,
    fall: u32,
    state: State,
    /// Outcomes in a row that speak against the state.
    against: u32,
    /// What went wrong last, and stands there when it is over.
    last_error: Option<String>,
}

/// How a server that is down comes up again.
#[derive(Clone, Copy, Debug)]
enum Recovery {
    /// After so many successes in a row, which checks will bring.
    Checks { rise: u32 },
    /// By the success of a client that is let through as a trial.
    Trials,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Up,
    Down {
        /// Successes count from here on.
        until: Instant,
        /// When the next client may try.
        trial_at: Instant,
        /// How long the one after that must wait.
        back_off: Duration,
    },
}

/// A server that came up or went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Rose,
    Fell,
}

impl Health {
    pub(super) fn new(checks: Option<HealthConfig>) -> Health {
        let (recovery, fall) = match checks {
            Some(HealthConfig { rise, fall, .. }) => (Recovery::Checks { rise }, fall),
            None => (Recovery::Trials, PASSIVE_FALL),
        };
        Health { recovery, fall, state: State::Up, against: 0, last_error: None }
    }

    /// A check or a client connected.
    pub(super) fn succeeded(&mut self, now: Instant) -> Option<Change> {
        let until = match self.state {
            State::Down { until, .. } => until,
            State::Up => {
                self.against = 0;
                return None;
            }
        };
        if now < until {
            return None;
        }
        self.against += 1;
        if self.against < self.rise() {
            return None;
        }
        (self.state, self.against) = (State::Up, 0);
        Some(Change::Rose)
    }

    /// Successes in a row that bring the server up.
    fn rise(&self) -> u32 {
        match self.recovery {
            Recovery::Checks { rise } => rise,
            Recovery::Trials => 1,
        }
    }

    /// A check or a client did not connect.
    pub(super) fn failed(&mut self, error: &io::Error, now: Instant) -> Option<Change> {
        self.last_error = Some(error.to_string());
        match self.state {
            State::Down { .. } => {
                // Where trials decide, one success is enough, so nothing was counted.
                self.against = 0;
                None
            }
            State::Up => {
                self.against += 1;
                if self.against < self.fall {
                    return None;
                }
                let (until, trial_at) = (now + DOWN_MIN, now + BACK_OFF_MIN);
                self.state = State::Down { until, trial_at, back_off: 2 * BACK_OFF_MIN };
                self.against = 0;
                Some(Change::Fell)
            }
        }
    }

    /// Whether a client is to try a server that is down. Says so to one client at a time: the next has to wait for twice as long as this one had.
    pub(super) fn claim_trial(&mut self, now: Instant) -> bool {
        match (&mut self.state, self.recovery) {
            (State::Down { trial_at, back_off, .. }, Recovery::Trials) if *trial_at <= now => {
                *trial_at = now + *back_off;
                *back_off = (2 * *back_off).min(BACK_OFF_MAX);
                true
            }
            _ => false,
        }
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RISE: u32 = 2;
    const FALL: u32 = 3;

    fn checked() -> Health {
        Health::new(Some(HealthConfig { rise: RISE, fall: FALL, ..HealthConfig::default() }))
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    fn fail(health: &mut Health, times: u32, now: Instant) -> Option<Change> {
        (0..times).map(|_| health.failed(&refused(), now)).last().flatten()
    }

    /// A server that is not checked and went down at this time.
    fn fallen(now: Instant) -> Health {
        let mut health = Health::new(None);
        assert_eq!(fail(&mut health, PASSIVE_FALL, now), Some(Change::Fell));
        health
    }

    #[test]
    fn up_falls_at_the_last_of_failures_in_a_row() {
        let (mut health, now) = (checked(), Instant::now());
        assert_eq!((health.failed(&refused(), now), health.failed(&refused(), now)), (None, None));
        assert_eq!(health.succeeded(now), None, "the row is broken");
        let outcomes: Vec<_> = (0..FALL).map(|_| health.failed(&refused(), now)).collect();
        assert_eq!(outcomes, [None, None, Some(Change::Fell)]);
        assert!(health.last_error().unwrap().contains("refused"));
    }

    #[test]
    fn down_rises_at_the_last_of_successes_in_a_row() {
        let (mut health, now) = (checked(), Instant::now());
        fail(&mut health, FALL, now);
        let now = now + DOWN_MIN;
        assert_eq!(health.succeeded(now), None);
        assert_eq!(health.failed(&refused(), now), None, "the row is broken");
        assert_eq!((health.succeeded(now), health.succeeded(now)), (None, Some(Change::Rose)));
        assert_eq!(health.failed(&refused(), now), None, "and failures count from the start");
    }

    #[test]
    fn down_does_not_rise_with_every_client_that_happens_to_succeed() {
        let now = Instant::now();
        let mut health = Health::new(Some(HealthConfig { rise: 1, fall: 1, ..HealthConfig::default() }));
        let changes: usize = (0..1000)
            .map(|count| now + count * DOWN_MIN / 500)
            .map(|now| {
                usize::from(health.failed(&refused(), now).is_some()) + usize::from(health.succeeded(now).is_some())
            })
            .sum();
        assert!(changes <= 4, "{changes} changes in 2 seconds");
    }

    #[test]
    fn down_and_checked_is_tried_by_no_client() {
        let (mut health, now) = (checked(), Instant::now());
        fail(&mut health, FALL, now);
        assert!(!health.claim_trial(now + 2 * BACK_OFF_MAX));
    }

    #[test]
    fn down_and_unchecked_is_tried_at_doubling_intervals_up_to_a_bound() {
        let mut now = Instant::now();
        let mut health = fallen(now);
        let mut waited = Vec::new();
        for _ in 0..9 {
            let since = now;
            while !health.claim_trial(now) {
                now += Duration::from_secs(1);
            }
            assert!(!health.claim_trial(now), "one client at a time");
            assert_eq!(health.failed(&refused(), now), None);
            waited.push((now - since).as_secs());
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn down_and_unchecked_rises_at_the_first_success_and_forgets_its_back_off() {
        let now = Instant::now();
        let mut health = fallen(now);
        assert!(health.claim_trial(now + BACK_OFF_MIN));
        assert_eq!(health.succeeded(now + BACK_OFF_MIN), Some(Change::Rose));
        fail(&mut health, PASSIVE_FALL, now);
        assert!(health.claim_trial(now + BACK_OFF_MIN));
    }
}
