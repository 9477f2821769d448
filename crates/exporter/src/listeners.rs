//! The series of one listener that are published at each scrape.

use listener::{Counter, DropReason, Stats, TcpState, Transition};
use metrics::{Counter as Series, Gauge};

use crate::catalog;
use crate::registry::Registry;
use crate::source::{ConnectionCounts, KERNEL_TIER, Source};
use crate::transitions;

/// Handles of one listener's series, registered once so that each is there, at 0, from the first scrape on.
pub(crate) struct ListenerSeries {
    listener: String,
    counters: [Series; Counter::ALL.len()],
    drops: [Series; DropReason::ALL.len()],
    transitions: [Series; Transition::ALL.len()],
    gauges: Gauges,
    accepted: Series,
    received_bytes: Series,
    sent_bytes: Series,
}

struct Gauges {
    half_open: Gauge,
    half_open_limit: Gauge,
    high_watermark: Gauge,
    low_watermark: Gauge,
    syncookies_active: Gauge,
    accept_queue: Gauge,
    accept_queue_limit: Gauge,
    syn_received: Gauge,
    connections_open: Gauge,
    connections_limit: Gauge,
    transitions_complete: Gauge,
}

impl ListenerSeries {
    /// Registers every series of `source`.
    pub(crate) fn register(registry: &Registry, source: &dyn Source) -> ListenerSeries {
        let name = source.name();
        let series = ListenerSeries {
            listener: name.to_owned(),
            counters: Counter::ALL.map(|counter| counter_series(registry, name, counter)),
            drops: DropReason::ALL.map(|reason| {
                let labels = [("listener", name), ("reason", reason.label())];
                registry.counter("portcullis_packets_dropped_total", &labels)
            }),
            transitions: Transition::ALL.map(|Transition { from, to }| {
                let labels = [("listener", name), ("from", from.label()), ("to", to.label())];
                registry.counter("portcullis_state_transitions_total", &labels)
            }),
            gauges: Gauges::register(registry, name),
            accepted: registry.counter("portcullis_connections_accepted_total", &[("listener", name)]),
            received_bytes: registry.counter("portcullis_received_bytes_total", &[("listener", name)]),
            sent_bytes: registry.counter("portcullis_sent_bytes_total", &[("listener", name)]),
        };
        series.publish_connections(registry, &source.connections());
        series
    }

    /// Brings every series up to date; `stats` and `connections` are the source's, read once for this scrape.
    pub(crate) fn publish(
        &self,
        registry: &Registry,
        source: &dyn Source,
        stats: &Stats,
        connections: &ConnectionCounts,
    ) {
        for (series, counter) in self.counters.iter().zip(Counter::ALL) {
            series.absolute(stats.get(counter));
        }
        for (series, reason) in self.drops.iter().zip(DropReason::ALL) {
            series.absolute(stats.dropped(reason));
        }
        let kernels = source.transitions();
        let transitions = transitions::counts(source.tier(), kernels.as_ref(), stats);
        for (series, count) in self.transitions.iter().zip(transitions) {
            series.absolute(count);
        }
        self.gauges.transitions_complete.set(f64::from(kernels.is_some()));
        self.gauges.connections_open.set(connections.open() as f64);
        self.gauges.connections_limit.set(connections.limit.map_or(f64::INFINITY, |limit| limit as f64));
        self.gauges.publish(source);
        self.publish_connections(registry, connections);
    }

    fn publish_connections(&self, registry: &Registry, counts: &ConnectionCounts) {
        self.accepted.absolute(counts.accepted);
        self.received_bytes.absolute(counts.received_bytes);
        self.sent_bytes.absolute(counts.sent_bytes);
        let families = [
            ("portcullis_connections_closed_total", &counts.closed),
            ("portcullis_connections_refused_total", &counts.refused),
        ];
        for (name, counts) in families {
            for &(reason, count) in counts {
                // The reasons are the source's to choose, so their series are looked up by name: a few, once per scrape.
                let labels = [("listener", self.listener.as_str()), ("reason", reason)];
                registry.counter(name, &labels).absolute(count);
            }
        }
    }
}

impl Gauges {
    fn register(registry: &Registry, listener: &str) -> Gauges {
        let gauge = |name| registry.gauge(name, &[("listener", listener)]);
        Gauges {
            half_open: gauge("portcullis_half_open"),
            half_open_limit: gauge("portcullis_half_open_limit"),
            high_watermark: gauge("portcullis_half_open_high_watermark"),
            low_watermark: gauge("portcullis_half_open_low_watermark"),
            syncookies_active: gauge("portcullis_syncookies_active"),
            accept_queue: gauge("portcullis_accept_queue"),
            accept_queue_limit: gauge("portcullis_accept_queue_limit"),
            syn_received: state_series(registry, listener, TcpState::SynReceived),
            connections_open: gauge("portcullis_connections_open"),
            connections_limit: gauge("portcullis_connections_limit"),
            transitions_complete: gauge("portcullis_state_transitions_complete"),
        }
    }

    fn publish(&self, source: &dyn Source) {
        // Read once, so that the queue and the state it stands for show the same number.
        let half_open = source.half_open() as f64;
        self.half_open.set(half_open);
        if source.tier() != KERNEL_TIER {
            self.syn_received.set(half_open);
        }
        self.half_open_limit.set(source.half_open_limit() as f64);
        let watermarks = source.watermarks();
        self.high_watermark.set(watermarks.high as f64);
        self.low_watermark.set(watermarks.low as f64);
        self.syncookies_active.set(f64::from(source.cookies_mode()));
        self.accept_queue.set(source.accept_queue() as f64);
        self.accept_queue_limit.set(source.accept_queue_limit() as f64);
    }
}

/// The gauge of a listener's sockets in one state.
pub(crate) fn state_series(registry: &Registry, listener: &str, state: TcpState) -> Gauge {
    registry.gauge("portcullis_connections", &[("listener", listener), ("state", state.label())])
}

fn counter_series(registry: &Registry, listener: &str, counter: Counter) -> Series {
    let place = catalog::place(counter);
    match place.part {
        None => registry.counter(place.name, &[("listener", listener)]),
        Some(part) => registry.counter(place.name, &[("listener", listener), part]),
    }
}
