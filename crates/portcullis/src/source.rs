//! A listener as the exporter sees it.

use std::net::SocketAddr;
use std::sync::Arc;

use connection::{AcceptGauge, CloseReason, ConnectionStats, DurationCounts, Gate, KernelGauge, Refused};
use exporter::{ConnectionCounts, Histogram, Source};
use listener::io::{EngineView, ModeSwitch};
use listener::{Stats, Watermarks};

/// Outlives its listener: the last counts stay to be read.
#[derive(Debug)]
pub(crate) struct ListenerSource {
    pub(crate) name: String,
    pub(crate) tier: &'static str,
    /// `None` in the kernel tier.
    pub(crate) view: Option<EngineView>,
    pub(crate) queue: Queue,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stats: Arc<ConnectionStats>,
    pub(crate) endpoints: Vec<SocketAddr>,
}

/// Where established connections wait for the application.
#[derive(Debug)]
pub(crate) enum Queue {
    Ours(AcceptGauge),
    /// One of each listening socket.
    Kernels(Vec<KernelGauge>),
}

impl Source for ListenerSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn stats(&self) -> Stats {
        self.view.as_ref().map(EngineView::stats).unwrap_or_default()
    }

    fn half_open(&self) -> u64 {
        self.view.as_ref().map_or(0, EngineView::half_open)
    }

    fn half_open_limit(&self) -> u64 {
        self.view.as_ref().map_or(0, EngineView::half_open_limit)
    }

    fn watermarks(&self) -> Watermarks {
        self.view.as_ref().map(EngineView::watermarks).unwrap_or_default()
    }

    fn cookies_mode(&self) -> bool {
        self.view.as_ref().is_some_and(EngineView::cookies_mode)
    }

    fn accept_queue(&self) -> u64 {
        match &self.queue {
            Queue::Ours(gauge) => gauge.len() as u64,
            Queue::Kernels(gauges) => gauges.iter().map(|gauge| u64::from(gauge.queue().waiting)).sum(),
        }
    }

    fn accept_queue_limit(&self) -> u64 {
        match &self.queue {
            Queue::Ours(gauge) => gauge.limit() as u64,
            Queue::Kernels(gauges) => gauges.iter().map(|gauge| u64::from(gauge.queue().limit)).sum(),
        }
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        self.endpoints.clone()
    }

    fn connections(&self) -> ConnectionCounts {
        // First of all: its counts may lag behind those of `closed`, never run ahead of them.
        let DurationCounts { bounds, counts, sum } = self.stats.durations();
        let limit = self.gate.rules().connections_max;
        ConnectionCounts {
            durations: Histogram { bounds, counts, sum },
            limit: (limit != usize::MAX).then_some(limit as u64),
            // Closed first: read later, it could contain connections that `accepted` does not.
            closed: CloseReason::ALL.map(|reason| (reason.label(), self.stats.closed(reason))).to_vec(),
            refused: Refused::ALL.map(|reason| (reason.label(), self.gate.refused(reason))).to_vec(),
            accepted: self.stats.accepted(),
            received_bytes: self.stats.received_bytes(),
            sent_bytes: self.stats.sent_bytes(),
        }
    }

    fn switches(&self) -> Vec<ModeSwitch> {
        self.view.as_ref().map(EngineView::switches).unwrap_or_default()
    }

    fn tier(&self) -> &'static str {
        self.tier
    }
}
