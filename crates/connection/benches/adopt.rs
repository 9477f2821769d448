//! Adoptions per second, beside the kernel's own connections in the same run: `cargo bench -p connection --bench adopt`.
//!
//! Runs in a namespace of its own, on loopback; needs what the tests need. Run it as root: elsewhere the one eBPF program that
//! mutes all sockets is out of reach, and an adoption is dearer.
//!
//! Three groups, each for both families, with and without 200 bytes that came right behind the handshake:
//! - `adopt`: the adoption alone;
//! - `adopt and close`: and a reset of the connection, which frees it at once;
//! - `kernel connect, accept and close`: what a connection of the kernel's own costs, handshake and both ends included.
//!   Neither more nor less than that: the kernel has no call that does what `adopt` does.

use std::cell::Cell;
use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use connection::adopt;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group};
use listener::{Accepted, EarlyData, Negotiated, Timestamps, Via};
use socket2::SockRef;
use testnet::Namespace;
use wire::{FourTuple, SeqNum};

/// What a client sent right behind its handshake: nothing, or a small request.
const EARLY_LENGTHS: [usize; 2] = [0, 200];

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn server(self, port: u16) -> SocketAddr {
        match self {
            Family::V4 => ([198, 18, 0, 1], port).into(),
            Family::V6 => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), port).into(),
        }
    }

    /// The `number`th client; they differ for 4 million numbers, and then come again.
    fn client(self, number: u32) -> SocketAddr {
        let (host, port) = ((number >> 14) as u8, 1024 + (number & 0x3fff) as u16);
        match self {
            Family::V4 => ([198, 19, 0, host], port).into(),
            Family::V6 => (Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, host.into()), port).into(),
        }
    }
}

struct Early(Vec<u8>);

impl EarlyData for Early {
    fn collect(&mut self) -> &[u8] {
        &self.0
    }
}

/// What the listener hands over for a client that Linux runs on.
fn handshake(family: Family, number: u32) -> Accepted {
    Accepted {
        tuple: FourTuple { local: family.server(8080).into(), peer: family.client(number).into() },
        scope_id: 0,
        iss: SeqNum::new(number),
        irs: SeqNum::new(!number),
        options: Negotiated {
            peer_mss: 1460,
            peer_wscale: Some(7),
            local_wscale: Some(7),
            sack: true,
            timestamps: Some(Timestamps { local: 1000, peer: 2000 }),
        },
        peer_window: 64240,
        local_window: 64240,
        via: Via::Cookie,
        handshake: None,
    }
}

/// Closes with a reset, so that nothing lingers: no FIN to be acknowledged, no TIME-WAIT.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// One bench for each family and length of early data.
fn each(
    criterion: &mut Criterion,
    name: &str,
    bench: impl Fn(&mut BenchmarkGroup<'_, WallTime>, BenchmarkId, Family, usize),
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    for family in Family::BOTH {
        for early_len in EARLY_LENGTHS {
            let id = BenchmarkId::new(family.name(), format!("{early_len} B early"));
            bench(&mut group, id, family, early_len);
        }
    }
    group.finish();
}

fn adoption(criterion: &mut Criterion) {
    let numbers = Cell::new(0u32);
    let next = || numbers.replace(numbers.get().wrapping_add(1));
    each(criterion, "adopt", |group, id, family, early_len| {
        let mut early = Early(vec![b'x'; early_len]);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    let accepted = handshake(family, next());
                    let start = Instant::now();
                    let adopted = adopt(&accepted, &mut early).expect("adoption");
                    spent += start.elapsed();
                    reset(adopted.stream);
                }
                spent
            });
        });
    });
    each(criterion, "adopt and close", |group, id, family, early_len| {
        let mut early = Early(vec![b'x'; early_len]);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let accepted = handshake(family, next());
                reset(adopt(&accepted, &mut early).expect("adoption").stream);
            });
        });
    });
}

fn kernel(criterion: &mut Criterion) {
    each(criterion, "kernel connect, accept and close", |group, id, family, early_len| {
        let listener = TcpListener::bind(family.server(8081)).expect("bind");
        let early = vec![b'x'; early_len];
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let mut client = TcpStream::connect(family.server(8081)).expect("connect");
                if !early.is_empty() {
                    client.write_all(&early).expect("write");
                }
                let (accepted, _) = listener.accept().expect("accept");
                reset(accepted);
                drop(client);
            });
        });
    });
}

fn benches() {
    // Every address of these prefixes is this namespace's own: the resets arrive, and find nobody.
    let namespace = Namespace::current();
    namespace.ip("addr add 198.18.0.1/15 dev lo");
    namespace.ip("addr add 2001:db8::1/32 dev lo nodad");
    namespace.ip("-6 route add local 2001:db8::/32 dev lo");
    groups();
}

criterion_group! {
    name = groups;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = adoption, kernel
}

fn main() {
    if nix::unistd::geteuid().is_root() {
        Namespace::new().run(benches);
    } else {
        testnet::enter_namespaces().expect("namespaces of our own");
        benches();
    }
    Criterion::default().configure_from_args().final_summary();
}
