//! The census as series.

use std::io;
use std::sync::Arc;

use listener::TcpState;
use metrics::Gauge;

use crate::census::Census;
use crate::listeners::state_series;
use crate::registry::Registry;
use crate::source::{KERNEL_TIER, Source};

/// Shows the sockets of every listener.
pub(super) struct SocketCensus {
    census: Arc<Census>,
    sources: Vec<Arc<dyn Source>>,
    gauges: Vec<[Gauge; TcpState::ALL.len()]>,
}

impl SocketCensus {
    pub(super) fn register(registry: &Registry, sources: &[Arc<dyn Source>], census: Arc<Census>) -> SocketCensus {
        let states = |source: &Arc<dyn Source>| TcpState::ALL.map(|state| state_series(registry, source.name(), state));
        SocketCensus { census, gauges: sources.iter().map(states).collect(), sources: sources.to_vec() }
    }

    /// Counts, and sets the series only if every count is good.
    pub(super) fn collect(&mut self) -> io::Result<()> {
        for ((source, gauges), counts) in self.sources.iter().zip(&self.gauges).zip(self.census.counts()?) {
            for state in TcpState::ALL {
                // The half-open queue is read at every scrape, which is newer.
                if state != TcpState::SynReceived || source.tier() == KERNEL_TIER {
                    gauges[state as usize].set(counts[state as usize] as f64);
                }
            }
        }
        Ok(())
    }
}
