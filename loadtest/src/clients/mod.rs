//! Legitimate clients: kernel sockets that come at a constant rate, whatever becomes of those before them.
//!
//! A connection is due at a moment that depends on nothing but the rate, and its latency counts from that moment: a client that is kept
//! from starting counts as one that waited ("coordinated omission").

mod outcome;
mod pace;
mod session;
mod sys;
mod tally;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use testnet::Namespace;
use tokio::task::JoinSet;

use crate::lab::{bind_to, raise_descriptors};
use crate::results::ClientResults;
pub use outcome::Outcome;
use pace::Pace;
pub use tally::{Progress, Tally, quantiles};

/// Clients under way at a time. One that would be more is not started, and counts as [`Outcome::NotStarted`].
const UNDER_WAY_MAX: usize = 10_000;

/// Who comes, and for what.
#[derive(Clone, Debug)]
pub struct ClientSpec {
    /// Whom they connect to: a server that echoes.
    pub target: SocketAddr,
    /// Connections per second.
    pub rate: f64,
    /// Bytes of the request, and of the answer.
    pub bytes: usize,
    /// How long a client may take, from the moment it is due to its last byte.
    pub deadline: Duration,
    /// For the bytes.
    pub seed: u64,
}

/// The address from which a client comes, by its number; `None` leaves it to the kernel.
pub type SourceOf = fn(u64) -> Option<IpAddr>;

/// Clients that are coming.
#[derive(Debug)]
pub struct Clients {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Clients {
    /// The first one is due now.
    pub fn start(spec: ClientSpec, namespace: Namespace, cores: Vec<usize>, source_of: SourceOf) -> Clients {
        let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&tally), Arc::clone(&stop));
        let run = move || {
            // With fewer descriptors some clients are not started, which is counted; with shared cores they are slower.
            let _ = raise_descriptors();
            let _ = bind_to(&cores);
            namespace.run(|| serve_out(&spec, source_of, &counted, &stopped));
        };
        Clients { tally, stop, thread: thread::Builder::new().name("clients".into()).spawn(run).expect("a thread") }
    }

    /// How far they are.
    pub fn progress(&self) -> Progress {
        self.tally.progress()
    }

    /// Starts no more, waits for those under way, each until its deadline at most, and tells what became of all.
    pub fn finish(self) -> ClientResults {
        self.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
        self.tally.results()
    }
}

/// Comes until told to stop.
fn serve_out(spec: &ClientSpec, source_of: SourceOf, tally: &Arc<Tally>, stop: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let pace = Pace::new().expect("a timer");
        let start = Instant::now();
        let mut under_way = JoinSet::new();
        for number in 0.. {
            let due = start + Duration::from_secs_f64(number as f64 / spec.rate);
            pace.until(due).await.expect("a timer of ours");
            if stop.load(Ordering::Relaxed) {
                break;
            }
            while under_way.try_join_next().is_some() {}
            tally.came();
            if under_way.len() >= UNDER_WAY_MAX {
                tally.ended(Outcome::NotStarted, None, due.elapsed());
                continue;
            }
            let (spec, tally) = (spec.clone(), Arc::clone(tally));
            under_way.spawn(async move {
                let ended = session::run(&spec, source_of(number), number, due).await;
                tally.ended(ended.outcome, ended.connected, ended.total);
            });
        }
        while under_way.join_next().await.is_some() {}
    });
}

#[cfg(test)]
mod tests;
