//! SYN-ACKs per CPU second and per second: the fast door, the raw tier and the kernel's own SYN cookies under the same flood.
//!
//! `cargo bench -p portcullis --bench synack_rate`, with `-- --quick` for a short run. Needs two cores, and what eBPF needs: root in the
//! first user namespace, Linux 6.9, and an `ip` that loads eBPF objects.
//!
//! How it is measured: see `support/flooded.rs`. For the runs with a program in the driver, the cable gets one at both ends:
//! a veth takes no frames from a program else. That makes every frame dearer there: the flood's, which the kernel copies to where
//! the program may write, and the answer's. So those runs have a price of their own for the flood, and a ceiling of their own:
//! a program that swaps the link-layer addresses and does nothing else ("reflect"). What a program costs is in `programs`, in `listener`.

mod support;

use std::io;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use connection::{ConnectionStats, RawEstablisher, accept_queue};
use listener::io::{BpfConfig, BpfEngine, BpfHook, Engine, EngineConfig};
use listener::{Counter, ListenConfig, MasterKey};
use support::flooded::{Lab, Run, SERVER};
use support::{Spread, is_quick, on_cores, two_cores};
use testnet::Counters;

const STUBS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/support/xdp/stubs.o");

fn main() -> io::Result<()> {
    let cores = two_cores();
    testnet::enter_namespaces()?;
    let (rounds, span) = if is_quick() { (2, Duration::from_millis(400)) } else { (7, Duration::from_secs(2)) };
    let bench = Bench { lab: Lab::new(cores[0]), cores, span };
    println!("{rounds} rounds of {span:?} each; flood on core {}, user space on core {}\n", cores[0], cores[1]);
    println!("{HEADER}");
    let rounds: Vec<Vec<Run>> = (0..rounds).map(|number| bench.round(number)).collect();
    summary(&rounds);
    Ok(())
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    Kernel,
    Raw,
    BpfTc,
    BpfXdp,
    Reflect,
}

impl Tier {
    const ALL: [Tier; 5] = [Tier::Kernel, Tier::Raw, Tier::BpfTc, Tier::BpfXdp, Tier::Reflect];

    fn name(self) -> &'static str {
        match self {
            Tier::Kernel => "kernel",
            Tier::Raw => "raw",
            Tier::BpfTc => "bpf, tc",
            Tier::BpfXdp => "bpf, xdp",
            Tier::Reflect => "reflect",
        }
    }
}

struct Bench {
    lab: Lab,
    cores: [usize; 2],
    span: Duration,
}

impl Bench {
    fn round(&self, number: usize) -> Vec<Run> {
        let mut runs: Vec<(Tier, Run)> = Vec::new();
        // Whatever drifts should not always favour the same tier.
        for step in 0..Tier::ALL.len() {
            let tier = Tier::ALL[(step + number) % Tier::ALL.len()];
            let run = self.run(tier);
            print(number, tier, &run);
            runs.push((tier, run));
        }
        runs.sort_by_key(|(tier, _)| *tier as usize);
        runs.into_iter().map(|(_, run)| run).collect()
    }

    fn run(&self, tier: Tier) -> Run {
        match tier {
            Tier::Kernel => self.kernel(),
            Tier::Raw => self.raw(),
            Tier::BpfTc => self.bpf(BpfHook::Tc),
            Tier::BpfXdp => self.both_ends(|| self.bpf(BpfHook::Xdp)),
            Tier::Reflect => self.both_ends(|| self.reflect()),
        }
    }

    /// With a program in the driver of the attacker's end meanwhile.
    fn both_ends(&self, body: impl FnOnce() -> Run) -> Run {
        self.lab.attacker.ip(&format!("link set fld0 xdpdrv obj {STUBS} sec xdp/pass"));
        let run = body();
        self.lab.attacker.ip("link set fld0 xdpdrv off");
        run
    }

    fn kernel(&self) -> Run {
        let price = self.lab.price(self.span / 2);
        let _listener = self.lab.server.run(|| TcpListener::bind(SERVER)).expect("bind");
        self.lab.measure(self.span, price, || Counters::of(&self.lab.server).get("TcpExtSyncookiesSent") as u64)
    }

    fn raw(&self) -> Run {
        let price = self.lab.price(self.span / 2);
        let (sender, _receiver) = accept_queue(1024, Arc::new(ConnectionStats::default()));
        let mut config = EngineConfig::new(listen(), key());
        config.workers = NonZeroUsize::new(1);
        let start = || Engine::start(config, |_| RawEstablisher::new(sender.clone())).expect("start the raw tier");
        let engine = self.lab.server.run(|| on_cores(&self.cores[1..], start));
        let view = engine.view();
        self.lab.measure(self.span, price, || view.stats().get(Counter::SynAcksSent))
    }

    fn bpf(&self, hook: BpfHook) -> Run {
        let _listener = self.lab.server.run(|| TcpListener::bind(SERVER)).expect("bind");
        let config = BpfConfig {
            listen: listen(),
            interfaces: vec!["srv0".into()],
            hook,
            pins: None,
            fail_closed: false,
            master: key().into(),
            sources: Default::default(),
            name: None,
        };
        let start = || BpfEngine::start(config, ()).expect("start the fast door");
        let mut engine = self.lab.server.run(|| on_cores(&self.cores[1..], start));
        // With the programs in place: they are part of the way of every frame.
        let price = self.lab.price(self.span / 2);
        engine.open().expect("open the fast door");
        let view = engine.view();
        self.lab.measure(self.span, price, || view.stats().get(Counter::SynAcksSent))
    }

    fn reflect(&self) -> Run {
        self.lab.server.ip(&format!("link set srv0 xdpdrv obj {STUBS} sec xdp/pass"));
        let price = self.lab.price(self.span / 2);
        self.lab.server.ip(&format!("-force link set srv0 xdpdrv obj {STUBS} sec xdp/reflect"));
        let run = self.lab.measure(self.span, price, || 0);
        self.lab.server.ip("link set srv0 xdpdrv off");
        run
    }
}

fn listen() -> ListenConfig {
    ListenConfig { bind: vec![SERVER], ..ListenConfig::default() }
}

fn key() -> MasterKey {
    MasterKey::generate().expect("a key")
}

const HEADER: &str =
    "round  tier         SYN/s  SYN-ACK/s  answered  SYN-ACK per CPU s  with the flood's  flood µs/SYN  neighbours";

fn print(number: usize, tier: Tier, run: &Run) {
    println!(
        "{number:>5}  {:<9}  {:>6.0}k  {:>8.0}k  {:>7.1}%  {:>16.0}k  {:>15.0}k  {:>12.3}  {:>10.2}",
        tier.name(),
        run.offered as f64 / run.span.as_secs_f64() / 1e3,
        run.per_second() / 1e3,
        100.0 * run.syn_acks() / run.offered as f64,
        run.per_cpu_second() / 1e3,
        run.per_whole_cpu_second() / 1e3,
        run.price.as_secs_f64() * 1e6,
        run.cpu.neighbours(),
    );
}

fn summary(rounds: &[Vec<Run>]) {
    println!("\nmedian (smallest to largest) of {} rounds, in millions:", rounds.len());
    let of =
        |tier: Tier, value: &dyn Fn(&Run) -> f64| Spread::of(rounds.iter().map(|runs| value(&runs[tier as usize])));
    for tier in Tier::ALL {
        println!(
            "  {:<9} SYN-ACK/s {}; per CPU s {}; with the flood's CPU time {}",
            tier.name(),
            of(tier, &|run| run.per_second() / 1e6),
            of(tier, &|run| run.per_cpu_second() / 1e6),
            of(tier, &|run| run.per_whole_cpu_second() / 1e6),
        );
    }
    let ratio = |a: Tier, b: Tier| {
        let one = |runs: &Vec<Run>| runs[a as usize].per_cpu_second() / runs[b as usize].per_cpu_second();
        println!("  {} : {}, per CPU s, round by round: {}", a.name(), b.name(), Spread::of(rounds.iter().map(one)));
    };
    ratio(Tier::Raw, Tier::Kernel);
    ratio(Tier::BpfTc, Tier::Kernel);
    ratio(Tier::BpfTc, Tier::Raw);
    ratio(Tier::BpfXdp, Tier::Kernel);
    ratio(Tier::BpfXdp, Tier::Reflect);
    // Nobody counts for the reflecting program.
    let counted = rounds.iter().flat_map(|runs| &runs[..Tier::Reflect as usize]);
    let worst = counted.map(Run::disagreement).fold(0.0, f64::max);
    println!("  the three counts of SYN-ACKs differ by at most {:.3} %", 100.0 * worst);
}
