//! What the exporter asks of a listener.

use std::net::SocketAddr;

use listener::io::ModeSwitch;
use listener::{Stats, TransitionCounts, Watermarks};

/// One listener, as the exporter sees it: every method is a cheap look at counts kept elsewhere.
///
/// The methods are called once per scrape, from a runtime worker or a blocking thread: they must not block. Counts never go
/// back while the process lives.
pub trait Source: Send + Sync + 'static {
    /// The value of the `listener` label: unique among the sources and the same for the life of the process.
    fn name(&self) -> &str;

    /// The counts of all workers added up. All zero in the kernel tier.
    fn stats(&self) -> Stats;

    /// Half-open entries now.
    fn half_open(&self) -> u64;

    /// The bound of the half-open queue, in entries.
    fn half_open_limit(&self) -> u64;

    /// With how many half-open entries the listener turns to cookies, and may turn back. Zeros where there is no half-open queue.
    fn watermarks(&self) -> Watermarks {
        Watermarks::default()
    }

    /// Whether the listener is under pressure and keeps no new half-open entries.
    fn cookies_mode(&self) -> bool;

    /// Established connections that the application has not accepted yet.
    fn accept_queue(&self) -> u64;

    /// The bound of the accept queue, in connections.
    fn accept_queue_limit(&self) -> u64;

    /// The guarded addresses, wildcards included: the kernel's sockets are attributed to listeners by them.
    ///
    /// A wildcard stands for the addresses of its own family only.
    fn endpoints(&self) -> Vec<SocketAddr>;

    /// The counts of the accepted connections.
    fn connections(&self) -> ConnectionCounts;

    /// The last switches of the mode, a few, the oldest first. None where nothing is known of them, as in the kernel tier.
    fn switches(&self) -> Vec<ModeSwitch> {
        Vec::new()
    }

    /// Steps that the kernel's sockets of this listener took from one state to another. `None` where the kernel does not let us see them.
    ///
    /// Where we do the handshakes, the steps from LISTEN and SYN-RECEIVED are not the kernel's, and 0 here: [`stats`](Source::stats) has them.
    fn transitions(&self) -> Option<TransitionCounts> {
        None
    }

    /// The datapath: [`KERNEL_TIER`] where the kernel does the handshakes, `raw` where we do.
    fn tier(&self) -> &'static str;
}

/// The [`Source::tier`] in which SYN-RECEIVED is the kernel's to count, and not the half-open queue's.
pub const KERNEL_TIER: &str = "kernel";

/// What became of the accepted connections of one listener, counted since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionCounts {
    /// Connections handed to the application.
    pub accepted: u64,
    /// Connections closed, by the value of the `reason` label. Lists every reason that can occur, zeros included.
    pub closed: Vec<(&'static str, u64)>,
    /// Connections that were accepted and closed at once because of a limit or a list, by the value of the `reason` label. Lists every
    /// reason that can occur, zeros included. They are in `accepted` and `closed` as well.
    pub refused: Vec<(&'static str, u64)>,
    /// Payload bytes received from clients.
    pub received_bytes: u64,
    /// Payload bytes sent to clients.
    pub sent_bytes: u64,
    /// Connections there may be at once; `None`: no limit.
    pub limit: Option<u64>,
    /// How long those that are closed were open, in seconds; as many as `closed` says.
    pub durations: Histogram,
}

impl ConnectionCounts {
    /// Connections accepted and not closed.
    pub(crate) fn open(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|(_, count)| count).sum();
        self.accepted.saturating_sub(closed)
    }
}

/// How many observations there were of each size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// The upper bounds of the buckets, ascending.
    pub bounds: &'static [f64],
    /// Observations in each bucket and in none before it; one more than there are bounds, for what is above them all.
    pub counts: Vec<u64>,
    /// All observations added up.
    pub sum: f64,
}
