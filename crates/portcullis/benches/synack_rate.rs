//! SYN-ACKs per CPU second: the raw tier against the kernel's own SYN cookies, under the same flood in the same run.
//!
//! `cargo bench -p portcullis --bench synack_rate`, with `-- --quick` for a short run. Needs what the tests need, and two cores.
//!
//! ```text
//!   attacker's namespace                    server's namespace
//!   core A: flood ──► fld0 ═══════ srv0 ──► core A: softirq of the kernel:  its listener, or the tap
//!             SYN-ACKs end at fld0 ◄──────── core B: the raw tier's worker
//! ```
//!
//! The flood runs as fast as core A lets it, and whatever the kernel does for a SYN it does on core A too, in the
//! context of the flood's `sendmmsg`. So a tier's cost cannot be read off one thread. Each round has three runs: the
//! flood alone, which ends in frames that the server drops first thing, gives the price of offering one SYN; what a
//! tier's run used beyond that price is the tier's: receiving, answering, and carrying the SYN-ACK to the other end, where it
//! is dropped first thing too.

mod support;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use connection::{ConnectionStats, RawEstablisher, accept_queue};
use listener::io::{Engine, EngineConfig};
use listener::{Counter, ListenConfig, MasterKey};
use support::{CpuTimes, CpuUse, Spread, is_quick, on_cores, threads_named, two_cores};
use testnet::{Counters, Flood, FloodKind, FloodSpec, Interface, Mac, Namespace, Sources, eventually, veth};

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1)), 80);
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    let cores = two_cores();
    testnet::enter_namespaces()?;
    let (rounds, span) = if is_quick() { (2, Duration::from_millis(400)) } else { (5, Duration::from_secs(2)) };
    let lab = Lab::new(cores);
    println!("{rounds} rounds of {span:?} each; flood on core {}, worker on core {}\n", cores[0], cores[1]);
    println!("{HEADER}");
    let rounds: Vec<Round> = (0..rounds).map(|number| lab.round(number, span)).collect();
    summary(&rounds);
    Ok(())
}

/// Two namespaces and the cable between them.
struct Lab {
    server: Namespace,
    attacker: Namespace,
    far: Interface,
    near: Interface,
    cores: [usize; 2],
}

impl Lab {
    fn new(cores: [usize; 2]) -> Lab {
        let (server, attacker) = (Namespace::new(), Namespace::new());
        let (far, near) = veth((&server, "srv0", &["198.18.0.1/30"]), (&attacker, "fld0", &["198.18.0.2/30"]));
        // The spoofed sources lie behind a router, whose address is known for good.
        server.ip("route add 198.19.0.0/16 via 198.18.0.2");
        server.neighbour("198.18.0.2".parse().expect("an address"), near.mac(), "srv0");
        // The flood goes on to send from the address the interface had. Answers to it are for another host now: the
        // attacker's kernel drops and counts them before it looks at anything else.
        attacker.ip(&format!("link set fld0 address {}", Mac([2, 0, 0, 0, 0, 0x99])));
        server.sysctl("net.ipv4.tcp_syncookies", "2");
        Lab { server, attacker, far, near, cores }
    }

    fn round(&self, number: usize, span: Duration) -> Round {
        let price = self.flood_alone(span / 2);
        // Whatever drifts should not always favour the same tier.
        let (kernel, raw) = if number.is_multiple_of(2) {
            let kernel = self.kernel(span);
            (kernel, self.raw(span))
        } else {
            let raw = self.raw(span);
            (self.kernel(span), raw)
        };
        let round = Round { price, kernel, raw };
        round.print(number);
        round
    }

    /// CPU time per SYN offered, when nobody answers.
    fn flood_alone(&self, span: Duration) -> Duration {
        let before = CpuTimes::now();
        // Addressed to the sender's own interface, so to another host as the server sees it.
        let sent = self.flood(span, &self.near);
        before.used().ours / u32::try_from(sent).expect("fewer than 4 billion SYNs")
    }

    fn kernel(&self, span: Duration) -> Run {
        let _listener = self.server.run(|| TcpListener::bind(SERVER)).expect("bind");
        let cookies = || Counters::of(&self.server).get("TcpExtSyncookiesSent") as u64;
        let before = cookies();
        self.measure(span, || cookies() - before)
    }

    fn raw(&self, span: Duration) -> Run {
        let (sender, _receiver) = accept_queue(1024, Arc::new(ConnectionStats::default()));
        let listen = ListenConfig { bind: vec![SERVER], ..ListenConfig::default() };
        let mut config = EngineConfig::new(listen, MasterKey::generate().expect("a key"));
        config.workers = NonZeroUsize::new(1);
        let start = || {
            on_cores(&self.cores[1..], || Engine::start(config, |_| RawEstablisher::new(sender.clone())))
                .expect("start the raw tier")
        };
        let engine = self.server.run(start);
        let view = engine.view();
        let mut run = self.measure(span, || view.stats().get(Counter::SynAcksSent));
        run.ring_received = Some(view.stats().get(Counter::RingReceived));
        run
    }

    /// Floods the tier that stands ready, waits until it has answered what it took, and compares the counts.
    fn measure(&self, span: Duration, answered: impl Fn() -> u64) -> Run {
        let (left, arrived) = (left(&self.server), arrived(&self.attacker));
        let worker = threads_named("portcullis-");
        let cpu = CpuTimes::now();
        let offered = self.flood(span, &self.far);
        let mut last = answered();
        eventually("the tier at rest", PATIENCE, || {
            thread::sleep(Duration::from_millis(20));
            std::mem::replace(&mut last, answered()) == last
        });
        Run {
            cpu: cpu.used(),
            worker: threads_named("portcullis-") - worker,
            offered,
            ring_received: None,
            counts: [answered(), crate::left(&self.server) - left, crate::arrived(&self.attacker) - arrived],
            span,
        }
    }

    /// Floods for a time and returns how many SYNs were sent.
    fn flood(&self, span: Duration, to: &Interface) -> u64 {
        let spec =
            FloodSpec { kind: FloodKind::Syn, target: SERVER, sources: Sources::random("198.19.0.0/16"), seed: 1 };
        let flood = on_cores(&self.cores[..1], || Flood::start(&self.near, to, spec));
        thread::sleep(span);
        flood.stop().sent
    }
}

/// Frames that left the server, as its interface counts them.
fn left(server: &Namespace) -> u64 {
    let text = server.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("interface counters"));
    let line = text.lines().find_map(|line| line.trim().strip_prefix("srv0:")).expect("srv0");
    line.split_whitespace().nth(9).and_then(|text| text.parse().ok()).expect("the tx_packets column")
}

/// Frames for another host that arrived at the attacker, as its IP layer counts them.
fn arrived(attacker: &Namespace) -> u64 {
    let text = attacker.output("ip", "-json -stats -stats link show dev fld0");
    // Absent while it is 0, and before iproute2 5.19.
    let Some((_, number)) = text.split_once("\"otherhost\":") else { return 0 };
    number.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).expect("a number")
}

/// What one tier did under one flood.
struct Run {
    cpu: CpuUse,
    /// Of `cpu`, the raw tier's threads.
    worker: Duration,
    offered: u64,
    /// SYNs that reached the raw tier's worker: the rest found the ring full.
    ring_received: Option<u64>,
    /// SYN-ACKs as the tier counts them, the server's interface, and the attacker's IP layer.
    counts: [u64; 3],
    span: Duration,
}

impl Run {
    /// CPU time beyond the flood's own.
    fn cost(&self, price: Duration) -> Duration {
        self.cpu.ours.saturating_sub(Duration::from_nanos(self.offered * price.as_nanos() as u64))
    }

    fn syn_acks(&self) -> f64 {
        self.counts[2] as f64
    }

    fn per_cpu_second(&self, price: Duration) -> f64 {
        self.syn_acks() / self.cost(price).as_secs_f64()
    }

    /// The largest distance between any two of the three counts, relative.
    fn disagreement(&self) -> f64 {
        let (min, max) = (self.counts.iter().min().unwrap_or(&0), self.counts.iter().max().unwrap_or(&0));
        (max - min) as f64 / (*max).max(1) as f64
    }

    /// What kept the rate from being higher.
    fn limit(&self) -> &'static str {
        match self.ring_received {
            None => "core A, shared with the flood",
            Some(taken) if (taken as f64) < 0.999 * self.offered as f64 => "the worker (ring full)",
            Some(_) => "the flood",
        }
    }
}

struct Round {
    price: Duration,
    kernel: Run,
    raw: Run,
}

const HEADER: &str = "round  tier    SYN/s   SYN-ACK/s  answered  \
                      µs/SYN-ACK  of it worker  SYN-ACK per CPU s  neighbours  limit";

impl Round {
    fn print(&self, number: usize) {
        println!("{number:>5}  alone: {:.3} µs per SYN offered", self.price.as_secs_f64() * 1e6);
        for (name, run) in [("kernel", &self.kernel), ("raw", &self.raw)] {
            let seconds = run.span.as_secs_f64();
            println!(
                "{number:>5}  {name:<6}  {:>6.0}k  {:>7.0}k  {:>7.1}%  {:>10.3}  {:>12.3}  {:>16.0}k  {:>10.2}  {}",
                run.offered as f64 / seconds / 1e3,
                run.syn_acks() / seconds / 1e3,
                100.0 * run.syn_acks() / run.offered as f64,
                1e6 * run.cost(self.price).as_secs_f64() / run.syn_acks(),
                1e6 * run.worker.as_secs_f64() / run.syn_acks(),
                run.per_cpu_second(self.price) / 1e3,
                run.cpu.neighbours(),
                run.limit(),
            );
        }
    }

    fn ratio(&self) -> f64 {
        self.raw.per_cpu_second(self.price) / self.kernel.per_cpu_second(self.price)
    }
}

fn summary(rounds: &[Round]) {
    let of = |value: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
    println!("\nmedian (smallest to largest) of {} rounds:", rounds.len());
    println!("  kernel  {} M SYN-ACK per CPU second", of(&|round| round.kernel.per_cpu_second(round.price) / 1e6));
    println!("  raw     {} M SYN-ACK per CPU second", of(&|round| round.raw.per_cpu_second(round.price) / 1e6));
    println!("  raw : kernel, round by round  {}", of(&|round| round.ratio()));
    let worst = rounds.iter().flat_map(|round| [&round.kernel, &round.raw]).map(Run::disagreement).fold(0.0, f64::max);
    println!(
        "  the three counts of SYN-ACKs (tier, server's interface, attacker) differ by at most {:.3} %",
        100.0 * worst
    );
}
