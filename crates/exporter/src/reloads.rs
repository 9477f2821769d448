//! What became of the reloads of the configuration.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Counted by whoever reloads, read by the exporter. The start counts as good, and is not among the reloads.
#[derive(Debug)]
pub struct Reloads {
    succeeded: AtomicU64,
    failed: AtomicU64,
    last_failed: AtomicBool,
    /// Seconds since 1970.
    last_success: AtomicU64,
}

impl Default for Reloads {
    fn default() -> Reloads {
        let zero = AtomicU64::default;
        Reloads {
            succeeded: zero(),
            failed: zero(),
            last_failed: AtomicBool::new(false),
            last_success: unix_now().into(),
        }
    }
}

impl Reloads {
    /// A new configuration is in force.
    pub fn count_success(&self) {
        self.succeeded.fetch_add(1, Relaxed);
        self.last_failed.store(false, Relaxed);
        self.last_success.store(unix_now(), Relaxed);
    }

    /// There was something wrong with it, and the old one is still in force.
    pub fn count_failure(&self) {
        self.failed.fetch_add(1, Relaxed);
        self.last_failed.store(true, Relaxed);
    }

    /// Reloads that brought a new configuration into force.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Relaxed)
    }

    /// Reloads that left the old one in force.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    pub(crate) fn last_failed(&self) -> bool {
        self.last_failed.load(Relaxed)
    }

    pub(crate) fn last_success(&self) -> u64 {
        self.last_success.load(Relaxed)
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
