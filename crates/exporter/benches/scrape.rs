//! What a scrape costs, by how many connections there are: `cargo bench -p exporter --bench scrape`.
//!
//! Connections over loopback in a network namespace of their own, which takes root. `scrape` is all of `/metrics` with a walk over the
//! kernel's sockets in it, `walk` the walk alone, and `again` a scrape within a second of another, which takes the walk's result from it.
//! Processor time is what a busy machine leaves as it is.

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use exporter::{Census, Exporter, Readiness, Source};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use support::Quiet;
use tokio::runtime::{Builder, Runtime};

const CONNECTIONS: [usize; 3] = [10, 1000, 15_000];
const ROUNDS: usize = 41;

/// A listener and clients that stay until this is dropped.
struct Held {
    address: SocketAddr,
    _accepted: Vec<TcpStream>,
    /// Told nothing; closed at the end.
    _stay: Sender<()>,
}

impl Held {
    fn new(count: usize) -> Held {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        let address = listener.local_addr().expect("an address");
        let (stay, end) = channel();
        thread::spawn(move || {
            // A table of descriptors of its own: both ends of all connections are more than one may have.
            unshare(CloneFlags::CLONE_FILES).expect("descriptors of its own");
            let clients: Vec<_> = (0..count).map(|_| TcpStream::connect(address).expect("connect")).collect();
            let _ = end.recv();
            drop(clients);
        });
        let accepted = (0..count).map(|_| listener.accept().expect("accept").0).collect();
        Held { address, _accepted: accepted, _stay: stay }
    }

    fn sources(&self) -> Vec<Arc<dyn Source>> {
        // Of the kernel tier: of the others a scrape fetches nothing that is dearer.
        vec![Arc::new(Quiet(self.address))]
    }

    /// One that has not walked yet.
    fn exporter(&self) -> Exporter {
        Exporter::new("1.2.3", self.sources(), Arc::<Readiness>::default()).expect("one name")
    }
}

/// Processor time of this process, in the kernel and out of it.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(time.num_microseconds().try_into().expect("time is positive"))
}

/// The medians of the time that `work` takes and of the processor time that it costs, in microseconds.
fn measure<T, R>(mut prepare: impl FnMut() -> T, mut work: impl FnMut(T) -> R) -> (u128, u128) {
    let median = |mut all: Vec<Duration>| {
        all.sort_unstable();
        all[all.len() / 2].as_micros()
    };
    let rounds = (0..ROUNDS).map(|_| {
        let prepared = prepare();
        let (cpu, began) = (cpu_time(), Instant::now());
        black_box(work(prepared));
        (began.elapsed(), cpu_time() - cpu)
    });
    let (times, cpu): (Vec<_>, Vec<_>) = rounds.unzip();
    (median(times), median(cpu))
}

fn main() {
    let (_, descriptors) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors).expect("as many as are allowed");
    assert!(descriptors > CONNECTIONS[2] as u64 + 100, "{descriptors} open files are too few: raise the hard limit");
    testnet::enter_namespaces().expect("a network namespace (root)");
    let runtime: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("medians of {ROUNDS} rounds, in microseconds: time, processor time");
    for count in CONNECTIONS {
        let held = Held::new(count);
        let render = |exporter: Exporter| runtime.block_on(exporter.render()).expect("a scrape").len();
        let scrape = measure(|| held.exporter(), render);
        let walk = measure(|| Census::new(held.sources()), |census| census.counts().expect("a walk"));
        let exporter = held.exporter();
        let again = measure(|| (), |()| runtime.block_on(exporter.render()).expect("a scrape").len());
        println!("{count:>6} connections: scrape {scrape:?}, walk {walk:?}, again {again:?}");
    }
}
