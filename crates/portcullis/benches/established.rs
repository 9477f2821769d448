//! What guarding a port costs an established connection on it: by the raw tier's taps, and by the bpf tier's program.
//!
//! `cargo bench -p portcullis --bench established`, with `-- --quick` for a short run, and with `-- bpf` or `-- raw` for one of them.
//! Needs two cores, and for the bpf tier root in the first user namespace and Linux 6.9.
//!
//! One established connection over a veth pair carries bytes as fast as two cores move them, one sends, the other receives; or
//! a byte to and fro. An engine with its usual settings is started on the port, stopped, started again; the socket stays the same, so
//! what changes is the engine alone: without it, it is a connection of the kernel tier. With "whole frames" the sender's kernel hands
//! frames of up to 64 KiB to the cable (TSO, as between containers); with "cut frames" it cuts them to the MTU first, as a wire would.

mod support;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use connection::{ConnectionStats, RawEstablisher, accept_queue};
use listener::io::{BpfConfig, BpfEngine, BpfHook, Engine, EngineConfig};
use listener::{Counter, ListenConfig, MasterKey};
use support::{CpuTimes, Spread, is_asked, is_quick, on_cores, two_cores};
use testnet::{Namespace, veth};

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1)), 80);
/// Bytes per call: as iperf3 has it.
const CHUNK: usize = 128 * 1024;
/// Until the congestion window and the receive buffer stop growing, and after each start and stop of an engine.
const SETTLE: Duration = Duration::from_millis(200);

fn main() -> io::Result<()> {
    let cores = two_cores();
    testnet::enter_namespaces()?;
    let (rounds, span) = if is_quick() { (2, Duration::from_millis(200)) } else { (8, Duration::from_millis(400)) };
    println!(
        "{rounds} rounds, median (smallest to largest); sender on core {}, receiver on core {}\n",
        cores[0], cores[1]
    );
    for tier in [Tier::Raw, Tier::Bpf].into_iter().filter(|tier| is_asked(tier.name())) {
        for (load, frames) in [
            (Load::Upload, Frames::Whole),
            (Load::Upload, Frames::Cut),
            (Load::Download, Frames::Whole),
            (Load::Download, Frames::Cut),
            (Load::Requests, Frames::Whole),
        ] {
            let lab = Lab::new(tier, frames);
            let transfer = lab.transfer(load, cores);
            let mut results: Vec<Round> = (0..rounds).map(|_| lab.round(&transfer, span)).collect();
            // The first round's windows may still have been growing.
            results.remove(0);
            print(tier, load, frames, &results);
        }
    }
    Ok(())
}

/// Who guards.
#[derive(Clone, Copy, Debug)]
enum Tier {
    Raw,
    Bpf,
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Tier::Raw => "raw",
            Tier::Bpf => "bpf",
        }
    }
}

/// What the connection carries.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// The client sends: bulk data meets the guard.
    Upload,
    /// The server sends: only acknowledgments meet the guard.
    Download,
    /// A byte there, a byte back.
    Requests,
}

#[derive(Clone, Copy, Debug)]
enum Frames {
    Whole,
    Cut,
}

struct Lab {
    tier: Tier,
    server: Namespace,
    client: Namespace,
}

/// A guarded port, until dropped.
enum Guard {
    Raw(Engine),
    Bpf { _engine: BpfEngine, _listener: TcpListener },
}

impl Guard {
    /// Packets that were copied to user space.
    fn tapped(&self) -> u64 {
        match self {
            Guard::Raw(engine) => engine.view().stats().get(Counter::RingReceived),
            Guard::Bpf { .. } => 0,
        }
    }
}

impl Lab {
    fn new(tier: Tier, frames: Frames) -> Lab {
        let (server, client) = (Namespace::new(), Namespace::new());
        veth((&server, "srv0", &["198.18.0.1/30"]), (&client, "cli0", &["198.18.0.2/30"]));
        for end in [&server, &client] {
            // Always there, and never slower than the cores: BBR, where it is the default, paces by what it guesses.
            end.sysctl("net.ipv4.tcp_congestion_control", "reno");
        }
        if let Frames::Cut = frames {
            server.ip("link set srv0 gso_max_segs 1");
            client.ip("link set cli0 gso_max_segs 1");
        }
        Lab { tier, server, client }
    }

    /// A connection made by the kernel's own listener, which is closed again so that an engine can have the port.
    fn transfer(&self, load: Load, cores: [usize; 2]) -> Transfer {
        let listener = self.server.run(|| TcpListener::bind(SERVER)).expect("bind");
        let client = self.client.run(|| TcpStream::connect(SERVER)).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        match load {
            Load::Upload => Transfer::bulk(client, server, cores),
            Load::Download => Transfer::bulk(server, client, cores),
            Load::Requests => Transfer::requests(client, server, cores),
        }
    }

    /// Without, with, and without again, so that what drifts falls out.
    fn round(&self, transfer: &Transfer, span: Duration) -> Round {
        let before = transfer.sample(span);
        let guard = self.guard();
        thread::sleep(SETTLE);
        let (frames, tapped) = (self.frames(), guard.tapped());
        let with = transfer.sample(span);
        let tapped = guard.tapped() - tapped;
        let frames = self.frames() - frames;
        drop(guard);
        thread::sleep(SETTLE);
        let without = before.mean(&transfer.sample(span));
        Round { without, with, tapped: tapped as f64 / frames as f64 }
    }

    fn guard(&self) -> Guard {
        let listen = ListenConfig { bind: vec![SERVER], ..ListenConfig::default() };
        let master = MasterKey::generate().expect("a key");
        self.server.run(|| match self.tier {
            Tier::Raw => {
                let (sender, _receiver) = accept_queue(1, Arc::new(ConnectionStats::default()));
                let config = EngineConfig::new(listen, master);
                Guard::Raw(Engine::start(config, |_| RawEstablisher::new(sender.clone())).expect("start the raw tier"))
            }
            Tier::Bpf => {
                let config = BpfConfig {
                    listen,
                    interfaces: Vec::new(),
                    hook: BpfHook::Auto,
                    pins: None,
                    fail_closed: false,
                    master: master.into(),
                    sources: Default::default(),
                    name: None,
                };
                let mut engine = BpfEngine::start(config, ()).expect("start the bpf tier");
                let listener = TcpListener::bind(SERVER).expect("bind");
                engine.open().expect("open the bpf tier");
                Guard::Bpf { _engine: engine, _listener: listener }
            }
        })
    }

    /// Frames that came in at the server's end, as the interface counts them.
    fn frames(&self) -> u64 {
        let text = self.server.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("counters"));
        let line = text.lines().find_map(|line| line.trim().strip_prefix("srv0:")).expect("srv0");
        line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("the rx_packets column")
    }
}

/// Two threads that move bytes until this is dropped.
struct Transfer {
    /// Bytes that arrived; or answers.
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Transfer {
    /// A byte to the server and one back, over and over.
    fn requests(mut client: TcpStream, mut server: TcpStream, cores: [usize; 2]) -> Transfer {
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        for end in [&client, &server] {
            end.set_nodelay(true).expect("no delay");
        }
        let (client_stop, counter) = (Arc::clone(&stop), Arc::clone(&received));
        let client = on_cores(&cores[..1], || {
            thread::spawn(move || {
                let mut byte = [0];
                while !client_stop.load(Ordering::Relaxed)
                    && client.write_all(&byte).is_ok()
                    && client.read_exact(&mut byte).is_ok()
                {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let server = on_cores(&cores[1..], || {
            thread::spawn(move || {
                let mut byte = [0];
                while server.read_exact(&mut byte).is_ok() && server.write_all(&byte).is_ok() {}
            })
        });
        Transfer { received, stop, threads: vec![client, server] }
    }

    fn bulk(mut from: TcpStream, mut to: TcpStream, cores: [usize; 2]) -> Transfer {
        let (received, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (sender_stop, counter) = (Arc::clone(&stop), Arc::clone(&received));
        let sender = on_cores(&cores[..1], || {
            thread::spawn(move || {
                let chunk = vec![0; CHUNK];
                // The end of this stream is the receiver's sign to end.
                while !sender_stop.load(Ordering::Relaxed) && from.write_all(&chunk).is_ok() {}
            })
        });
        let receiver = on_cores(&cores[1..], || {
            thread::spawn(move || {
                let mut chunk = vec![0; CHUNK];
                while let Ok(len @ 1..) = to.read(&mut chunk) {
                    counter.fetch_add(len as u64, Ordering::Relaxed);
                }
            })
        });
        let transfer = Transfer { received, stop, threads: vec![sender, receiver] };
        thread::sleep(SETTLE);
        transfer
    }

    /// What moves in this time, and what it costs.
    fn sample(&self, span: Duration) -> Sample {
        let (cpu, before) = (CpuTimes::now(), self.received.load(Ordering::Relaxed));
        thread::sleep(span);
        let moved = (self.received.load(Ordering::Relaxed) - before) as f64;
        let used = cpu.used();
        Sample { per_second: moved / used.elapsed.as_secs_f64(), cpu_seconds: used.ours.as_secs_f64() / moved }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread that moves bytes");
        }
    }
}

/// A look at the transfer.
#[derive(Clone, Copy)]
struct Sample {
    /// Bytes, or answers.
    per_second: f64,
    /// For each of them, of both ends, both kernels and the engine.
    cpu_seconds: f64,
}

impl Sample {
    fn mean(&self, other: &Sample) -> Sample {
        Sample {
            per_second: (self.per_second + other.per_second) / 2.0,
            cpu_seconds: (self.cpu_seconds + other.cpu_seconds) / 2.0,
        }
    }
}

struct Round {
    without: Sample,
    with: Sample,
    /// Of the frames that came in, the part that was copied to user space.
    tapped: f64,
}

fn print(tier: Tier, load: Load, frames: Frames, rounds: &[Round]) {
    println!("{}: {}", tier.name(), format!("{load:?}, {frames:?} frames").to_lowercase());
    // What a unit is, and how many units of the samples make one.
    let (rate, price, speed, size) = match load {
        Load::Upload | Load::Download => ("Gbit/s", "CPU s per GB", 1e9 / 8.0, 1e9),
        Load::Requests => ("thousand/s", "CPU us each", 1e3, 1e6),
    };
    let line = |what, of: &dyn Fn(&Sample) -> f64| {
        let over = |value: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
        let (without, with) = (over(&|round| of(&round.without)), over(&|round| of(&round.with)));
        let ratio = over(&|round| of(&round.with) / of(&round.without));
        println!("  {what:<12} without {without}, with {with}; with : without {ratio}");
    };
    line(rate, &|sample| sample.per_second / speed);
    line(price, &|sample| sample.cpu_seconds * size);
    let tapped = Spread::of(rounds.iter().map(|round| 100.0 * round.tapped));
    println!("  frames that were copied to user space: {tapped} %\n");
}
