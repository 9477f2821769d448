//! Handshakes per second, from the client's `connect` to our `accept`: by each datapath.
//!
//! `cargo bench -p portcullis --bench handshakes`, with `-- --quick` for a short run, and with `-- bpf` for one tier alone. Needs two cores, and what the bpf tier needs: root in
//! the first user namespace, Linux 6.9.
//!
//! Ordinary clients on one core connect over a veth pair and reset the connection when `connect` returns, so that nothing of it stays;
//! the server on the other core accepts, and drops what it accepted. Both ends are in every figure.

mod support;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use portcullis::{Datapath, Listener};
use socket2::SockRef;
use support::{CpuTimes, Spread, is_asked, is_quick, on_cores, two_cores};
use testnet::{Namespace, veth};
use tokio::sync::oneshot;

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1)), 80);
/// As many clients connect at the same time.
const CLIENTS: usize = 16;
const SETTLE: Duration = Duration::from_millis(200);
const TIERS: [(&str, Datapath); 3] = [("kernel", Datapath::Kernel), ("raw", Datapath::Raw), ("bpf", Datapath::Bpf)];

fn main() -> io::Result<()> {
    let cores = two_cores();
    testnet::enter_namespaces()?;
    let (rounds, span) = if is_quick() { (2, Duration::from_millis(300)) } else { (7, Duration::from_secs(2)) };
    let (server, client) = (Namespace::new(), Namespace::new());
    veth((&server, "srv0", &["198.18.0.1/30"]), (&client, "cli0", &["198.18.0.2/30"]));
    println!("{rounds} rounds of {span:?}; {CLIENTS} clients on core {}, server on core {}", cores[0], cores[1]);
    let mut results: [Vec<Run>; TIERS.len()] = Default::default();
    for round in 0..rounds {
        // Whatever drifts should not always favour the same tier.
        for tier in (0..TIERS.len()).map(|step| (step + round) % TIERS.len()).filter(|tier| is_asked(TIERS[*tier].0)) {
            let served = Served::start(&server, TIERS[tier].1, cores[1]);
            results[tier].push(measure(&client, &served, span, cores[0]));
        }
    }
    println!("\nmedian (smallest to largest):");
    let over = |runs: &[Run], of: fn(&Run) -> f64| Spread::of(runs.iter().map(of));
    for ((name, _), runs) in TIERS.iter().zip(&results).filter(|(_, runs)| !runs.is_empty()) {
        let (rate, price) = (over(runs, |run| run.per_second / 1e3), over(runs, |run| run.cpu_seconds * 1e6));
        println!("  {name:<7} {rate} thousand/s, {price} CPU us each");
        let kernel = &results[0];
        if !kernel.is_empty() {
            let against =
                |of: fn(&Run) -> f64| Spread::of(runs.iter().zip(kernel).map(|(run, other)| of(run) / of(other)));
            let (rate, price) = (against(|run| run.per_second), against(|run| run.cpu_seconds));
            println!("          against the kernel, round by round: {rate}; CPU {price}");
        }
    }
    Ok(())
}

struct Run {
    per_second: f64,
    /// For each handshake, of both ends.
    cpu_seconds: f64,
}

/// A server that accepts until this is dropped.
struct Served {
    accepted: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Served {
    fn start(namespace: &Namespace, datapath: Datapath, core: usize) -> Served {
        let accepted = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (counter, namespace) = (Arc::clone(&accepted), namespace.clone());
        let serve = async move {
            let built = Listener::builder().bind(SERVER).datapath(datapath).build().await;
            let mut listener = built.expect("start the listener");
            ready.send(()).expect("somebody waits");
            let accept = async {
                while let Some(connection) = listener.accept().await {
                    drop(connection.expect("a connection"));
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            };
            tokio::select! {
                () = accept => panic!("the listener ended"),
                _ = stopped => {}
            }
        };
        let thread = on_cores(&[core], || {
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                namespace.run(|| runtime.block_on(serve));
            })
        });
        is_ready.recv().expect("the server's thread");
        Served { accepted, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server's thread");
        }
    }
}

fn measure(client: &Namespace, served: &Served, span: Duration, core: usize) -> Run {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        on_cores(&[core], || {
            for _ in 0..CLIENTS {
                scope.spawn(|| client.run(|| connect_and_reset(&stop)));
            }
        });
        thread::sleep(SETTLE);
        let (cpu, before) = (CpuTimes::now(), served.accepted.load(Ordering::Relaxed));
        thread::sleep(span);
        let accepted = (served.accepted.load(Ordering::Relaxed) - before) as f64;
        let used = cpu.used();
        stop.store(true, Ordering::Relaxed);
        Run { per_second: accepted / used.elapsed.as_secs_f64(), cpu_seconds: used.ours.as_secs_f64() / accepted }
    })
}

fn connect_and_reset(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(SERVER).expect("connect");
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
    }
}
