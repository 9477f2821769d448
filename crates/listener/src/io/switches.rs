//! The last switches of a listener's mode, with their times, for people who look.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::pressure::Mode;

/// A switch of a listener between its half-open queue and cookies alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSwitch {
    /// The mode since then.
    pub to: Mode,
    /// When, by the wall clock.
    pub at: SystemTime,
}

/// The last [`SWITCHES_MAX`] switches. A switch takes a lock that nobody else wants, and there are a few in a minute at most.
#[derive(Debug, Default)]
pub(super) struct SwitchRecord(Mutex<VecDeque<ModeSwitch>>);

/// Switches that are remembered; the oldest make way. 24 bytes each.
const SWITCHES_MAX: usize = 16;

impl SwitchRecord {
    pub(super) fn note(&self, to: Mode) {
        self.note_at(to, SystemTime::now());
    }

    fn note_at(&self, to: Mode, at: SystemTime) {
        let mut switches = self.lock();
        if switches.len() == SWITCHES_MAX {
            switches.pop_front();
        }
        switches.push_back(ModeSwitch { to, at });
    }

    /// The oldest first.
    pub(super) fn read(&self) -> Vec<ModeSwitch> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<ModeSwitch>> {
        // Nothing under the lock leaves it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_makes_way() {
        let (record, begin) = (SwitchRecord::default(), SystemTime::UNIX_EPOCH);
        for second in 0..SWITCHES_MAX as u64 + 3 {
            record.note_at(Mode::Cookies, begin + Duration::from_secs(second));
        }
        let seen = record.read();
        assert_eq!((seen.len(), seen[0].at), (SWITCHES_MAX, begin + Duration::from_secs(3)));
    }
}
