//! Whether a collector works, as node_exporter shows it.

use std::io;
use std::time::Instant;

use metrics::Gauge;
use tracing::{info, warn};

use crate::registry::Registry;

/// The success and duration of one collector's last run.
pub(super) struct Health {
    collector: &'static str,
    success: Gauge,
    duration: Gauge,
    failing: bool,
}

impl Health {
    pub(super) fn register(registry: &Registry, collector: &'static str) -> Health {
        Health {
            collector,
            success: registry.gauge("portcullis_collector_success", &[("collector", collector)]),
            duration: registry.gauge("portcullis_collector_duration_seconds", &[("collector", collector)]),
            failing: false,
        }
    }

    /// Runs the collector, times it, and logs the first failure of a row and the recovery.
    pub(super) fn watch(&mut self, collect: impl FnOnce() -> io::Result<()>) {
        let start = Instant::now();
        let outcome = collect();
        self.duration.set(start.elapsed().as_secs_f64());
        self.success.set(f64::from(outcome.is_ok()));
        match outcome {
            Err(error) if !self.failing => {
                self.failing = true;
                warn!(collector = self.collector, %error, "collector fails; its metrics keep their last values");
            }
            Ok(()) if self.failing => {
                self.failing = false;
                info!(collector = self.collector, "collector works again");
            }
            Ok(()) | Err(_) => {}
        }
    }
}
