//! State that is not ours and must be fetched: the kernel's sockets, its counters, and what it knows of this process.

mod health;
mod kernel;
mod proc_file;
mod process;
mod sockets;

use std::path::Path;
use std::sync::Arc;

use self::health::Health;
use self::kernel::KernelCounters;
use self::process::Process;
use self::sockets::SocketCensus;
use crate::census::Census;
use crate::registry::Registry;
use crate::source::Source;

/// The collectors, each of which sets its own series and leaves them as they are when it fails.
pub(crate) struct Collectors {
    sockets: (Health, SocketCensus),
    kernel: (Health, KernelCounters),
    process: (Health, Process),
}

impl Collectors {
    /// Registers every series, and opens what can be kept open: a scrape must work when no descriptors are left.
    pub(crate) fn new(registry: &Registry, sources: &[Arc<dyn Source>], census: Arc<Census>) -> Collectors {
        let proc = Path::new("/proc");
        Collectors {
            sockets: (Health::register(registry, "sock_diag"), SocketCensus::register(registry, sources, census)),
            kernel: (Health::register(registry, "netstat"), KernelCounters::register(registry, proc)),
            process: (Health::register(registry, "process"), Process::register(registry, proc)),
        }
    }

    /// Runs every collector; of these the census alone is dear, and sees to it that it is not taken too often. Blocks for system calls; not for a runtime's worker thread.
    pub(crate) fn collect(&mut self) {
        let Collectors { sockets, kernel, process } = self;
        sockets.0.watch(|| sockets.1.collect());
        kernel.0.watch(|| kernel.1.collect());
        process.0.watch(|| process.1.collect());
    }

    /// User and system time of the process so far, as of the last run.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.process.1.cpu_seconds()
    }
}
