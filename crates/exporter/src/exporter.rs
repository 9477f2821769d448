//! The exporter: everything known, as text.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use listener::Stats;
use metrics::{Counter, Gauge};
use tokio::sync::Mutex;
use tracing::warn;

use crate::catalog::PROCESS_CPU;
use crate::census::{Census, KernelSockets, SocketTable};
use crate::collect::Collectors;
use crate::error::ExporterError;
use crate::listeners::ListenerSeries;
use crate::readiness::Readiness;
use crate::registry::Registry;
use crate::reloads::Reloads;
use crate::source::Source;
use crate::surroundings::{SurroundingSeries, Surroundings};
use crate::text::{self, Handshakes};

/// Renders the state of every listener, of the kernel and of the process as Prometheus text.
///
/// Counts are published when they are asked for, so an exporter that nobody scrapes costs nothing. Several in one process are
/// independent of each other.
pub struct Exporter {
    registry: Registry,
    listeners: Vec<(Arc<dyn Source>, ListenerSeries)>,
    readiness: Arc<Readiness>,
    draining: Gauge,
    config: ConfigSeries,
    surroundings: SurroundingSeries,
    collectors: Arc<Mutex<Collectors>>,
}

impl Exporter {
    /// An exporter of `sources`, one per listener; `version` is what `portcullis_build_info` shows.
    ///
    /// Looks at the network namespace of the calling thread, now and later. Holds four descriptors.
    ///
    /// # Errors
    ///
    /// [`ExporterError::DuplicateListener`] if two sources have the same name.
    pub fn new(
        version: &str,
        sources: Vec<Arc<dyn Source>>,
        readiness: Arc<Readiness>,
    ) -> Result<Exporter, ExporterError> {
        Exporter::with_sockets(version, sources, readiness, Box::new(KernelSockets::new()))
    }

    /// The same with another table of sockets than the kernel's.
    pub(crate) fn with_sockets(
        version: &str,
        sources: Vec<Arc<dyn Source>>,
        readiness: Arc<Readiness>,
        table: Box<dyn SocketTable>,
    ) -> Result<Exporter, ExporterError> {
        check_names(&sources)?;
        let registry = Registry::new();
        register_build_info(&registry, version, &sources);
        let census = Census::of(sources.clone(), table);
        let draining = registry.gauge("portcullis_draining", &[]);
        let collectors = Arc::new(Mutex::new(Collectors::new(&registry, &sources, census)));
        let listeners = sources
            .into_iter()
            .map(|source| (Arc::clone(&source), ListenerSeries::register(&registry, &*source)))
            .collect();
        let config = ConfigSeries::register(&registry);
        let surroundings = SurroundingSeries::register(&registry);
        Ok(Exporter { registry, listeners, readiness, draining, config, surroundings, collectors })
    }

    /// Shows these reloads; without, there are none.
    pub fn with_reloads(mut self, reloads: Arc<Reloads>) -> Exporter {
        self.config.reloads = reloads;
        self
    }

    /// Shows this of the process; without, there are no upstreams, no access log and no rotations.
    pub fn with_surroundings(mut self, surroundings: Arc<dyn Surroundings>) -> Exporter {
        self.surroundings.of = surroundings;
        self
    }

    /// Counts sockets by this census, which is of the same listeners in the same order: shared with others, it walks once for all. A count
    /// may then be two seconds old.
    pub async fn with_census(self, census: Arc<Census>) -> Exporter {
        self.collectors.lock().await.share(census);
        self
    }

    /// Everything as of now, in the text format version 0.0.4; what must be fetched from the kernel may be a second old.
    pub async fn render(&self) -> String {
        let cpu_seconds = self.collect().await;
        self.draining.set(f64::from(self.readiness.is_draining()));
        self.config.publish();
        self.surroundings.publish();
        // One reading per source and scrape, for the counters and the histogram, so that they agree with each other.
        let stats: Vec<Stats> = self.listeners.iter().map(|(source, _)| source.stats()).collect();
        for ((source, series), stats) in self.listeners.iter().zip(&stats) {
            series.publish(&self.registry, &**source, stats);
        }
        let mut out = self.registry.render();
        text::write_handshakes(
            &mut out,
            self.listeners.iter().zip(&stats).map(|((source, _), stats)| Handshakes {
                listener: source.name(),
                buckets: stats.handshake_buckets(),
                seconds_sum: stats.handshake_seconds_sum(),
            }),
        );
        text::write_upstreams(&mut out, &self.surroundings.of.upstreams());
        text::write_counter(&mut out, &PROCESS_CPU, cpu_seconds);
        out
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.readiness
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

fn check_names(sources: &[Arc<dyn Source>]) -> Result<(), ExporterError> {
    let mut names = HashSet::new();
    match sources.iter().find(|source| !names.insert(source.name())) {
        Some(twin) => Err(ExporterError::DuplicateListener(twin.name().to_owned())),
        None => Ok(()),
    }
}

fn register_build_info(registry: &Registry, version: &str, sources: &[Arc<dyn Source>]) {
    // All listeners of a process share a datapath; should they not, each datapath has its line.
    for source in sources {
        let labels = [("version", version), ("datapath", source.tier())];
        registry.gauge("portcullis_build_info", &labels).set(1.0);
    }
}

#[cfg(test)]
mod tests;
