//! What passed, and when.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Counts bytes, and knows when anything moved last. Atomic only so that the relay may move between a runtime's threads.
pub(super) struct Meter {
    pub(super) to_upstream: AtomicU64,
    pub(super) to_client: AtomicU64,
    start: Instant,
    /// Microseconds from `start` to the last progress.
    last: AtomicU64,
    /// Whether a direction has come to its end.
    ended: AtomicBool,
}

impl Meter {
    pub(super) fn new() -> Meter {
        let zero = AtomicU64::default;
        let (start, ended) = (Instant::now(), AtomicBool::new(false));
        Meter { to_upstream: zero(), to_client: zero(), start, last: zero(), ended }
    }

    pub(super) fn moved(&self, len: usize, passed: &AtomicU64) {
        passed.fetch_add(len as u64, Relaxed);
        self.last.store(self.start.elapsed().as_micros() as u64, Relaxed);
    }

    /// Notes that a direction has ended, and says whether the other one had.
    pub(super) fn ends_last(&self) -> bool {
        self.ended.swap(true, Relaxed)
    }

    /// Waits until nothing has moved for `limit`; for ever without one. Progress costs no timer: the deadline is looked at when it is due.
    pub(super) async fn stalled(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return pending().await };
        loop {
            // A limit so far off that the clock cannot express it is none.
            let deadline = self.start.checked_add(Duration::from_micros(self.last.load(Relaxed)).saturating_add(limit));
            let Some(deadline) = deadline else { return pending().await };
            if Instant::now() >= deadline {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}
