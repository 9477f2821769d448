//! What the tap costs a bulk transfer on the port it guards.
//!
//! `cargo bench -p portcullis --bench tap_price`, with `-- --quick` for a short run. Needs what the tests need, and two cores.
//!
//! One established connection over a veth pair carries bytes as fast as two cores move them: one sends, the other
//! receives. An engine with its usual settings is started on the port, stopped, started again; the socket stays the same, so what
//! changes is the tap alone. With "whole frames" the sender's kernel hands frames of up to 64 KiB to the cable (TSO, as
//! between containers); with "cut frames" it cuts them to the MTU first, as a wire would.

mod support;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use connection::{ConnectionStats, RawEstablisher, accept_queue};
use listener::io::{Engine, EngineConfig};
use listener::{Counter, ListenConfig, MasterKey};
use support::{CpuTimes, Spread, is_quick, on_cores, two_cores};
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
    for (direction, frames) in [
        (Direction::Upload, Frames::Whole),
        (Direction::Upload, Frames::Cut),
        (Direction::Download, Frames::Whole),
        (Direction::Download, Frames::Cut),
    ] {
        let lab = Lab::new(frames);
        let transfer = lab.transfer(direction, cores);
        let mut results: Vec<Round> = (0..rounds).map(|_| lab.round(&transfer, span)).collect();
        // The first round's windows may still have been growing.
        results.remove(0);
        print(direction, frames, &results);
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    /// The client sends: bulk data meets the tap.
    Upload,
    /// The server sends: only acknowledgments meet the tap.
    Download,
}

#[derive(Clone, Copy, Debug)]
enum Frames {
    Whole,
    Cut,
}

struct Lab {
    server: Namespace,
    client: Namespace,
}

impl Lab {
    fn new(frames: Frames) -> Lab {
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
        Lab { server, client }
    }

    /// A connection made by the kernel's own listener, which is closed again so that an engine can have the port.
    fn transfer(&self, direction: Direction, cores: [usize; 2]) -> Transfer {
        let listener = self.server.run(|| TcpListener::bind(SERVER)).expect("bind");
        let client = self.client.run(|| TcpStream::connect(SERVER)).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        match direction {
            Direction::Upload => Transfer::start(client, server, cores),
            Direction::Download => Transfer::start(server, client, cores),
        }
    }

    /// Without, with, and without again, so that what drifts falls out.
    fn round(&self, transfer: &Transfer, span: Duration) -> Round {
        let before = transfer.sample(span);
        let engine = self.guard();
        thread::sleep(SETTLE);
        let (view, frames) = (engine.view(), self.frames());
        let tapped = view.stats().get(Counter::RingReceived);
        let with = transfer.sample(span);
        let tapped = view.stats().get(Counter::RingReceived) - tapped;
        let frames = self.frames() - frames;
        engine.stop();
        thread::sleep(SETTLE);
        let without = before.mean(&transfer.sample(span));
        Round { without, with, tapped: tapped as f64 / frames as f64 }
    }

    fn guard(&self) -> Engine {
        let (sender, _receiver) = accept_queue(1, Arc::new(ConnectionStats::default()));
        let listen = ListenConfig { bind: vec![SERVER], ..ListenConfig::default() };
        let config = EngineConfig::new(listen, MasterKey::generate().expect("a key"));
        self.server.run(|| Engine::start(config, |_| RawEstablisher::new(sender.clone()))).expect("start the raw tier")
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
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Transfer {
    fn start(mut from: TcpStream, mut to: TcpStream, cores: [usize; 2]) -> Transfer {
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
        let bytes = (self.received.load(Ordering::Relaxed) - before) as f64;
        let used = cpu.used();
        Sample {
            bits_per_second: 8.0 * bytes / used.elapsed.as_secs_f64(),
            cpu_seconds_per_gigabyte: 1e9 * used.ours.as_secs_f64() / bytes,
        }
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
    bits_per_second: f64,
    /// Of both ends, both kernels and the engine.
    cpu_seconds_per_gigabyte: f64,
}

impl Sample {
    fn mean(&self, other: &Sample) -> Sample {
        Sample {
            bits_per_second: (self.bits_per_second + other.bits_per_second) / 2.0,
            cpu_seconds_per_gigabyte: (self.cpu_seconds_per_gigabyte + other.cpu_seconds_per_gigabyte) / 2.0,
        }
    }
}

struct Round {
    without: Sample,
    with: Sample,
    /// Of the frames that came in, the part that was copied to user space.
    tapped: f64,
}

fn print(direction: Direction, frames: Frames, rounds: &[Round]) {
    let of = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
    println!("{}", format!("{direction:?}, {frames:?} frames").to_lowercase());
    let line = |what, without: Spread, with: Spread, ratio: Spread| {
        println!("  {what:<12} without {without}, with {with}; with : without {ratio}");
    };
    line(
        "Gbit/s",
        of(|round| round.without.bits_per_second / 1e9),
        of(|round| round.with.bits_per_second / 1e9),
        of(|round| round.with.bits_per_second / round.without.bits_per_second),
    );
    line(
        "CPU s per GB",
        of(|round| round.without.cpu_seconds_per_gigabyte),
        of(|round| round.with.cpu_seconds_per_gigabyte),
        of(|round| round.with.cpu_seconds_per_gigabyte / round.without.cpu_seconds_per_gigabyte),
    );
    let tapped = of(|round| 100.0 * round.tapped);
    println!("  frames that the tap copied to user space: {tapped} %\n");
}
