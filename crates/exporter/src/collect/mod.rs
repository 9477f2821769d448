//! State that is not ours and must be fetched: the kernel's sockets, its counters, and what it knows of this process.

mod health;
mod kernel;
mod proc_file;
mod process;
mod sockets;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::health::Health;
use self::kernel::KernelCounters;
use self::process::Process;
use self::sockets::SocketCensus;
use crate::census::Census;
use crate::registry::Registry;
use crate::source::Source;

/// How old the fetched values may be: a walk over the kernel's sockets is dear, and any number of scrapers may ask.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(1);

/// The collectors, each of which sets its own series and leaves them as they are when it fails.
pub(crate) struct Collectors {
    sockets: (Health, SocketCensus),
    kernel: (Health, KernelCounters),
    process: (Health, Process),
    collected: Option<Instant>,
}

impl Collectors {
    /// Registers every series, and opens what can be kept open: a scrape must work when no descriptors are left.
    pub(crate) fn new(registry: &Registry, sources: &[Arc<dyn Source>], census: Arc<Census>) -> Collectors {
        let proc = Path::new("/proc");
        Collectors {
            sockets: (Health::register(registry, "sock_diag"), SocketCensus::register(registry, sources, census)),
            kernel: (Health::register(registry, "netstat"), KernelCounters::register(registry, proc)),
            process: (Health::register(registry, "process"), Process::register(registry, proc)),
            collected: None,
        }
    }

    /// Whether the last run is younger than [`AGE_MAX`].
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.collected.is_some_and(|then| now.saturating_duration_since(then) < AGE_MAX)
    }

    /// Runs every collector. Blocks for system calls; not for a runtime's worker thread.
    pub(crate) fn collect(&mut self) {
        let Collectors { sockets, kernel, process, .. } = self;
        sockets.0.watch(|| sockets.1.collect());
        kernel.0.watch(|| kernel.1.collect());
        process.0.watch(|| process.1.collect());
        // Counted from the end: a run that takes longer than AGE_MAX must not make the next one start at once.
        self.collected = Some(Instant::now());
    }

    /// User and system time of the process so far, as of the last run.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.process.1.cpu_seconds()
    }

    /// Makes the last run older.
    #[cfg(test)]
    pub(crate) fn age(&mut self, by: Duration) {
        self.sockets.1.age(by);
        self.collected = self.collected.map(|then| then.checked_sub(by).expect("the machine has been up for a second"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSockets;

    #[test]
    fn a_run_is_fresh_for_one_second() {
        let mut collectors =
            Collectors::new(&Registry::new(), &[], Census::of(Vec::new(), Box::new(FakeSockets::default())));
        assert!(!collectors.is_fresh(Instant::now()));
        collectors.collect();
        let then = collectors.collected.unwrap();
        assert!(collectors.is_fresh(then));
        assert!(collectors.is_fresh(then + Duration::from_millis(999)));
        assert!(!collectors.is_fresh(then + Duration::from_secs(1)));
    }
}
