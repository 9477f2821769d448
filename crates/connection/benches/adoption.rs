//! What one adoption costs: `cargo bench -p connection`. Runs in namespaces of its own; needs what the tests need.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connection::adopt;
use criterion::{Criterion, criterion_group};
use listener::{Accepted, EarlyData, Negotiated, Timestamps, Via};
use socket2::SockRef;
use testnet::Namespace;
use wire::{FourTuple, SeqNum};

struct Early(Vec<u8>);

impl EarlyData for Early {
    fn collect(&mut self) -> &[u8] {
        &self.0
    }
}

fn handshake(number: u64) -> Accepted {
    let local: SocketAddr = "198.18.0.1:8080".parse().expect("an address");
    let peer = SocketAddr::from(([198, 19, (number >> 14) as u8, 1], 1024 + (number & 0x3fff) as u16));
    Accepted {
        tuple: FourTuple { local: local.into(), peer: peer.into() },
        scope_id: 0,
        iss: SeqNum::new(number as u32),
        irs: SeqNum::new(!number as u32),
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

/// Only the adoption is timed; the connection is reset right after, so that the kernel's tables stay small.
fn adoptions(criterion: &mut Criterion) {
    // Every address the peers have is local here, so their resets go nowhere.
    Namespace::current().ip("addr add 198.18.0.1/15 dev lo");
    let mut number = 0;
    for (name, early_len) in [("adopt", 0), ("adopt with a request of 400 bytes", 400)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut early = Early(vec![b'x'; early_len]);
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    number = (number + 1) & 0x3f_ffff;
                    let accepted = handshake(number);
                    let start = Instant::now();
                    let adopted = adopt(&accepted, &mut early).expect("adoption");
                    spent += start.elapsed();
                    SockRef::from(&adopted.stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
                }
                spent
            });
        });
    }
}

criterion_group!(benches, adoptions);

fn main() {
    if nix::unistd::geteuid().is_root() {
        Namespace::new().run(benches);
    } else {
        // Here one eBPF program for all sockets is out of reach, and an adoption is dearer.
        testnet::enter_namespaces().expect("namespaces of our own");
        benches();
    }
    Criterion::default().configure_from_args().final_summary();
}
