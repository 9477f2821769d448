//! What the listener counts, and how the counts cross from a worker's thread to a reader.
//!
//! A worker counts in plain integers ([`Stats`]) and publishes them after each batch to its own [`SharedStats`], whose
//! cache lines no other worker writes. Readers add the workers up.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One thing that is counted. Every count starts at 0 and only grows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// Every counter, in the order of the enum.
            pub const ALL: [Counter; [$(Counter::$name),*].len()] = [$(Counter::$name),*];
        }
    };
}

counters! {
    /// SYNs for a guarded address and port that passed the sanity checks.
    SynsReceived,
    /// SYNs that were left to the kernel to answer: of the `bpf` tier, those that are not plain.
    SynsLeftToKernel,
    /// SYNs of those whom the lists deny: dropped, or answered by RST.
    SynsDenied,
    /// SYN-ACKs sent: first answers, answers to repeated SYNs and retransmissions, with an entry or by cookie alone.
    SynAcksSent,
    /// SYN-ACKs sent again by the retransmission timer.
    SynAcksRetransmitted,
    /// SYN-ACKs for which no half-open entry was kept: the cookie is all there is (`SyncookiesSent` of Linux).
    CookiesSent,
    /// Cookies that validated (`SyncookiesRecv` of Linux).
    CookiesValid,
    /// ACKs whose cookie was from an epoch no longer or not yet accepted.
    CookiesExpired,
    /// ACKs whose cookie failed the MAC.
    CookiesBadMac,
    /// ACKs that were not even checked, because no cookie of that form can be outstanding.
    CookiesNotExpected,
    /// ACKs that were not checked, because their prefix had used up its budget of bad cookies.
    CookiesOverBudget,
    /// Half-open entries made.
    HalfOpenInserted,
    /// Half-open entries that became connections.
    HalfOpenCompleted,
    /// Half-open entries given up after the last SYN-ACK retransmission.
    HalfOpenTimedOut,
    /// Half-open entries removed by a valid RST (RFC 5961 §3.2).
    HalfOpenReset,
    /// SYNs answered by cookie alone because the queue was full, or the listener under pressure.
    HalfOpenFull,
    /// SYNs answered by cookie because their prefix had its share of the queue.
    HalfOpenPrefixFull,
    /// Handshakes completed through a half-open entry.
    HandshakesByQueue,
    /// Handshakes completed through a cookie.
    HandshakesByCookie,
    /// Switches of a listener from `queue` to `cookies`.
    SwitchesToCookies,
    /// Switches of a listener from `cookies` back to `queue`.
    SwitchesToQueue,
    /// RST segments sent.
    ResetsSent,
    /// Challenge ACKs sent (`TCPChallengeACK` of Linux; RFC 5961).
    ChallengeAcksSent,
    /// Replies not sent because their prefix had used up its reply budget.
    RepliesOverBudget,
    /// Finished handshakes that had to wait because the accept queue was full (`ListenOverflows` of Linux).
    AcceptQueueOverflows,
    /// Finished handshakes that had to wait for a file descriptor.
    RefusedNoDescriptors,
    /// Finished handshakes that had to wait for memory.
    RefusedNoMemory,
    /// Finished handshakes given up because the kernel holds the 4-tuple.
    RefusedTupleBusy,
    /// Finished handshakes that failed for any other reason.
    RefusedOther,
    /// Old sockets destroyed because a new handshake on their 4-tuple proved that the peer has moved on.
    OldSocketsDestroyed,
    /// Bytes that came right behind a handshake and were put into the new socket's receive queue.
    EarlyDataBytes,
    /// Frames the ring delivered.
    RingReceived,
    /// Frames the kernel dropped because the ring was full (`PACKET_STATISTICS`).
    RingDropped,
    /// Replies the kernel did not take (full device queue, no route, out of buffers).
    TransmitErrors,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Why a segment was dropped without an answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// Every reason, in the order of the enum.
            pub const ALL: [DropReason; [$(DropReason::$name),*].len()] = [$(DropReason::$name),*];

            /// The value of a `reason` label.
            pub fn label(self) -> &'static str {
                match self { $(DropReason::$name => $label,)* }
            }
        }
    };
}

drop_reasons! {
    /// Headers that contradict themselves or the frame's length.
    Malformed => "malformed",
    /// IP or TCP checksum wrong.
    BadChecksum => "bad_checksum",
    /// A fragment, or an extension header we do not walk: the kernel's business.
    NotForUs => "not_for_us",
    /// Link-layer broadcast or multicast, a frame for another host, or a device below a bridge or bond.
    NotOurFrame => "not_our_frame",
    /// Destination not local or not guarded, or broadcast or multicast (RFC 9293 MUST-57).
    NotGuarded => "not_guarded",
    /// A source that cannot be (RFC 1122 §3.2.1.3; RFC 9293 MUST-63).
    Martian => "martian",
    /// Source and destination are the same endpoint.
    Land => "land",
    /// Port 0 on either side.
    PortZero => "port_zero",
    /// A combination of flags that starts or continues no handshake (SYN+FIN, null, Xmas).
    BadFlags => "bad_flags",
    /// RST that matches no half-open entry, or lies outside its window.
    Reset => "reset",
    /// Segment of a flow nobody here knows, dropped silently: under pressure, or when the kernel could not be asked.
    UnknownFlow => "unknown_flow",
    /// ACK with a cookie that did not validate, dropped silently because the listener is under pressure.
    BadCookie => "bad_cookie",
    /// Segment of a 4-tuple that the kernel holds: the kernel answers it.
    KernelOwns => "kernel_owns",
    /// The prefix of the source has used up its reply budget.
    OverBudget => "over_budget",
    /// SYN while draining.
    Draining => "draining",
    /// SYN of a source that the lists deny.
    Denied => "denied",
    /// Finished handshake that has to wait: accept queue, descriptors or memory.
    NoRoom => "no_room",
}

const COUNTERS: usize = Counter::ALL.len();
const REASONS: usize = DropReason::ALL.len();

/// Upper bounds in seconds of the handshake-duration histogram; a last bucket without bound follows.
///
/// 1, 3 and 7 s are where a lost SYN or SYN-ACK puts a handshake (RFC 6298 §2.1 and §5.5).
pub const HANDSHAKE_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0, 7.0];
const BUCKETS: usize = HANDSHAKE_BUCKETS.len() + 1;

/// Upper bounds of the occupancy histogram, as parts of the half-open queue; a last bucket without bound follows, for what cannot be.
///
/// A quarter and three quarters are where the default watermarks are.
pub const OCCUPANCY_BUCKETS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.4, 0.6, 0.75, 0.9, 1.0];
const LEVELS: usize = OCCUPANCY_BUCKETS.len() + 1;

/// Where in the words the histograms begin, and where their sums are.
const HANDSHAKES: usize = COUNTERS + REASONS;
const HANDSHAKES_SUM: usize = HANDSHAKES + BUCKETS;
const OCCUPANCY: usize = HANDSHAKES_SUM + 1;
const OCCUPANCY_SUM: usize = OCCUPANCY + LEVELS;
const WORDS: usize = OCCUPANCY_SUM + 1;

/// The counts of one worker, or of several added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    words: [u64; WORDS],
}

impl Default for Stats {
    fn default() -> Stats {
        Stats { words: [0; WORDS] }
    }
}

impl Stats {
    /// Counts one.
    pub fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    pub fn add(&mut self, counter: Counter, n: u64) {
        self.words[counter as usize] += n;
    }

    /// Counts one dropped segment.
    pub fn count_drop(&mut self, reason: DropReason) {
        self.add_drops(reason, 1);
    }

    /// Counts `n` dropped segments.
    pub fn add_drops(&mut self, reason: DropReason, n: u64) {
        self.words[COUNTERS + reason as usize] += n;
    }

    /// Records the time one handshake took.
    pub fn record_handshake(&mut self, took: std::time::Duration) {
        self.add_handshakes(1, took);
        self.add_handshake_time(took);
    }

    /// Counts `n` handshakes in the bucket of those that took so long, without the time they took.
    pub(crate) fn add_handshakes(&mut self, n: u64, took: std::time::Duration) {
        let seconds = took.as_secs_f64();
        let bucket = HANDSHAKE_BUCKETS.iter().position(|&le| seconds <= le).unwrap_or(BUCKETS - 1);
        self.words[HANDSHAKES + bucket] += n;
    }

    /// Adds to the time that all handshakes took.
    pub(crate) fn add_handshake_time(&mut self, time: std::time::Duration) {
        self.words[HANDSHAKES_SUM] += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2);
    }

    /// The value of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.words[counter as usize]
    }

    /// Segments dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.words[COUNTERS + reason as usize]
    }

    /// Handshakes per bucket of [`HANDSHAKE_BUCKETS`], not cumulative, the unbounded bucket last.
    pub fn handshake_buckets(&self) -> &[u64] {
        &self.words[HANDSHAKES..HANDSHAKES_SUM]
    }

    /// Sum of all recorded handshake durations, in seconds.
    pub fn handshake_seconds_sum(&self) -> f64 {
        self.words[HANDSHAKES_SUM] as f64 / 1e9
    }

    /// Records how full the half-open queue is, with `entries` of `max`, now that another entry is in it.
    ///
    /// It grows by insertions alone, so whoever looks at each of them misses no peak, however short.
    pub fn record_occupancy(&mut self, entries: u64, max: usize) {
        let part = entries as f64 / max as f64;
        let bucket = OCCUPANCY_BUCKETS.iter().position(|&le| part <= le).unwrap_or(LEVELS - 1);
        self.words[OCCUPANCY + bucket] += 1;
        self.words[OCCUPANCY_SUM] += entries;
    }

    /// Insertions per bucket of [`OCCUPANCY_BUCKETS`], by how full the queue was then; not cumulative, the unbounded bucket last.
    pub fn occupancy_buckets(&self) -> &[u64] {
        &self.words[OCCUPANCY..OCCUPANCY_SUM]
    }

    /// Sum of the entries that all these insertions found in the queue, themselves included.
    pub fn occupancy_entries_sum(&self) -> u64 {
        self.words[OCCUPANCY_SUM]
    }

    /// Adds another worker's counts to these.
    pub fn merge(&mut self, other: &Stats) {
        for (mine, theirs) in self.words.iter_mut().zip(other.words) {
            *mine += theirs;
        }
    }
}

/// The published counts of one worker: one writer, any number of readers.
///
/// Each word is exact and never goes back; two words read together may be a batch apart.
#[derive(Debug)]
#[repr(align(128))] // Two cache lines: the adjacent-line prefetcher pairs them.
pub struct SharedStats {
    words: [AtomicU64; WORDS],
}

impl Default for SharedStats {
    fn default() -> SharedStats {
        SharedStats { words: [const { AtomicU64::new(0) }; WORDS] }
    }
}

impl SharedStats {
    /// Publishes the worker's counts. Only the owning worker calls this.
    pub fn publish(&self, stats: &Stats) {
        for (shared, word) in self.words.iter().zip(stats.words) {
            shared.store(word, Ordering::Relaxed);
        }
    }

    /// The counts as last published.
    pub fn read(&self) -> Stats {
        let mut stats = Stats::default();
        for (word, shared) in stats.words.iter_mut().zip(&self.words) {
            *word = shared.load(Ordering::Relaxed);
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn published_stats_read_back_and_add_up() {
        let mut stats = Stats::default();
        stats.add(Counter::SynsReceived, 3);
        stats.count_drop(DropReason::Land);
        stats.record_handshake(Duration::from_micros(700));
        stats.record_handshake(Duration::from_secs(60));
        let shared = SharedStats::default();
        shared.publish(&stats);
        let mut sum = shared.read();
        assert_eq!(sum, stats);
        sum.merge(&stats);
        assert_eq!(sum.get(Counter::SynsReceived), 6);
        assert_eq!(sum.dropped(DropReason::Land), 2);
        assert_eq!(sum.handshake_buckets()[1], 2);
        assert_eq!(sum.handshake_buckets()[12], 2);
        assert!((sum.handshake_seconds_sum() - 120.0014).abs() < 1e-6);
    }

    #[test]
    fn occupancy_counts_each_insertion_at_the_level_it_made() {
        let mut stats = Stats::default();
        for entries in 1..=100 {
            stats.record_occupancy(entries, 100);
        }
        assert_eq!(stats.occupancy_buckets(), [1, 4, 5, 15, 15, 20, 15, 15, 10, 0]);
        assert_eq!(stats.occupancy_entries_sum(), 5050);
        assert_eq!(stats.handshake_buckets().iter().sum::<u64>(), 0, "another histogram's");
    }
}
