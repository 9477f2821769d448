//! The order that something takes the place of what was there: new master keys, other lists.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What an engine tells its threads, of which the latest counts. They look at a number, and take the lock only when it has changed.
#[derive(Debug)]
pub(super) struct Latest<T> {
    number: AtomicU64,
    told: Mutex<Option<T>>,
}

impl<T> Default for Latest<T> {
    fn default() -> Latest<T> {
        Latest { number: AtomicU64::new(0), told: Mutex::new(None) }
    }
}

impl<T: Clone> Latest<T> {
    /// Takes the place of what was told before.
    pub(super) fn tell(&self, news: T) {
        let mut told = self.lock();
        *told = Some(news);
        self.number.fetch_add(1, Ordering::Release);
    }

    /// What was told since the order of the number `seen`, which becomes that of the latest.
    pub(super) fn since(&self, seen: &mut u64) -> Option<T> {
        if self.number.load(Ordering::Acquire) == *seen {
            return None;
        }
        let told = self.lock();
        *seen = self.number.load(Ordering::Acquire);
        told.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        // Nothing under the lock leaves it half done.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_hears_the_latest_once() {
        let (orders, mut seen, mut other) = (Latest::default(), 0, 0);
        assert!(orders.since(&mut seen).is_none(), "nothing was told");
        for news in ["one", "another"] {
            orders.tell(news);
            assert_eq!(orders.since(&mut seen), Some(news));
            assert_eq!(orders.since(&mut seen), None);
        }
        assert_eq!(orders.since(&mut other), Some("another"));
    }
}
