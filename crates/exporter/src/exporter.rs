//! The exporter: everything known, as text.

use std::sync::Arc;
use std::time::Instant;

use listener::{HANDSHAKE_BUCKETS, OCCUPANCY_BUCKETS, Stats};
use metrics::{Counter, Gauge};
use tokio::sync::Mutex;
use tracing::warn;

use crate::build::Build;
use crate::catalog::{self, PROCESS_CPU};
use crate::collect::Collectors;
use crate::error::ExporterError;
use crate::listeners::ListenerSeries;
use crate::readiness::Readiness;
use crate::registry::Registry;
use crate::reloads::Reloads;
use crate::reporter::Reporter;
use crate::source::{ConnectionCounts, Source};
use crate::surroundings::SurroundingSeries;
use crate::text::{self, Labelled};

/// Renders the state of every listener, of the kernel and of the process as Prometheus text.
///
/// Counts are published when they are asked for, so an exporter that nobody scrapes costs nothing. Several in one process are
/// independent of each other.
pub struct Exporter {
    registry: Registry,
    reporter: Arc<Reporter>,
    listeners: Vec<(Arc<dyn Source>, ListenerSeries)>,
    draining: Gauge,
    config: ConfigSeries,
    surroundings: SurroundingSeries,
    collectors: Arc<Mutex<Collectors>>,
}

impl Exporter {
    /// An exporter of `sources`, one per listener, and of nothing around them; `build` is what `portcullis_build_info` shows.
    ///
    /// Looks at the network namespace of the calling thread, now and later. Holds four descriptors.
    ///
    /// # Errors
    ///
    /// [`ExporterError::DuplicateListener`] if two sources have the same name.
    pub fn new(
        build: impl Into<Build>,
        sources: Vec<Arc<dyn Source>>,
        readiness: Arc<Readiness>,
    ) -> Result<Exporter, ExporterError> {
        Reporter::new(build, sources, readiness).map(|reporter| Exporter::of(Arc::new(reporter)))
    }

    /// An exporter of what this one knows, and whoever else asks it: sockets are counted once for all, so that a count may be two seconds
    /// old. Holds three descriptors more.
    pub fn of(reporter: Arc<Reporter>) -> Exporter {
        let registry = Registry::new();
        register_build_info(&registry, &reporter);
        let draining = registry.gauge("portcullis_draining", &[]);
        let collectors = Collectors::new(&registry, &reporter.sources, Arc::clone(&reporter.census));
        let series = |source: &Arc<dyn Source>| (Arc::clone(source), ListenerSeries::register(&registry, &**source));
        let listeners = reporter.sources.iter().map(series).collect();
        let (config, surroundings) = (ConfigSeries::register(&registry), SurroundingSeries::register(&registry));
        let collectors = Arc::new(Mutex::new(collectors));
        Exporter { registry, reporter, listeners, draining, config, surroundings, collectors }
    }

    /// Shows these reloads; without, there are none.
    pub fn with_reloads(mut self, reloads: Arc<Reloads>) -> Exporter {
        self.config.reloads = reloads;
        self
    }

    /// Everything as of now, in the text format version 0.0.4; what must be fetched from the kernel may be a second old.
    pub async fn render(&self) -> String {
        let cpu_seconds = self.collect().await;
        self.draining.set(f64::from(self.reporter.readiness.is_draining()));
        self.config.publish();
        self.surroundings.publish(&*self.reporter.surroundings);
        // One reading per source and scrape, for the counters and the histogram, so that they agree with each other.
        let readings: Vec<_> =
            self.listeners.iter().map(|(source, _)| (source.stats(), source.connections())).collect();
        for ((source, series), (stats, connections)) in self.listeners.iter().zip(&readings) {
            series.publish(&self.registry, &**source, stats, connections);
        }
        let mut out = self.registry.render();
        self.write_histograms(&mut out, &readings);
        text::write_upstreams(&mut out, &self.reporter.surroundings.upstreams());
        text::write_counter(&mut out, &PROCESS_CPU, cpu_seconds);
        out
    }

    /// The histograms of the listeners, of which these are the readings.
    fn write_histograms(&self, out: &mut String, readings: &[(Stats, ConnectionCounts)]) {
        let of_each = || self.listeners.iter().map(|(source, _)| &**source).zip(readings);
        let handshakes = of_each().map(|(source, (stats, _))| Labelled {
            labels: text::listener_label(source.name()),
            bounds: &HANDSHAKE_BUCKETS,
            counts: stats.handshake_buckets(),
            sum: stats.handshake_seconds_sum(),
        });
        text::write_histograms(out, &catalog::HANDSHAKE_DURATION, handshakes);
        let occupancy = of_each().map(|(source, (stats, _))| Labelled {
            labels: text::listener_label(source.name()),
            bounds: &OCCUPANCY_BUCKETS,
            counts: stats.occupancy_buckets(),
            // Without a queue nothing was ever put into it.
            sum: stats.occupancy_entries_sum() as f64 / source.half_open_limit().max(1) as f64,
        });
        text::write_histograms(out, &catalog::HALF_OPEN_OCCUPANCY, occupancy);
        let durations = of_each().map(|(source, (_, connections))| Labelled {
            labels: text::listener_label(source.name()),
            bounds: connections.durations.bounds,
            counts: &connections.durations.counts,
            sum: connections.durations.sum,
        });
        text::write_histograms(out, &catalog::CONNECTION_DURATION, durations);
    }

    pub(crate) fn reporter(&self) -> &Arc<Reporter> {
        &self.reporter
    }

    /// Runs the collectors unless they have just run; gives the process's CPU time.
    ///
    /// Scrapers that come meanwhile wait for the same run. If this one goes away, its run is finished nevertheless and the lock
    /// held until then: never are there two.
    async fn collect(&self) -> f64 {
        let mut collectors = Arc::clone(&self.collectors).lock_owned().await;
        if collectors.is_fresh(Instant::now()) {
            return collectors.cpu_seconds();
        }
        let run = tokio::task::spawn_blocking(move || {
            collectors.collect();
            collectors.cpu_seconds()
        });
        match run.await {
            Ok(cpu_seconds) => cpu_seconds,
            Err(error) => {
                warn!(%error, "the collectors did not run; their metrics keep their last values");
                self.collectors.lock().await.cpu_seconds()
            }
        }
    }
}

/// What is shown of the configuration.
struct ConfigSeries {
    reloads: Arc<Reloads>,
    succeeded: Counter,
    failed: Counter,
    last_successful: Gauge,
    last_success: Gauge,
}

impl ConfigSeries {
    fn register(registry: &Registry) -> ConfigSeries {
        let outcome = |word| registry.counter("portcullis_config_reloads_total", &[("outcome", word)]);
        let series = ConfigSeries {
            reloads: Arc::default(),
            succeeded: outcome("success"),
            failed: outcome("failure"),
            last_successful: registry.gauge("portcullis_config_last_reload_successful", &[]),
            last_success: registry.gauge("portcullis_config_last_reload_success_timestamp_seconds", &[]),
        };
        series.publish();
        series
    }

    fn publish(&self) {
        self.succeeded.absolute(self.reloads.succeeded());
        self.failed.absolute(self.reloads.failed());
        self.last_successful.set(f64::from(!self.reloads.last_failed()));
        self.last_success.set(self.reloads.last_success() as f64);
    }
}

fn register_build_info(registry: &Registry, reporter: &Reporter) {
    let Build { version, commit, .. } = &reporter.build;
    // All listeners of a process share a datapath; should they not, each datapath has its line.
    for source in &reporter.sources {
        let labels = [("version", &**version), ("commit", &**commit), ("datapath", source.tier())];
        registry.gauge("portcullis_build_info", &labels).set(1.0);
    }
}

#[cfg(test)]
mod tests;
