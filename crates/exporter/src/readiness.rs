//! Whether this process wants traffic.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by whoever starts and stops the listeners, read by `/readyz` and `portcullis_draining`.
///
/// Starts as not ready and not draining.
#[derive(Debug, Default)]
pub struct Readiness {
    ready: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// Says whether the listeners stand. Of the servers behind them it says nothing: those are in `portcullis_upstream_up`.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Says whether connections are finishing and no new ones are taken. While draining, `/readyz` is 503, ready or not.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Whether connections are finishing and no new ones are taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether new connections are welcome, which is while the listeners stand and there is no drain, or why not.
    pub fn check(&self) -> Result<(), NotReady> {
        if self.is_draining() {
            return Err(NotReady::Draining);
        }
        if !self.ready.load(Ordering::Relaxed) {
            return Err(NotReady::NotStarted);
        }
        Ok(())
    }
}

/// Why new connections are not welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The listeners are not answering SYNs yet, or not any more.
    NotStarted,
    /// Connections are finishing before the process ends.
    Draining,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotReady::NotStarted => "the listeners are not up",
            NotReady::Draining => "draining",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_wins_over_ready() {
        let readiness = Readiness::default();
        assert_eq!(readiness.check(), Err(NotReady::NotStarted));
        readiness.set_ready(true);
        assert_eq!(readiness.check(), Ok(()));
        readiness.set_draining(true);
        assert_eq!(readiness.check(), Err(NotReady::Draining));
        readiness.set_draining(false);
        assert_eq!(readiness.check(), Ok(()));
    }
}
