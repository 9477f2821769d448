//! The order that new master keys take the place of the old ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cookie::KeySchedule;

/// What an engine tells its threads of master keys. They look at a number, and take the lock only when it has changed.
#[derive(Debug, Default)]
pub(super) struct KeyOrders {
    number: AtomicU64,
    masters: Mutex<Option<KeySchedule>>,
}

impl KeyOrders {
    /// Takes the place of what was told before.
    pub(super) fn tell(&self, masters: KeySchedule) {
        let mut told = self.lock();
        *told = Some(masters);
        self.number.fetch_add(1, Ordering::Release);
    }

    /// What was told since the order of the number `seen`, which becomes that of the latest.
    pub(super) fn since(&self, seen: &mut u64) -> Option<KeySchedule> {
        if self.number.load(Ordering::Acquire) == *seen {
            return None;
        }
        let told = self.lock();
        *seen = self.number.load(Ordering::Acquire);
        told.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<KeySchedule>> {
        // Nothing under the lock leaves it half done.
        self.masters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cookie::MasterKey;

    #[test]
    fn each_thread_hears_the_latest_once() {
        let (orders, mut seen, mut other) = (KeyOrders::default(), 0, 0);
        assert!(orders.since(&mut seen).is_none(), "nothing was told");
        let masters = [1, 2].map(|byte| MasterKey::from_bytes([byte; 32]));
        for master in &masters {
            orders.tell(master.clone().into());
            assert!(orders.since(&mut seen).unwrap().last().is(master));
            assert!(orders.since(&mut seen).is_none());
        }
        assert!(orders.since(&mut other).unwrap().last().is(&masters[1]));
    }
}
