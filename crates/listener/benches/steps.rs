//! What it costs that the steps of the kernel's sockets are counted.
//!
//! `cargo bench -p listener --bench steps`. Needs CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN in the first user namespace.
//!
//! Connections are made and closed over loopback, some thousand in a round, and the kernel measures the runs of the program
//! (`BPF_ENABLE_STATS`), which itself costs some tens of nanoseconds that are in the figures. Each connection is ten runs: five steps of
//! the server's socket, five of the client's. Three kinds of rounds take turns: the server's port is nobody's, is guarded at another
//! address, is guarded at this one. The figure is the median of the rounds.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use aya::sys::{Stats, enable_stats};
use listener::io::{Handshakes, TransitionCounter};

const ROUNDS: usize = 21;
const CONNECTIONS: usize = 2_000;

/// Nanoseconds and runs of the program, and the runs that were left out because it was running already on that core.
#[derive(Clone, Copy, Debug)]
struct Runs {
    time_ns: u64,
    count: u64,
    left_out: u64,
}

impl Runs {
    fn since(self, before: Runs) -> Runs {
        Runs {
            time_ns: self.time_ns - before.time_ns,
            count: self.count - before.count,
            left_out: self.left_out - before.left_out,
        }
    }

    fn each_ns(self) -> f64 {
        self.time_ns as f64 / self.count as f64
    }
}

/// Of this process's program, which is the only one it has.
fn runs() -> Runs {
    for entry in fs::read_dir("/proc/self/fdinfo").expect("list descriptors").flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().parse().ok()
        };
        if let (Some(time_ns), Some(count)) = (field("run_time_ns"), field("run_cnt")) {
            return Runs { time_ns, count, left_out: field("recursion_misses").unwrap_or(0) };
        }
    }
    panic!("no program among this process's descriptors");
}

/// A connection that its client closes first.
fn live_and_die(listener: &TcpListener, addr: SocketAddr) {
    let mut client = TcpStream::connect(addr).expect("connect");
    let mut server = listener.accept().expect("accept").0;
    client.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(server.read(&mut [0]).expect("the FIN"), 0);
    drop(server);
    assert_eq!(client.read(&mut [0]).expect("the other FIN"), 0);
}

fn main() {
    let _stats = enable_stats(Stats::RunTime).expect("BPF_ENABLE_STATS");
    let listener = TcpListener::bind((Ipv4Addr::new(127, 77, 1, 1), 0)).expect("bind");
    let addr = listener.local_addr().expect("an address");
    let elsewhere = SocketAddr::new(Ipv4Addr::new(127, 77, 1, 2).into(), addr.port());
    let kinds: [(&str, &[SocketAddr]); 3] =
        [("port of nobody", &[]), ("port guarded elsewhere", &[elsewhere]), ("guarded", &[addr])];
    let mut figures = kinds.map(|_| Vec::new());
    let mut left_out = 0;
    for _ in 0..ROUNDS {
        for ((_, guarded), figures) in kinds.iter().zip(&mut figures) {
            // A counter of its own for each round: what it counted before is gone with it.
            let counter = TransitionCounter::open().expect("a counter");
            counter.guard(guarded, Handshakes::Kernels).expect("guard");
            let before = runs();
            (0..CONNECTIONS).for_each(|_| live_and_die(&listener, addr));
            let runs = runs().since(before);
            left_out += runs.left_out;
            figures.push(runs.each_ns());
        }
    }
    for ((name, _), figures) in kinds.iter().zip(&mut figures) {
        figures.sort_by(f64::total_cmp);
        let [low, median, high] = [1, 2, 3].map(|quarter| figures[ROUNDS * quarter / 4]);
        println!("{name:24} {median:6.1} ns a run (quartiles {low:.1} to {high:.1})");
    }
    let all = ROUNDS * kinds.len() * CONNECTIONS * 10;
    println!("{left_out} of some {all} runs were left out, because the program was running already on that core");
}
