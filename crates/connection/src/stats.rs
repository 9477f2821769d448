//! Counters of all connections of a listener.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::histogram::{DurationCounts, Durations};

/// How a connection ended, as its application saw it.
///
/// The first orderly reason (a FIN) stands until a disorderly one comes, which then stands: an idle timeout that leads to an abort is an
/// idle timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client's FIN was read before we closed.
    ClientFin,
    /// We closed, or shut down writing, first.
    LocalClose,
    /// The client sent RST.
    ClientReset,
    /// We sent RST: [`Connection::abort`](crate::Connection::abort).
    Aborted,
    /// Any other error: the network, the socket destroyed from outside.
    Error,
    /// The stream left our sight: [`Connection::into_tcp_stream`](crate::Connection::into_tcp_stream).
    HandedOver,
    /// The client sent nothing for [`Timeouts::first_byte`](crate::Timeouts::first_byte).
    FirstByteTimeout,
    /// No byte moved for [`Timeouts::idle`](crate::Timeouts::idle).
    IdleTimeout,
    /// After a FIN, no byte moved for [`Timeouts::half_close`](crate::Timeouts::half_close).
    HalfCloseTimeout,
    /// The kernel gave the client up (ETIMEDOUT): [`Timeouts::user_timeout`](crate::Timeouts::user_timeout),
    /// [`Timeouts::keepalive`](crate::Timeouts::keepalive), or the last of its retransmissions.
    UserTimeout,
    /// The client did not finish within the deadline of [`Connection::close`](crate::Connection::close).
    Deadline,
    /// We ended it because we are shutting down; noted by the front end.
    Drained,
    /// It was over a limit: [`Connection::refuse`](crate::Connection::refuse).
    Refused,
    /// It was idle, and made room for another in a full listener: [`AtLimit::Displace`](crate::AtLimit::Displace).
    Overload,
}

impl CloseReason {
    /// Every reason, in the order of the enum; `ALL[reason as usize] == reason`.
    pub const ALL: [CloseReason; 14] = [
        CloseReason::ClientFin,
        CloseReason::LocalClose,
        CloseReason::ClientReset,
        CloseReason::Aborted,
        CloseReason::Error,
        CloseReason::HandedOver,
        CloseReason::FirstByteTimeout,
        CloseReason::IdleTimeout,
        CloseReason::HalfCloseTimeout,
        CloseReason::UserTimeout,
        CloseReason::Deadline,
        CloseReason::Drained,
        CloseReason::Refused,
        CloseReason::Overload,
    ];

    /// The value of a `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            CloseReason::ClientFin => "client_fin",
            CloseReason::LocalClose => "local_close",
            CloseReason::ClientReset => "client_reset",
            CloseReason::Aborted => "aborted",
            CloseReason::Error => "error",
            CloseReason::HandedOver => "handed_over",
            CloseReason::FirstByteTimeout => "first_byte_timeout",
            CloseReason::IdleTimeout => "idle_timeout",
            CloseReason::HalfCloseTimeout => "half_close_timeout",
            CloseReason::UserTimeout => "user_timeout",
            CloseReason::Deadline => "deadline",
            CloseReason::Drained => "drained",
            CloseReason::Refused => "refused",
            CloseReason::Overload => "overload",
        }
    }
}

/// A counter on a cache line of its own, so that cores that count different things do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded(AtomicU64);

/// Upper bounds in seconds of the histogram of how long connections are open: from a request's time to a session's.
const DURATION_BUCKETS: &[f64] = &[0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0];

/// Counters shared by all connections of a listener; each only grows. Read one by one, so two of them may be a moment apart.
#[derive(Debug)]
pub struct ConnectionStats {
    received_bytes: Padded,
    sent_bytes: Padded,
    accepted: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
    durations: Durations,
    unaccepted: AtomicU64,
    time_waits_replaced: AtomicU64,
}

impl Default for ConnectionStats {
    fn default() -> ConnectionStats {
        let zero = AtomicU64::default;
        ConnectionStats {
            received_bytes: Padded::default(),
            sent_bytes: Padded::default(),
            accepted: zero(),
            closed: Default::default(),
            durations: Durations::new(DURATION_BUCKETS),
            unaccepted: zero(),
            time_waits_replaced: zero(),
        }
    }
}

impl ConnectionStats {
    /// Connections the application was given.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections that ended this way. Each accepted connection counts once, when its last half is dropped.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].load(Relaxed)
    }

    /// How long those that are closed were open: [`CloseSummary::duration`](crate::CloseSummary::duration).
    pub fn durations(&self) -> DurationCounts {
        self.durations.read()
    }

    /// Connections accepted and not closed.
    pub fn open(&self) -> u64 {
        // Closed is read first: read later, it could contain connections that `accepted` does not.
        let closed: u64 = self.closed.iter().map(|count| count.load(Relaxed)).sum();
        self.accepted().saturating_sub(closed)
    }

    /// Bytes the application read.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.0.load(Relaxed)
    }

    /// Bytes the application wrote, which the kernel may still be sending.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.0.load(Relaxed)
    }

    /// Connections that were established and reset again because nobody accepted them.
    pub fn unaccepted(&self) -> u64 {
        self.unaccepted.load(Relaxed)
    }

    /// Leftovers in TIME-WAIT that a new connection of the same 4-tuple ended early.
    pub fn time_waits_replaced(&self) -> u64 {
        self.time_waits_replaced.load(Relaxed)
    }

    pub(crate) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_closed(&self, reason: CloseReason, open_for: Duration) {
        self.closed[reason as usize].fetch_add(1, Relaxed);
        self.durations.observe(open_for);
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.received_bytes.0.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        self.sent_bytes.0.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn count_unaccepted(&self) {
        self.unaccepted.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_time_wait_replaced(&self) {
        self.time_waits_replaced.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_sits_at_its_own_index() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
