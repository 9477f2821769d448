//! What one segment costs the core: no sockets, no system calls.
//!
//! `cargo bench -p listener --bench core`

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use listener::cookie::{CookieJar, Epoch, MasterKey, Offer};
use listener::{
    Arrival, Denial, Disposition, KernelSockets, Listen, ListenConfig, ListenShared, LocalAddresses, Mode, PrefixList,
    Sources, Time, WorkerSeat,
};
use wire::{
    Checksums, Endpoint, Flags, FourTuple, OptionBlock, OutgoingSegment, Packet, REPLY_MAX_LEN, ReplyOptions, SeqNum,
    TimestampOption,
};

const NOW: Time = Time::from_secs(1000);
const EPOCH: Epoch = Epoch(52_000_000);
const OPTIONS: ReplyOptions = ReplyOptions {
    mss: Some(1460),
    wscale: Some(7),
    sack_permitted: true,
    timestamps: Some(TimestampOption { tsval: 5000, tsecr: 0 }),
};
const ARRIVAL: Arrival = Arrival { to_us: true, loopback: false, interface: 2, mtu: 1500 };

struct Host;

impl LocalAddresses for Host {
    fn is_local(&self, addr: IpAddr) -> bool {
        addr == IpAddr::from([198, 18, 0, 1]) || addr == "2001:db8::1".parse::<IpAddr>().unwrap()
    }

    fn is_broadcast(&self, _: Ipv4Addr) -> bool {
        false
    }

    fn mtu_of(&self, _: IpAddr) -> Option<u32> {
        Some(1500)
    }
}

impl KernelSockets for Host {
    fn holds(&mut self, _: &FourTuple) -> bool {
        false
    }

    fn destroy(&mut self, _: &FourTuple) -> bool {
        false
    }
}

/// The `n`th client, as the listener sees it.
fn tuple(n: u32, v6: bool) -> FourTuple {
    let end = |text: &str| Endpoint::from(text.parse::<SocketAddr>().unwrap());
    let port = (n >> 22) as u16 + 1024;
    if v6 {
        let addr =
            u128::from_be_bytes([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) + (u128::from(n) << 56);
        let peer = Endpoint { addr: std::net::Ipv6Addr::from_bits(addr).into(), port };
        FourTuple { local: end("[2001:db8::1]:80"), peer }
    } else {
        let peer = Endpoint { addr: Ipv4Addr::from_bits(0xc612_0100 + (n & 0x3f_ffff)).into(), port };
        FourTuple { local: end("198.18.0.1:80"), peer }
    }
}

fn packet(n: u32, v6: bool, flags: Flags, seq: u32, ack: u32, options: ReplyOptions) -> Vec<u8> {
    let seen = tuple(n, v6);
    let segment = OutgoingSegment {
        tuple: FourTuple { local: seen.peer, peer: seen.local },
        hop_limit: 64,
        seq: SeqNum::new(seq),
        ack: SeqNum::new(ack),
        flags,
        window: 64240,
        options: OptionBlock::from(options),
        payload: &[],
    };
    let mut buffer = vec![0; 128];
    let len = segment.emit(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

fn listener(half_open_max: usize) -> Listen {
    let bind = vec!["0.0.0.0:80".parse().unwrap(), "[::]:80".parse().unwrap()];
    let config = ListenConfig {
        bind,
        half_open_max,
        high_watermark_percent: 100,
        prefix_share_percent: 100,
        replies_per_prefix: 327_670,
        ..ListenConfig::default()
    };
    let shared = Arc::new(ListenShared::new(&config, NOW));
    let seat = WorkerSeat { workers: 1, seed: [1; 16] };
    Listen::new(config, shared, MasterKey::from_bytes([7; 32]), seat, EPOCH, NOW)
}

fn receive(listen: &mut Listen, bytes: &[u8], checksums: Checksums, now: Time) -> Disposition {
    listen.on_packet(Packet::parse_ip(bytes, bytes.len(), checksums), &ARRIVAL, &mut Host, now)
}

fn cookies(c: &mut Criterion) {
    let mut group = c.benchmark_group("cookie");
    for (family, v6) in [("v4", false), ("v6", true)] {
        for (form, tsval) in [("A", Some(5000)), ("B", None)] {
            let offer = Offer { mss: 1460, wscale: Some(7), sack: true, tsval };
            let mut jar = CookieJar::new(MasterKey::from_bytes([7; 32]), EPOCH);
            let (tuple, irs) = (tuple(1, v6), SeqNum::new(77));
            group.bench_function(BenchmarkId::new(format!("mint form {form}"), family), |b| {
                b.iter(|| jar.mint(black_box(&tuple), black_box(irs), black_box(&offer), NOW));
            });
            let cookie = jar.mint(&tuple, irs, &offer, NOW);
            let echo = cookie.tsval.map(|tsecr| TimestampOption { tsval: 5001, tsecr });
            group.bench_function(BenchmarkId::new(format!("check form {form}"), family), |b| {
                b.iter(|| jar.check(black_box(&tuple), black_box(irs), black_box(cookie.isn), echo, NOW));
            });
        }
    }
    group.finish();
}

/// Bytes in, bytes out, under pressure: parse, admission, budget, cookie, and the SYN-ACK written.
fn syn_to_syn_ack(c: &mut Criterion) {
    let mut group = c.benchmark_group("SYN to SYN-ACK, no entry");
    for (family, v6) in [("v4", false), ("v6", true)] {
        for (sums, checksums) in [("checksum verified", Checksums::Verify), ("checksum trusted", Checksums::Trust)] {
            let mut listen = listener(1);
            let syns: Vec<Vec<u8>> = (0..4096).map(|n| packet(n, v6, Flags::SYN, n, 0, OPTIONS)).collect();
            let _ = receive(&mut listen, &syns[0], Checksums::Trust, NOW);
            let (mut n, mut now) = (0, NOW);
            group.bench_function(BenchmarkId::new(sums, family), |b| {
                b.iter(|| {
                    n += 1;
                    // A microsecond each, so that budgets are refilled as they would be.
                    now = now + Duration::from_micros(1);
                    let Disposition::Reply(reply) = receive(&mut listen, &syns[n % 4096], checksums, now) else {
                        panic!("a SYN is answered")
                    };
                    let mut buffer = [0; REPLY_MAX_LEN];
                    reply.emit(black_box(&mut buffer))
                });
            });
        }
    }
    group.finish();
}

/// What the lists add to a SYN: that of somebody whom ten thousand prefixes do not name, and those who are denied.
fn listed_syn(c: &mut Criterion) {
    const PREFIXES: u32 = 10_000;
    let far = |n: u32| IpNet::from(Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0b00_0000 + n * 512), 24));
    let near = |n: u32| IpNet::from(Ipv4Net::new_assert(Ipv4Addr::from_bits(0xc612_0000 + n * 16), 29));
    let deny = |prefix: &dyn Fn(u32) -> IpNet| {
        let list: PrefixList = (0..PREFIXES).map(prefix).collect();
        assert_eq!(list.len(), PREFIXES as usize, "none touches another");
        Sources::new(PrefixList::default(), list, Denial::Silent).expect("fewer than there may be")
    };
    let everybody = PrefixList::parse("198.18.0.0/15").expect("a list");
    let all = Sources::new(PrefixList::default(), everybody, Denial::Silent).expect("a list");
    let mut group = c.benchmark_group("SYN v4, no entry, checksum trusted");
    for (name, sources) in [
        ("no lists", Sources::default()),
        ("10,000 prefixes, none near", deny(&far)),
        ("10,000 prefixes, half of the SYNs denied", deny(&near)),
        ("all denied", all),
    ] {
        let mut listen = listener(1);
        let syns: Vec<Vec<u8>> = (0..4096).map(|n| packet(n * 37, false, Flags::SYN, n, 0, OPTIONS)).collect();
        let _ = receive(&mut listen, &syns[0], Checksums::Trust, NOW);
        listen.set_sources(sources);
        let (mut n, mut now) = (0, NOW);
        group.bench_function(name, |b| {
            b.iter(|| {
                n += 1;
                now = now + Duration::from_micros(1);
                black_box(receive(&mut listen, &syns[n % 4096], Checksums::Trust, now))
            });
        });
    }
    group.finish();
}

fn refused_ack(c: &mut Criterion) {
    let mut group = c.benchmark_group("ACK with a guessed cookie");
    for (form, timestamps) in [("form A", OPTIONS.timestamps), ("form B", None)] {
        let mut listen = listener(1);
        let _ = receive(&mut listen, &packet(0, false, Flags::SYN, 0, 0, OPTIONS), Checksums::Trust, NOW);
        let options = ReplyOptions { timestamps, mss: None, wscale: None, sack_permitted: false };
        let acks: Vec<Vec<u8>> = (0..4096).map(|n| packet(n, false, Flags::ACK, n, n * 7, options)).collect();
        let (mut n, mut now) = (0, NOW);
        group.bench_function(form, |b| {
            b.iter(|| {
                n += 1;
                now = now + Duration::from_micros(1);
                let _ = black_box(receive(&mut listen, &acks[n % 4096], Checksums::Trust, now));
            });
        });
    }
    group.finish();
}

/// A queue of a million entries: insertion by SYN, the repeated SYN that finds its entry, and the timers.
fn half_open(c: &mut Criterion) {
    const MILLION: u32 = 1_000_000;
    // Room for all that is inserted while the benches run.
    let mut full = listener(4 * MILLION as usize);
    let mut now = NOW;
    for n in 0..MILLION {
        now = now + Duration::from_nanos(10);
        let syn = packet(n, false, Flags::SYN, n, 0, OPTIONS);
        let _ = receive(&mut full, &syn, Checksums::Trust, now);
        if n % 20_000 == 0 {
            now = now + Duration::from_secs(1); // A fresh budget for each prefix.
        }
    }
    let mut group = c.benchmark_group("half-open, 1 M entries");
    group.sample_size(20);
    // Short, so that the fresh entries do not fill the queue.
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(400));
    let repeated: Vec<Vec<u8>> = (0..4096).map(|n| packet(n * 200, false, Flags::SYN, n * 200, 0, OPTIONS)).collect();
    let mut n = 0;
    group.bench_function("SYN that finds its entry", |b| {
        b.iter(|| {
            n += 1;
            now = now + Duration::from_micros(100);
            let _ = black_box(receive(&mut full, &repeated[n % 4096], Checksums::Trust, now));
        });
    });
    let mut fresh = MILLION;
    group.bench_function("SYN that makes an entry", |b| {
        b.iter_batched(
            || {
                fresh += 1;
                now = now + Duration::from_micros(100);
                (packet(fresh, false, Flags::SYN, fresh, 0, OPTIONS), now)
            },
            |(syn, now)| {
                let _ = black_box(receive(&mut full, &syn, Checksums::Trust, now));
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("one whole sweep, nothing due", |b| {
        b.iter(|| full.tick(NOW, EPOCH, Duration::from_millis(200), &Host, |_| {}));
    });
    group.bench_function("one whole sweep, 1 M entries expire", |b| {
        b.iter_batched(
            || {
                let mut listen = listener(2 * MILLION as usize);
                let mut at = NOW;
                for n in 0..MILLION {
                    let _ = receive(&mut listen, &packet(n, false, Flags::SYN, n, 0, OPTIONS), Checksums::Trust, at);
                    if n % 20_000 == 0 {
                        at = at + Duration::from_millis(1001);
                    }
                }
                // Three retransmissions are behind them.
                for seconds in [60, 63, 67] {
                    listen.tick(NOW + Duration::from_secs(seconds), EPOCH, Duration::from_secs(1), &Host, |_| {});
                }
                listen
            },
            |mut listen| {
                listen.tick(NOW + Duration::from_secs(200), EPOCH, Duration::from_secs(1), &Host, |_| {});
                listen
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    assert_ne!(full.mode(), Mode::Cookies, "the queue is meant to have room");
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = cookies, syn_to_syn_ack, listed_syn, refused_ack, half_open
}
criterion_main!(benches);
