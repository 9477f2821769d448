//! What tests and benchmarks from outside share.

use std::net::SocketAddr;

use exporter::{ConnectionCounts, Source};
use listener::Stats;

/// A listener of the kernel tier with nothing to say.
pub struct Quiet(pub SocketAddr);

impl Source for Quiet {
    fn name(&self) -> &str {
        "quiet"
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
    fn half_open(&self) -> u64 {
        0
    }
    fn half_open_limit(&self) -> u64 {
        0
    }
    fn cookies_mode(&self) -> bool {
        false
    }
    fn accept_queue(&self) -> u64 {
        0
    }
    fn accept_queue_limit(&self) -> u64 {
        0
    }
    fn endpoints(&self) -> Vec<SocketAddr> {
        vec![self.0]
    }
    fn connections(&self) -> ConnectionCounts {
        ConnectionCounts::default()
    }
    fn tier(&self) -> &'static str {
        exporter::KERNEL_TIER
    }
}
