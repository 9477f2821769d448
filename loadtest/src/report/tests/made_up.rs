//! Results that nobody measured, of the shape that a real comparison has.

use std::collections::BTreeMap;

use crate::results::{
    Check, ClientResults, FORMAT, FloodResults, Machine, Quantiles, Results, Round, Sample, ScenarioResults,
    TargetResults,
};

/// An alternative: its name, up to which rate it serves, its processor time for each frame, its usual p99 in microseconds.
struct Model(&'static str, f64, f64, f64);

/// Nine, from the one that falls first to the one that does not.
const MODELS: [Model; 9] = [
    Model("kernel-cookies-0", 2e3, 2900.0, 900.0),
    Model("kernel-cookies-1", 3e5, 2400.0, 700.0),
    Model("kernel-cookies-2", 3.2e5, 2350.0, 720.0),
    Model("nft-synproxy", 4e5, 1800.0, 950.0),
    Model("haproxy", 2.4e5, 2600.0, 1500.0),
    Model("nginx-stream", 2.2e5, 2650.0, 1700.0),
    Model("portcullis-raw", 3.5e5, 2100.0, 1200.0),
    Model("portcullis-bpf", 2e6, 310.0, 800.0),
    Model("portcullis-kernel", 5e5, 1500.0, 750.0),
];

/// What is asked for; `None` is as much as possible.
const RATES: [Option<f64>; 5] = [Some(0.0), Some(1e4), Some(1e5), Some(5e5), None];

/// The numbers of one round, before they are dressed up.
struct Sketch {
    received: f64,
    /// 0 to 1.
    success: f64,
    /// A little more or less than 1.
    noise: f64,
}

/// Nine alternatives, five rates, three repetitions.
pub fn comparison() -> Results {
    let rounds = MODELS.iter().flat_map(|model| {
        RATES.iter().flat_map(move |rate| (0..3).map(move |repetition| round(model, *rate, repetition)))
    });
    results(vec![scenario("syn-flood", rounds.collect())])
}

/// One alternative at all rates, once each.
pub fn single() -> Results {
    results(vec![scenario("bpf alone", RATES.iter().map(|rate| round(&MODELS[7], *rate, 0)).collect())])
}

/// Results with these scenarios.
pub fn results(scenarios: Vec<ScenarioResults>) -> Results {
    let placement = ["The flood runs on core 0.", "The target runs on core 1; clients share core 0."];
    Results {
        format: FORMAT,
        command: "loadtest compare scenarios/syn.toml --repetitions 3".to_owned(),
        started_unix: 1_795_297_152,
        machine: Machine {
            kernel: "6.1.0-28-amd64".to_owned(),
            cpu: "AMD EPYC 7763".to_owned(),
            cores: 2,
            memory_bytes: 8 << 30,
            placement: placement.map(str::to_owned).to_vec(),
        },
        scenarios,
        relay: Vec::new(),
    }
}

/// A scenario with these rounds.
pub fn scenario(name: &str, rounds: Vec<Round>) -> ScenarioResults {
    ScenarioResults {
        name: name.to_owned(),
        description: "Spoofed SYNs against one port, while clients connect 500 times a second.".to_owned(),
        pass: vec!["success >= 99.9% and p99 <= 50ms".to_owned()],
        rounds,
    }
}

/// One round of a model. The generator comes to 800,000 frames per second at most, and slows down a little with the target.
fn round(model: &Model, rate: Option<f64>, repetition: u32) -> Round {
    let noise = 1.0 + 0.04 * (f64::from(repetition) - 1.0) + 0.01 * (model.2 % 7.0 - 3.0);
    let most = 8e5 - model.2 * 60.0;
    let sent = rate.unwrap_or(most * noise).min(most);
    let success = if sent <= model.1 { 1.0 } else { (model.1 / sent).powf(1.3) / noise };
    let sketch = Sketch { received: sent, success: success.clamp(0.0, 1.0), noise };
    let quiet = rate == Some(0.0);
    let mut round = Round {
        alternative: model.0.to_owned(),
        repetition,
        flood_kind: if quiet { String::new() } else { "syn".to_owned() },
        flood_rate: rate,
        seconds: 10.0,
        flood: if quiet { FloodResults::default() } else { flood(&sketch, rate) },
        clients: clients(model, &sketch),
        target: target(model, &sketch, quiet),
        series: series(model, &sketch, quiet),
        checks: Vec::new(),
    };
    round.checks = checks(&round);
    round
}

/// Two thresholds, judged by hand: the report must not depend on who judged.
fn checks(round: &Round) -> Vec<Check> {
    let (success, p99) = (round.clients.success() * 100.0, round.clients.connect_us.p99 / 1000.0);
    let check = |threshold: &str, found, passed| Check { threshold: threshold.to_owned(), found, passed };
    vec![
        check("success >= 99.9%", format!("success {success:.2} %"), success >= 99.9),
        check("p99 <= 50ms", format!("p99 {p99:.2} ms"), p99 <= 50.0),
    ]
}

/// What the flood did.
fn flood(sketch: &Sketch, rate: Option<f64>) -> FloodResults {
    let sent = (sketch.received * 10.0) as u64;
    let received = sent - sent / 500;
    let replies = (received as f64 * sketch.success * 0.98) as u64;
    FloodResults {
        engine: "tx-ring".to_owned(),
        due: rate.map_or(sent, |rate| (rate * 10.0) as u64),
        sent,
        refused: 0,
        received,
        counted: Some(received - received / 1000),
        replies,
        bytes_in: received * 60,
        bytes_out: replies * 58,
        generator_limited: rate.is_some_and(|rate| sketch.received < rate * 0.98),
    }
}

/// What became of the clients: they wait for lost packets by whole seconds.
fn clients(model: &Model, sketch: &Sketch) -> ClientResults {
    let attempts = 5000;
    let ok = (5000.0 * sketch.success) as u64;
    let outcomes = [("ok".to_owned(), ok), ("connect-timeout".to_owned(), attempts - ok)];
    let late = if sketch.success < 0.99 { 1.2e6 * (1.2 - sketch.success) } else { 0.0 };
    let p99 = model.3 * (1.0 + sketch.received / 2e5) * sketch.noise + late;
    let q = Quantiles { count: ok, p50: p99 / 8.0, p90: p99 / 3.0, p99, p999: p99 * 2.1, max: p99 * 3.0 };
    let parts = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 1.0];
    let factors = [0.05, 0.09, 0.125, 0.2, 0.33, 0.5, 1.0, 1.4, 2.1, 2.6, 3.0];
    let curve = parts.iter().zip(factors).map(|(part, factor)| ((p99 * factor) as u64, *part));
    let connect_curve = if ok == 0 { Vec::new() } else { curve.collect() };
    ClientResults { attempts, outcomes: BTreeMap::from(outcomes), connect_us: q, total_us: q, connect_curve }
}

/// What it cost.
fn target(model: &Model, sketch: &Sketch, quiet: bool) -> TargetResults {
    TargetResults {
        cpu_user_s: 1.2,
        cpu_system_s: 3.4,
        cpu_softirq_s: 4.5,
        cpu_ns_per_frame: (!quiet).then(|| model.2 * sketch.noise * (1.0 + 2e4 / sketch.received)),
        rss_before_bytes: 6 << 20,
        rss_peak_bytes: (9 << 20) + (sketch.received * 3.0) as u64,
        slab_peak_bytes: Some(1 << 20),
        half_open_peak: Some(if quiet { 0 } else { 4096 }),
        bytes_per_half_open: Some(312.0),
        switch_in_ms: (!quiet).then_some(4.2),
        switch_out_ms: (!quiet).then_some(1210.0),
    }
}

/// A flood from second 2 to second 10, and clients from 0 to 12.
fn series(model: &Model, sketch: &Sketch, quiet: bool) -> Vec<Sample> {
    let (mut all_ok, mut all_failed) = (0, 0);
    let sample = |i: u32| {
        let at_s = f64::from(i) * 0.25;
        let on = !quiet && (2.0..10.0).contains(&at_s);
        let wave = 1.0 + 0.03 * (f64::from(i) * 1.7).sin();
        let pps = if on { sketch.received * wave } else { 0.0 };
        let ok = if on { 125.0 * sketch.success * wave } else { 125.0 };
        all_ok += ok.min(125.0) as u64;
        all_failed += 125 - ok.min(125.0) as u64;
        Sample {
            at_s,
            sent_pps: pps,
            received_pps: pps * 0.998,
            replies_pps: pps * sketch.success * 0.98,
            attempts: 125 * u64::from(i),
            ok: all_ok,
            failed: all_failed,
            connect_max_us: model.3,
            half_open: if on { 4000 + u64::from(i % 7) * 13 } else { 0 },
            cookies_only: Some(on && at_s > 2.3),
            rss_bytes: 9 << 20,
            busy: if on { 0.9 } else { 0.1 },
        }
    };
    (1..=48).map(sample).collect()
}

/// A round in which nothing happened at all, and whatever could be divided was divided by 0.
pub fn hopeless() -> Round {
    let nan = f64::NAN;
    let q = Quantiles { count: 3, p50: nan, p90: nan, p99: nan, p999: f64::INFINITY, max: nan };
    let sample = Sample { at_s: nan, sent_pps: nan, received_pps: f64::INFINITY, ..Sample::default() };
    Round {
        alternative: "broken".to_owned(),
        flood_kind: "syn".to_owned(),
        flood_rate: Some(nan),
        seconds: nan,
        flood: FloodResults { sent: u64::MAX, ..FloodResults::default() },
        clients: ClientResults {
            connect_us: q,
            connect_curve: vec![(u64::MAX, nan), (0, 2.0), (7, 1.0)],
            ..Default::default()
        },
        target: TargetResults {
            cpu_ns_per_frame: Some(f64::INFINITY),
            half_open_peak: Some(u64::MAX),
            ..Default::default()
        },
        series: vec![sample; 3],
        ..Round::default()
    }
}
