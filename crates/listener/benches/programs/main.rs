//! What the programs in the kernel cost per packet, above a program that does nothing.
//!
//! `cargo bench -p listener --bench programs`, with `-- --quick` for a short run, and with `-- 'SYN v4'` for what has that
//! in its name. Needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN in the first user namespace, and Linux 6.9.
//!
//! The kernel runs a program on a frame a million times (`BPF_PROG_TEST_RUN`). An answered SYN is a SYN-ACK the next time, so
//! a small program (`replay.bpf.c`) puts the frame back and goes on to the one to be measured; the base is the same with one that
//! does nothing. Base and program alternate in short runs. The figure is the difference between the fastest run of each: whatever else
//! the machine does can only make a run slower. Beside it the median difference of neighbouring runs, and the quartiles.
//!
//! Last, whole frames (`live`): how many SYNs from 65,536 sources one core makes, answers, carries to the other end of a veth
//! pair and drops there in a second.

#[path = "../../src/io/bpf/layout.rs"]
#[allow(dead_code)]
mod layout;
#[path = "../../src/io/bpf/object.rs"]
#[allow(unused_imports)] // By its tests, which are not run here.
mod object;

mod frames;
mod guard;
mod live;
mod replay;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::unistd::Pid;
use wire::Flags;

use frames::{Frame, LAYOUTS, MAC, TIMESTAMPS, segment, syn_from_anywhere};
use guard::{CALM, Guard, PRESSURE};
use layout::ListenerWords;
use replay::{Hook, Replay};

/// What `layout.rs` takes from the listener's own modules.
mod cookie {
    pub use listener::cookie::Offer;

    pub const KEY_SLOTS: usize = 8;
    pub struct KeyedState(pub [u64; 4]);
}
mod time {
    pub use listener::Time;
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const TCX_NEXT: u32 = u32::MAX;
const TCX_DROP: u32 = 2;
const TCX_REDIRECT: u32 = 7;

/// Reports for which there is room.
const REPORTS_MAX: u32 = 8000;

fn main() -> io::Result<()> {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    let effort = if asked("--quick") || !asked("--bench") {
        Effort { rounds: 5, runs: 100_000 }
    } else {
        Effort { rounds: 7, runs: 1_000_000 }
    };
    // In a network of our own: the programs look sockets up, and nothing is attached anywhere.
    unshare(CloneFlags::CLONE_NEWNET)?;
    stay_on_one_core()?;
    let network = Network::new()?;
    let mut guard = Guard::load(&network.server, vec![MAC])?;
    println!("ns above the empty program; {} rounds of {} runs\n", effort.rounds, effort.runs);
    println!("{:<44} {:>3} {:>6} {:>6} {:>7}   quartiles", "", "", "base", "best", "median");
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    for case in cases(&network).iter().filter(|case| case.name.contains(&wanted)) {
        case.measure(&mut guard, effort)?;
    }
    if "live".contains(&wanted) {
        live::measure(effort)?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// Of the program in a round.
    runs: u32,
}

fn stay_on_one_core() -> io::Result<()> {
    let myself = Pid::from_raw(0);
    let allowed = sched_getaffinity(myself)?;
    let last = (0..CpuSet::count()).rev().find(|&core| allowed.is_set(core).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.unwrap_or(0))?;
    Ok(sched_setaffinity(myself, &one)?)
}

/// One end guarded, one not, and a connection to the guarded one, for each family.
struct Network {
    server: [SocketAddr; 2],
    connections: Vec<(TcpStream, TcpStream)>,
}

impl Network {
    fn new() -> io::Result<Network> {
        for arguments in ["link set lo up", "addr add 198.18.0.1/32 dev lo", "addr add 2001:db8::1/128 dev lo nodad"] {
            let status = std::process::Command::new("ip").args(arguments.split(' ')).status()?;
            assert!(status.success(), "ip {arguments}");
        }
        let server = ["198.18.0.1:80", "[2001:db8::1]:80"].map(|text| text.parse().expect("an address"));
        let connect = |&server: &SocketAddr| {
            let listener = TcpListener::bind(server)?;
            let client = connect_once_there(server)?;
            Ok((client, listener.accept()?.0))
        };
        let connections = server.iter().map(connect).collect::<io::Result<_>>()?;
        Ok(Network { server, connections })
    }
}

/// The kernel makes the route to a new address a moment after the address.
fn connect_once_there(server: SocketAddr) -> io::Result<TcpStream> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpStream::connect(server) {
            Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable && Instant::now() < deadline => {}
            done => return done,
        }
    }
}

/// One packet, and what the programs are to do with it.
struct Case {
    name: String,
    hook: Hook,
    words: ListenerWords,
    frame: Frame,
    verdict: u32,
    /// Prefixes that are denied, in the IPv6-mapped form.
    denied: Vec<([u8; 16], u32)>,
}

impl Case {
    fn new(name: impl Into<String>, hook: Hook, words: ListenerWords, frame: Frame, verdict: u32) -> Case {
        Case { name: name.into(), hook, words, frame, verdict, denied: Vec::new() }
    }

    fn denying(self, denied: Vec<([u8; 16], u32)>) -> Case {
        Case { denied, ..self }
    }

    fn measure(&self, guard: &mut Guard, effort: Effort) -> io::Result<()> {
        guard.order(self.words)?;
        // Cases without lists come first of their kind: an empty place stays as it is.
        if !self.denied.is_empty() || guard.denies {
            guard.deny(&self.denied)?;
        }
        let mut replay = Replay::new(self.hook, &self.frame)?;
        let runs = if self.words.reports { effort.runs.min(REPORTS_MAX) } else { effort.runs };
        let mut times = Vec::new();
        for _ in 0..effort.rounds {
            guard.forget_reports();
            let (base, whole, verdict) = replay.time(guard.program(self.hook), runs)?;
            assert_eq!(verdict, self.verdict, "{}: the verdict", self.name);
            times.push((base, whole));
        }
        let best = |of: fn(&(i64, i64)) -> i64| times.iter().map(of).min().unwrap_or(0);
        let base = best(|time| time.0);
        let mut above: Vec<i64> = times.iter().map(|(base, whole)| whole - base).collect();
        above.sort_unstable();
        let quarter = |n: usize| above[n * (above.len() - 1) / 4];
        println!(
            "{:<44} {:>3} {:>6} {:>6} {:>7}   {} to {}",
            self.name,
            format!("{:?}", self.hook).to_lowercase(),
            base,
            best(|time| time.1) - base,
            quarter(2),
            quarter(1),
            quarter(3),
        );
        Ok(())
    }
}

fn cases(network: &Network) -> Vec<Case> {
    let mut cases = Vec::new();
    for server in network.server {
        let family = if server.is_ipv4() { "v4" } else { "v6" };
        let peer = if server.is_ipv4() { "198.18.0.2:40000" } else { "[2001:db8::2]:40000" };
        let peer: SocketAddr = peer.parse().expect("an address");
        for hook in [Hook::Xdp, Hook::Tc] {
            cases.extend(syns(family, server, peer, hook));
            cases.extend(others(family, server, peer, hook));
        }
        cases.extend(acks(family, server, peer, network));
    }
    cases
}

fn syns(family: &str, server: SocketAddr, peer: SocketAddr, hook: Hook) -> Vec<Case> {
    let (sent, dropped) = match hook {
        Hook::Xdp => (XDP_TX, XDP_DROP),
        Hook::Tc => (TCX_REDIRECT, TCX_DROP),
    };
    let syn = |options: &[u8]| segment(server, peer, Flags::SYN, options);
    let linux = LAYOUTS[0].1;
    let mut cases: Vec<Case> = LAYOUTS
        .iter()
        .map(|(client, options)| Case::new(format!("SYN {family} {client}"), hook, PRESSURE, syn(options), sent))
        .collect();
    let anywhere = if server.is_ipv4() { "198.19.0.0:40000" } else { "[2001:db8::]:40000" };
    let anywhere = syn_from_anywhere(server, anywhere.parse().expect("an address"), linux);
    let spent = ListenerWords { replies_max: 0, ..PRESSURE };
    cases.push(Case::new(format!("SYN {family} Linux, 65,536 sources"), hook, PRESSURE, anywhere, sent));
    cases.push(Case::new(format!("SYN {family} Linux, budget used up"), hook, spent, syn(linux), dropped));
    cases.push(Case::new(format!("SYN {family} Linux, calm"), hook, CALM, syn(linux), sent));
    let listed = |first| (first..first + 10_000).map(|n| prefix(server.is_ipv4(), n)).collect();
    let name = |what: &str| format!("SYN {family} Linux, 10,000 prefixes{what}");
    cases.push(Case::new(name(" around"), hook, PRESSURE, syn(linux), sent).denying(listed(1)));
    cases.push(Case::new(name(", denied"), hook, PRESSURE, syn(linux), dropped).denying(listed(0)));
    cases
}

/// The `n`th of prefixes none of which touches another. The first has the peer.
fn prefix(v4: bool, n: u32) -> ([u8; 16], u32) {
    let addr = match v4 {
        true => Ipv4Addr::from_bits(0xc612_0000 + n * 16).to_ipv6_mapped(),
        false => Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(n * 16)),
    };
    (addr.octets(), 125)
}

/// What nobody answers.
fn others(family: &str, server: SocketAddr, peer: SocketAddr, hook: Hook) -> Vec<Case> {
    let (passed, dropped) = match hook {
        Hook::Xdp => (XDP_PASS, XDP_DROP),
        Hook::Tc => (TCX_NEXT, TCX_DROP),
    };
    // The driver's program leaves a RST to the one behind it, which drops it under pressure if it is no connection's.
    let unknown = if hook == Hook::Xdp { passed } else { dropped };
    let elsewhere = SocketAddr::new(server.ip(), 81);
    let rst = segment(server, peer, Flags::RST, &[]);
    let fin = segment(server, peer, Flags::FIN, &[]);
    vec![
        Case::new(
            format!("SYN {family} for a port not guarded"),
            hook,
            PRESSURE,
            segment(elsewhere, peer, Flags::SYN, LAYOUTS[0].1),
            passed,
        ),
        Case::new(format!("RST {family} unknown, under pressure"), hook, PRESSURE, rst.clone(), unknown),
        Case::new(format!("RST {family} unknown, calm"), hook, CALM, rst, passed),
        Case::new(format!("FIN {family} without ACK"), hook, PRESSURE, fin, dropped),
    ]
}

fn acks(family: &str, server: SocketAddr, peer: SocketAddr, network: &Network) -> Vec<Case> {
    let gates_shut = ListenerWords { form_b_always: false, ..CALM };
    let ack = |options: &[u8]| segment(server, peer, Flags::ACK, options);
    let client = network
        .connections
        .iter()
        .find_map(|(client, _)| (client.peer_addr().ok()? == server).then(|| client.local_addr().ok()).flatten());
    let own = |options: &[u8]| segment(server, client.expect("a connection"), Flags::ACK, options);
    let tc =
        |name: &str, words, frame, verdict| Case::new(format!("ACK {family} {name}"), Hook::Tc, words, frame, verdict);
    vec![
        tc("bad cookie, form A", CALM, ack(TIMESTAMPS), TCX_NEXT),
        tc("bad cookie, form B", CALM, ack(&[]), TCX_NEXT),
        tc("bad cookie, form B, none outstanding", gates_shut, ack(&[]), TCX_NEXT),
        tc("bad cookie, form A, under pressure", PRESSURE, ack(TIMESTAMPS), TCX_DROP),
        tc("bad cookie, form B, under pressure", PRESSURE, ack(&[]), TCX_DROP),
        tc("of a connection", CALM, own(TIMESTAMPS), TCX_NEXT),
        tc("of a connection, no timestamps", CALM, own(&[]), TCX_NEXT),
        tc("of a connection, under pressure", PRESSURE, own(TIMESTAMPS), TCX_NEXT),
        Case::new(format!("ACK {family} of a connection"), Hook::Xdp, PRESSURE, own(TIMESTAMPS), XDP_PASS),
    ]
}
