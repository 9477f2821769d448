//! What a run found: the content of `run.json`, from which every table and plot is made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The number of this format; it grows when a field changes its meaning.
pub const FORMAT: u32 = 1;

/// Everything one invocation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// The command line that repeats it.
    pub command: String,
    /// When it began, in seconds since 1970.
    pub started_unix: u64,
    /// Where it ran.
    pub machine: Machine,
    /// In the order in which they were given.
    pub scenarios: Vec<ScenarioResults>,
    /// What `relay` found, in the order in which it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relay: Vec<RelayRound>,
}

/// Where it ran, and who had which core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As `uname -r` says.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Who worked where, a sentence each.
    pub placement: Vec<String>,
}

/// What one scenario found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResults {
    /// Of the scenario.
    pub name: String,
    /// What it asks.
    pub description: String,
    /// The thresholds, as the scenario has them.
    pub pass: Vec<String>,
    /// In the order in which they ran.
    pub rounds: Vec<Round>,
}

/// One alternative under one flood, once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Who listened: `portcullis-bpf`, `kernel-cookies-1`, `haproxy`.
    pub alternative: String,
    /// From 0.
    pub repetition: u32,
    /// What the flood was made of, as the scenario names it: `syn`, `ack`. Empty without a flood.
    pub flood_kind: String,
    /// Frames per second that were asked for; `None`: as many as the generator can. 0: no flood.
    pub flood_rate: Option<f64>,
    /// How long the clients came and the flood ran.
    pub seconds: f64,
    /// The flood.
    pub flood: FloodResults,
    /// The legitimate clients.
    pub clients: ClientResults,
    /// Who listened.
    pub target: TargetResults,
    /// One sample each quarter of a second, from the first client to the last.
    pub series: Vec<Sample>,
    /// The thresholds, judged for this round.
    pub checks: Vec<Check>,
}

/// One measure of one relay, once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelayRound {
    /// Who relayed: `portcullis-bpf`, `haproxy`.
    pub alternative: String,
    /// From 0.
    pub repetition: u32,
    /// What was measured.
    pub part: RelayPart,
    /// Connections at a time.
    pub connections: usize,
    /// How long was measured.
    pub seconds: f64,
    /// Bytes that arrived, requests that were answered, or connections: those that came and went, or those that are held.
    pub done: u64,
    /// Connections that broke.
    pub failed: u64,
    /// Of a request, from its first byte to the last of its answer; of a connection, from the call of `connect` to the same. Microseconds.
    pub latency_us: Quantiles,
    /// Seconds of processor time of the relay's process and of the reception of its frames.
    pub cpu_s: f64,
    /// How busy that kept the relay's cores, 0 to 1. Well below 1, it was not the relay that set the pace.
    pub load: f64,
    /// Resident memory that each connection costs the relay's process; of the part that holds connections.
    pub resident_bytes_per_connection: Option<f64>,
    /// Memory that the kernel counts for each connection's sockets, at all four ends together.
    pub socket_bytes_per_connection: Option<f64>,
}

/// What is measured of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RelayPart {
    /// Bulk from the clients to the upstream.
    Upload,
    /// Bulk from the upstream to the clients.
    Download,
    /// Small requests and answers over connections that stay, as fast as they go.
    Requests,
    /// The same over a single connection, one at a time: what the relay adds to a round trip.
    PingPong,
    /// Connections that come, ask once and go, as fast as they go.
    Connects,
    /// Connections that asked once and stay.
    Idle,
}

/// What the flood did, counted three ways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FloodResults {
    /// Which generator: `tx-ring`, `xdp`, `sockets`. Empty without a flood.
    pub engine: String,
    /// Frames that were due by the rate asked for; the same as `sent` where no rate was.
    pub due: u64,
    /// Frames the generator counts as sent.
    pub sent: u64,
    /// Frames that found the queue into the target full: lost, as before a network card.
    #[serde(default)]
    pub refused: u64,
    /// Frames the target's interface counts as received.
    pub received: u64,
    /// SYNs, or whatever the flood is made of, as the target counts them; `None` where it has no counter for them.
    pub counted: Option<u64>,
    /// Frames that left the target towards the flood, by its interface.
    pub replies: u64,
    /// Bytes the target's interface received from the flood, and sent to it.
    pub bytes_in: u64,
    /// See `bytes_in`.
    pub bytes_out: u64,
    /// Whether the generator fell behind the rate asked for: then its figures say nothing about the target.
    pub generator_limited: bool,
}

/// What became of the legitimate clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientResults {
    /// Connections that were due.
    pub attempts: u64,
    /// By what became of them: `ok`, `refused`, `connect-timeout`, `timeout`, `reset`, `wrong-data`, `other`.
    pub outcomes: BTreeMap<String, u64>,
    /// From the moment a connection was due to the return of `connect`, of those that connected; microseconds.
    pub connect_us: Quantiles,
    /// From the moment a connection was due to its last byte, of those that were `ok`; microseconds.
    pub total_us: Quantiles,
    /// The distribution of `connect_us`: (microseconds, fraction of connections that took at most so long), rising.
    pub connect_curve: Vec<(u64, f64)>,
}

impl ClientResults {
    /// Connections that did all they should.
    pub fn ok(&self) -> u64 {
        self.outcomes.get("ok").copied().unwrap_or(0)
    }

    /// The part of the attempts that did all they should; 1 when there were none.
    pub fn success(&self) -> f64 {
        if self.attempts == 0 { 1.0 } else { self.ok() as f64 / self.attempts as f64 }
    }
}

/// A distribution, in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many values.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// 90 % are at most this.
    pub p90: f64,
    /// 99 % are at most this.
    pub p99: f64,
    /// 99.9 % are at most this.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

/// What it cost the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetResults {
    /// Seconds of processor time on the target's cores while the flood ran, in user mode, in the kernel, and in its interrupt work.
    pub cpu_user_s: f64,
    /// See `cpu_user_s`.
    pub cpu_system_s: f64,
    /// See `cpu_user_s`.
    pub cpu_softirq_s: f64,
    /// Nanoseconds of the target's cores for each frame of the flood received; `None` without a flood.
    pub cpu_ns_per_frame: Option<f64>,
    /// Resident memory of the target's processes before the flood, and the most there was: with the kernel's rings, where these are mapped.
    pub rss_before_bytes: u64,
    /// See `rss_before_bytes`.
    pub rss_peak_bytes: u64,
    /// The most kernel memory of half-open connections (`request_sock_TCP` and `request_sock_TCPv6` in `/proc/slabinfo`); `None` where
    /// that is not to be read.
    pub slab_peak_bytes: Option<u64>,
    /// The most half-open connections; `None` where the kernel has them and does not tell.
    pub half_open_peak: Option<u64>,
    /// Memory of one half-open connection, where there were enough to tell: of the kernel's slabs, or of what the process needs more
    /// than one that keeps none.
    pub bytes_per_half_open: Option<f64>,
    /// From the first frame of the flood until the target answered with cookies alone, and from the last until it kept entries again;
    /// milliseconds. `None` where it did not happen or the target does not tell.
    pub switch_in_ms: Option<f64>,
    /// See `switch_in_ms`.
    pub switch_out_ms: Option<f64>,
}

/// A moment of a round. Rates are of the time since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since the first client.
    pub at_s: f64,
    /// Frames per second, by the generator.
    pub sent_pps: f64,
    /// By the target's interface.
    pub received_pps: f64,
    /// Frames per second back to the flood.
    pub replies_pps: f64,
    /// Clients that were due since the first: this and the next two rise from sample to sample.
    pub attempts: u64,
    /// Clients that ended well.
    pub ok: u64,
    /// Clients that ended otherwise.
    pub failed: u64,
    /// The slowest connect that ended since the sample before, microseconds.
    pub connect_max_us: f64,
    /// Half-open connections.
    pub half_open: u64,
    /// Whether the target answers with cookies alone, where it tells.
    pub cookies_only: Option<bool>,
    /// Resident memory of the target.
    pub rss_bytes: u64,
    /// How busy the target's cores were, 0 to 1.
    pub busy: f64,
}

/// A threshold and what was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// As the scenario has it.
    pub threshold: String,
    /// What was measured, in the threshold's unit: `success 97.31 %`.
    pub found: String,
    /// Whether it holds.
    pub passed: bool,
}
