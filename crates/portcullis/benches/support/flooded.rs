//! A server under a flood of spoofed SYNs, and what an answer costs it.
//!
//! ```text
//!   attacker's namespace                    server's namespace
//!   core A: flood ──► fld0 ═══════ srv0 ──► core A: the kernel in the context of the flood's sendmmsg
//!             SYN-ACKs end at fld0 ◄──────── core A or B
//! ```
//!
//! Whatever the kernel does for a SYN it does on the flood's core, in the flood's system calls. So the flood alone, which ends in
//! frames that the server drops first thing, gives the price of offering one SYN; what is used beyond that price is the
//! server's: receiving, answering, and carrying the SYN-ACK to the other end, where it is dropped first thing too.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use testnet::{Flood, FloodKind, FloodSpec, Interface, Mac, Namespace, Sources, eventually, veth};

use super::{CpuTimes, CpuUse, on_cores};

/// What is flooded.
pub const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1)), 80);
const PATIENCE: Duration = Duration::from_secs(10);

/// Two namespaces and the cable between them.
pub struct Lab {
    pub server: Namespace,
    pub attacker: Namespace,
    far: Interface,
    near: Interface,
    core: usize,
}

impl Lab {
    /// The flood will be on this core.
    pub fn new(core: usize) -> Lab {
        let (server, attacker) = (Namespace::new(), Namespace::new());
        let (far, near) = veth((&server, "srv0", &["198.18.0.1/30"]), (&attacker, "fld0", &["198.18.0.2/30"]));
        // The spoofed sources lie behind a router, whose address is known for good.
        server.ip("route add 198.19.0.0/16 via 198.18.0.2");
        server.neighbour("198.18.0.2".parse().expect("an address"), near.mac(), "srv0");
        // The flood goes on to send from the address the interface had. Answers to it are for another host now: the
        // attacker's kernel drops and counts them before it looks at anything else.
        attacker.ip(&format!("link set fld0 address {}", Mac([2, 0, 0, 0, 0, 0x99])));
        server.sysctl("net.ipv4.tcp_syncookies", "2");
        Lab { server, attacker, far, near, core }
    }

    /// CPU time per SYN offered, when nobody answers.
    pub fn price(&self, span: Duration) -> Duration {
        let before = CpuTimes::now();
        // Addressed to the sender's own interface, so to another host as the server sees it.
        let sent = self.flood(span, &self.near);
        before.used().ours / u32::try_from(sent).expect("fewer than 4 billion SYNs")
    }

    /// Floods the server that stands ready, waits until it has answered what it took, and compares the counts. `answered` is
    /// how many SYN-ACKs it has sent by its own count.
    pub fn measure(&self, span: Duration, price: Duration, answered: impl Fn() -> u64) -> Run {
        let (first, left, arrived) = (answered(), self.left(), self.arrived());
        let cpu = CpuTimes::now();
        let offered = self.flood(span, &self.far);
        let mut last = answered();
        eventually("the server at rest", PATIENCE, || {
            thread::sleep(Duration::from_millis(100));
            std::mem::replace(&mut last, answered()) == last
        });
        let counts = [answered() - first, self.left() - left, self.arrived() - arrived];
        Run { cpu: cpu.used(), price, offered, counts, span }
    }

    /// Floods for a time and returns how many SYNs were sent.
    fn flood(&self, span: Duration, to: &Interface) -> u64 {
        let spec =
            FloodSpec { kind: FloodKind::Syn, target: SERVER, sources: Sources::random("198.19.0.0/16"), seed: 1 };
        let flood = on_cores(&[self.core], || Flood::start(&self.near, to, spec));
        thread::sleep(span);
        flood.stop().sent
    }

    /// Frames that left the server, as its interface counts them.
    fn left(&self) -> u64 {
        let text =
            self.server.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("interface counters"));
        let line = text.lines().find_map(|line| line.trim().strip_prefix("srv0:")).expect("srv0");
        line.split_whitespace().nth(9).and_then(|text| text.parse().ok()).expect("the tx_packets column")
    }

    /// Frames for another host that arrived at the attacker, as its IP layer counts them.
    fn arrived(&self) -> u64 {
        let text = self.attacker.output("ip", "-json -stats -stats link show dev fld0");
        // Absent while it is 0, and before iproute2 5.19.
        let Some((_, number)) = text.split_once("\"otherhost\":") else { return 0 };
        number.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).expect("a number")
    }
}

/// What one server did under one flood.
pub struct Run {
    pub cpu: CpuUse,
    /// CPU time of one SYN offered.
    pub price: Duration,
    pub offered: u64,
    /// SYN-ACKs as the server counts them, its interface, and the attacker's IP layer.
    pub counts: [u64; 3],
    pub span: Duration,
}

impl Run {
    /// SYN-ACKs that arrived.
    pub fn syn_acks(&self) -> f64 {
        self.counts[2] as f64
    }

    pub fn per_second(&self) -> f64 {
        self.syn_acks() / self.span.as_secs_f64()
    }

    /// For each second of CPU time beyond the flood's own.
    pub fn per_cpu_second(&self) -> f64 {
        let floods = Duration::from_nanos(self.offered * self.price.as_nanos() as u64);
        self.syn_acks() / self.cpu.ours.saturating_sub(floods).as_secs_f64()
    }

    /// For each second of CPU time, the flood's included.
    pub fn per_whole_cpu_second(&self) -> f64 {
        self.syn_acks() / self.cpu.ours.as_secs_f64()
    }

    /// The largest distance between any two of the three counts, relative.
    pub fn disagreement(&self) -> f64 {
        let (min, max) = (self.counts.iter().min().unwrap_or(&0), self.counts.iter().max().unwrap_or(&0));
        (max - min) as f64 / (*max).max(1) as f64
    }
}
