//! What is to be told of the process, at one place for all who ask: scrapers, browsers, `portcullis ctl`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use listener::io::ModeSwitch;
use listener::{Counter, DropReason, HANDSHAKE_BUCKETS, Mode, Stats, TcpState, Transition};

use crate::build::Build;
use crate::catalog;
use crate::census::{Census, StateCounts};
use crate::error::ExporterError;
use crate::readiness::Readiness;
use crate::source::{KERNEL_TIER, Source};
use crate::status::{
    AccessLogStatus, HistogramStatus, KeysStatus, ListenerStatus, Status, SwitchStatus, Traffic, TransitionStatus,
    TransitionsStatus, UpstreamStatus,
};
use crate::surroundings::{Nothing, Surroundings, UpstreamCounts};
use crate::transitions;

/// Knows whom to ask, and makes the [`Status`] of the answers.
pub struct Reporter {
    pub(crate) build: Build,
    pub(crate) sources: Vec<Arc<dyn Source>>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) surroundings: Arc<dyn Surroundings>,
    pub(crate) census: Arc<Census>,
    began: Instant,
}

impl Reporter {
    /// For `sources`, one per listener. The clock of the status begins to run here.
    ///
    /// Looks at the network namespace of the calling thread, now and later. Holds a descriptor.
    ///
    /// # Errors
    ///
    /// [`ExporterError::DuplicateListener`] if two sources have the same name.
    pub fn new(
        build: impl Into<Build>,
        sources: Vec<Arc<dyn Source>>,
        readiness: Arc<Readiness>,
    ) -> Result<Reporter, ExporterError> {
        let census = Census::new(sources.clone());
        Reporter::with_census(build, sources, readiness, census)
    }

    /// The same with a census of the same sources, in the same order.
    pub(crate) fn with_census(
        build: impl Into<Build>,
        sources: Vec<Arc<dyn Source>>,
        readiness: Arc<Readiness>,
        census: Arc<Census>,
    ) -> Result<Reporter, ExporterError> {
        check_names(&sources)?;
        let (build, began) = (build.into(), Instant::now());
        Ok(Reporter { build, sources, readiness, surroundings: Arc::new(Nothing), census, began })
    }

    /// Tells this of the process besides; without, there are no upstreams, no access log and no
    /// rotations.
    pub fn with_surroundings(self, surroundings: Arc<dyn Surroundings>) -> Reporter {
        Reporter { surroundings, ..self }
    }

    /// The listeners.
    pub fn sources(&self) -> &[Arc<dyn Source>] {
        &self.sources
    }

    /// Everything as of now; what must be fetched from the kernel may be a second old.
    ///
    /// Blocks for system calls: not for a runtime's worker thread.
    pub fn status(&self) -> Status {
        // The dearest first, so that the counts are as old as the clock says.
        let states = self.census.counts().ok();
        let clock = self.began.elapsed();
        let mut upstreams: BTreeMap<String, Vec<UpstreamCounts>> = self.surroundings.upstreams().into_iter().collect();
        Status {
            version: self.build.version.clone(),
            pid: std::process::id(),
            uptime_seconds: clock.as_secs(),
            clock_seconds: clock.as_micros() as f64 / 1e6,
            unix_seconds: unix_seconds(SystemTime::now()),
            draining: self.readiness.is_draining(),
            log_level: self.surroundings.log_level().to_owned(),
            access_log: self
                .surroundings
                .access_log()
                .map(|log| AccessLogStatus { written: log.written, dropped: log.dropped }),
            keys: self.surroundings.key_rotations().map(|keys| KeysStatus {
                rotations: keys.count,
                from_unix_seconds: (keys.count > 0).then_some(keys.from_unix_seconds),
            }),
            listeners: (0..)
                .zip(&self.sources)
                .map(|(index, source)| {
                    let states = states.as_ref().and_then(|all| all.get(index));
                    let upstreams = upstreams.remove(source.name()).unwrap_or_default();
                    listener_status(&**source, states, upstreams)
                })
                .collect(),
        }
    }
}

fn check_names(sources: &[Arc<dyn Source>]) -> Result<(), ExporterError> {
    let mut names = HashSet::new();
    match sources.iter().find(|source| !names.insert(source.name())) {
        Some(twin) => Err(ExporterError::DuplicateListener(twin.name().to_owned())),
        None => Ok(()),
    }
}

fn listener_status(
    source: &dyn Source,
    states: Option<&StateCounts>,
    upstreams: Vec<UpstreamCounts>,
) -> ListenerStatus {
    let (stats, connections) = (source.stats(), source.connections());
    let watermarks = source.watermarks();
    let cookies_invalid = parts_of(&stats, "portcullis_syncookies_invalid_total");
    ListenerStatus {
        name: source.name().to_owned(),
        bind: source.endpoints(),
        tier: source.tier().to_owned(),
        mode: mode(source).to_owned(),
        half_open: source.half_open(),
        half_open_max: source.half_open_limit(),
        half_open_high: watermarks.high,
        half_open_low: watermarks.low,
        half_open_inserted: stats.get(Counter::HalfOpenInserted),
        half_open_removed: parts_of(&stats, "portcullis_half_open_removed_total"),
        half_open_bypassed: parts_of(&stats, "portcullis_half_open_bypassed_total"),
        accept_queue: source.accept_queue(),
        accept_queue_max: source.accept_queue_limit(),
        accept_queue_overflows: stats.get(Counter::AcceptQueueOverflows),
        open: connections.open(),
        connections_max: connections.limit,
        accepted: connections.accepted,
        closed: by_reason(connections.closed),
        refused: by_reason(connections.refused),
        states: states.map(by_name),
        transitions: transitions_status(source, &stats),
        traffic: Traffic { received_bytes: connections.received_bytes, sent_bytes: connections.sent_bytes },
        syns: stats.get(Counter::SynsReceived),
        syns_denied: stats.get(Counter::SynsDenied),
        synacks_sent: stats.get(Counter::SynAcksSent),
        cookies_sent: stats.get(Counter::CookiesSent),
        cookies_valid: stats.get(Counter::CookiesValid),
        cookies_bad: cookies_invalid.values().sum(),
        cookies_invalid,
        handshakes: parts_of(&stats, "portcullis_handshakes_completed_total"),
        handshakes_refused: parts_of(&stats, "portcullis_handshakes_refused_total"),
        handshake_seconds: HistogramStatus {
            bounds: HANDSHAKE_BUCKETS.to_vec(),
            counts: stats.handshake_buckets().to_vec(),
            sum: stats.handshake_seconds_sum(),
        },
        resets_sent: stats.get(Counter::ResetsSent),
        challenge_acks_sent: stats.get(Counter::ChallengeAcksSent),
        replies_suppressed: stats.get(Counter::RepliesOverBudget),
        dropped: DropReason::ALL
            .into_iter()
            .map(|reason| (reason.label().to_owned(), stats.dropped(reason)))
            .filter(|(_, count)| *count > 0)
            .collect(),
        ring_dropped: stats.get(Counter::RingDropped),
        switches: source.switches().into_iter().map(switch).collect(),
        upstreams: upstreams.into_iter().map(upstream).collect(),
    }
}

fn mode(source: &dyn Source) -> &'static str {
    match source.tier() {
        KERNEL_TIER => "kernel",
        _ if source.cookies_mode() => "cookies",
        _ => "queue",
    }
}

/// The parts of a family of metrics, so that they are called the same here and there.
fn parts_of(stats: &Stats, family: &str) -> BTreeMap<String, u64> {
    let part = |counter: Counter| {
        let place = catalog::place(counter);
        let (_, word) = place.part.filter(|_| place.name == family)?;
        Some((word.to_owned(), stats.get(counter)))
    };
    Counter::ALL.into_iter().filter_map(part).collect()
}

fn by_reason(counts: Vec<(&'static str, u64)>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
}

/// All eleven, by their RFC names.
fn by_name(counts: &StateCounts) -> BTreeMap<String, u64> {
    TcpState::ALL.into_iter().map(|state| (state.to_string(), counts[state as usize])).collect()
}

fn transitions_status(source: &dyn Source, stats: &Stats) -> TransitionsStatus {
    let kernels = source.transitions();
    let counts = transitions::counts(source.tier(), kernels.as_ref(), stats);
    let step = |(Transition { from, to }, count): (Transition, u64)| TransitionStatus {
        from: from.to_string(),
        to: to.to_string(),
        count,
    };
    let counts = Transition::ALL.into_iter().zip(counts).map(step).collect();
    TransitionsStatus { complete: kernels.is_some(), counts }
}

fn switch(ModeSwitch { to, at }: ModeSwitch) -> SwitchStatus {
    let to = match to {
        Mode::Queue => "queue",
        Mode::Cookies => "cookies",
    };
    SwitchStatus { to: to.to_owned(), unix_seconds: unix_seconds(at) }
}

fn upstream(server: UpstreamCounts) -> UpstreamStatus {
    UpstreamStatus {
        connect_failures: server.failed(),
        server: server.server,
        up: server.up,
        connections: server.connections,
        connects: server.connects,
        check_failures: server.check_failures,
        last_error: server.last_error,
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
