//! The exporter: everything known, as text.

use std::sync::{Arc, Mutex, PoisonError};

use listener::{HANDSHAKE_BUCKETS, OCCUPANCY_BUCKETS, Stats};
use metrics::{Counter, Gauge};

use crate::build::Build;
use crate::catalog::{self, PROCESS_CPU};
use crate::clerk::{Clerk, Unanswered};
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
    series: Arc<Series>,
    reloads: Arc<Reloads>,
    clerk: Clerk,
}

/// What is rendered, and whom to ask for it.
struct Series {
    registry: Registry,
    reporter: Arc<Reporter>,
    listeners: Vec<(Arc<dyn Source>, ListenerSeries)>,
    draining: Gauge,
    config: ConfigSeries,
    surroundings: SurroundingSeries,
    refused_connections: Counter,
    collectors: Mutex<Collectors>,
}

impl Exporter {
    /// An exporter of `sources`, one per listener, and of nothing around them; `build` is what `portcullis_build_info` shows.
    ///
    /// Looks at the network namespace of the calling thread, now and later. Holds four descriptors.
    ///
    /// # Errors
    ///
    /// [`ExporterError::DuplicateListener`] if two sources have the same name; [`ExporterError::Thread`] if there can be no more threads.
    pub fn new(
        build: impl Into<Build>,
        sources: Vec<Arc<dyn Source>>,
        readiness: Arc<Readiness>,
    ) -> Result<Exporter, ExporterError> {
        Exporter::of(Arc::new(Reporter::new(build, sources, readiness)?))
    }

    /// An exporter of what this one knows, and whoever else asks it: sockets are counted once for all, so that a count may be a second
    /// old. Holds three descriptors more, and a thread, in which it looks at the network namespace of the calling one.
    ///
    /// # Errors
    ///
    /// [`ExporterError::Thread`] if there can be no more threads.
    pub fn of(reporter: Arc<Reporter>) -> Result<Exporter, ExporterError> {
        let clerk = Clerk::start().map_err(ExporterError::Thread)?;
        let registry = Registry::new();
        register_build_info(&registry, &reporter);
        let draining = registry.gauge("portcullis_draining", &[]);
        let refused_connections = registry.counter("portcullis_admin_connections_refused_total", &[]);
        let collectors = Collectors::new(&registry, &reporter.sources, Arc::clone(&reporter.census));
        let series = |source: &Arc<dyn Source>| (Arc::clone(source), ListenerSeries::register(&registry, &**source));
        let listeners = reporter.sources.iter().map(series).collect();
        let (config, surroundings) = (ConfigSeries::register(&registry), SurroundingSeries::register(&registry));
        let collectors = Mutex::new(collectors);
        let series =
            Series { registry, reporter, listeners, draining, config, surroundings, refused_connections, collectors };
        Ok(Exporter { series: Arc::new(series), reloads: Arc::default(), clerk })
    }

    /// Shows these reloads; without, there are none.
    pub fn with_reloads(self, reloads: Arc<Reloads>) -> Exporter {
        Exporter { reloads, ..self }
    }

    /// Everything as of now, in the text format version 0.0.4; counts of the kernel's sockets may be a second old.
    ///
    /// # Errors
    ///
    /// [`Unanswered`] if it cannot be had now; the next may be.
    pub async fn render(&self) -> Result<String, Unanswered> {
        let (series, reloads) = (Arc::clone(&self.series), Arc::clone(&self.reloads));
        self.clerk.ask(move || series.render(&reloads)).await
    }

    /// The status as JSON, on one line.
    pub(crate) async fn status_json(&self) -> Result<String, Unanswered> {
        let reporter = Arc::clone(self.reporter());
        let json = self.clerk.ask(move || serde_json::to_string(&reporter.status())).await?;
        json.map_err(|_| Unanswered::Failed)
    }

    /// The admin server has closed a connection for want of a place.
    pub(crate) fn count_refused_connection(&self) {
        self.series.refused_connections.increment(1);
    }

    pub(crate) fn reporter(&self) -> &Arc<Reporter> {
        &self.series.reporter
    }
}

impl Series {
    fn render(&self, reloads: &Reloads) -> String {
        let cpu_seconds = self.collect();
        self.draining.set(f64::from(self.reporter.readiness.is_draining()));
        self.config.publish(reloads);
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

    /// Runs the collectors; gives the process's CPU time.
    fn collect(&self) -> f64 {
        // A run that panicked has set what it had, and the next one begins anew.
        let mut collectors = self.collectors.lock().unwrap_or_else(PoisonError::into_inner);
        collectors.collect();
        collectors.cpu_seconds()
    }
}

/// What is shown of the configuration.
struct ConfigSeries {
    succeeded: Counter,
    failed: Counter,
    last_successful: Gauge,
    last_success: Gauge,
}

impl ConfigSeries {
    fn register(registry: &Registry) -> ConfigSeries {
        let outcome = |word| registry.counter("portcullis_config_reloads_total", &[("outcome", word)]);
        let series = ConfigSeries {
            succeeded: outcome("success"),
            failed: outcome("failure"),
            last_successful: registry.gauge("portcullis_config_last_reload_successful", &[]),
            last_success: registry.gauge("portcullis_config_last_reload_success_timestamp_seconds", &[]),
        };
        series.publish(&Reloads::default());
        series
    }

    fn publish(&self, reloads: &Reloads) {
        self.succeeded.absolute(reloads.succeeded());
        self.failed.absolute(reloads.failed());
        self.last_successful.set(f64::from(!reloads.last_failed()));
        self.last_success.set(reloads.last_success() as f64);
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
