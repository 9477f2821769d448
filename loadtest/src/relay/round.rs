//! All rounds, interleaved: each in a lab of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::client::{self, Load, Seen};
use super::cost::CostClock;
use super::upstream::Upstream;
use crate::lab::{Family, Lab, Plan, bind_to, raise_descriptors};
use crate::measure::tcp_memory_bytes;
use crate::results::{Quantiles, RelayPart, RelayRound};
use crate::run::{Progress, RunError, Setting};
use crate::target::{Alternative, Target, TargetConfig, TargetError};

/// Before anything is measured, so that windows and buffers have grown.
const WARM_UP: Duration = Duration::from_millis(300);
/// From the last connection that is held to the look at memory: what was only needed to open them is given back by then.
const SETTLE: Duration = Duration::from_millis(1500);
/// Connections of bulk: enough that none of them decides.
const BULK_CONNECTIONS: usize = 4;

/// What is measured.
#[derive(Clone, Debug)]
pub struct RelaySpec {
    /// Of whom.
    pub alternatives: Vec<Alternative>,
    /// What.
    pub parts: Vec<RelayPart>,
    /// How often.
    pub repetitions: u32,
    /// How long each time.
    pub measured: Duration,
    /// Connections at a time of requests, and of those that come and go.
    pub connections: usize,
    /// Connections that are held.
    pub idle: usize,
}

/// Measures each part of all alternatives one after the other, and all that again: what drifts on the machine drifts for all of them. Who
/// cannot be had is left out, which is said. `keep` is told of the rounds so far after each.
///
/// # Errors
/// When the lab itself fails.
pub fn compare(
    spec: &RelaySpec,
    setting: &Setting,
    progress: &mut Progress,
    keep: &mut dyn FnMut(&[RelayRound]) -> io::Result<()>,
) -> Result<Vec<RelayRound>, RunError> {
    raise_descriptors()?;
    let (mut rounds, mut number) = (Vec::new(), 0);
    let mut alternatives = spec.alternatives.clone();
    let all = spec.repetitions as usize * spec.parts.len() * alternatives.len();
    for repetition in 0..spec.repetitions {
        for &part in &spec.parts {
            alternatives.rotate_left(1); // Nobody is always the first.
            for alternative in alternatives.clone() {
                number += 1;
                progress.begin(number, all, &format!("relay {part:?} {alternative}"));
                match run_round(spec, part, alternative, setting) {
                    Ok(round) => {
                        rounds.push(RelayRound { repetition, ..round });
                        keep(&rounds)?;
                    }
                    Err(RunError::Target(
                        error @ (TargetError::NotInstalled { .. } | TargetError::DoesNotServe { .. }),
                    )) => {
                        progress.say(&error.to_string());
                        alternatives.retain(|other| *other != alternative);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    progress.end();
    Ok(rounds)
}

fn run_round(
    spec: &RelaySpec,
    part: RelayPart,
    alternative: Alternative,
    setting: &Setting,
) -> Result<RelayRound, RunError> {
    let lab = lay(setting)?;
    let plan = Plan::of(Family::Ipv4);
    let behind = SocketAddr::new(lab.outside_address(), 9000);
    let upstream = Upstream::start(&lab.outside, behind, &lab.cores.clients)?;
    let mut target = Target::start_relay(alternative, &lab, &plan, &TargetConfig::default(), &setting.binary, behind)?;
    let cost = CostClock::new(target.pid(), &lab.reception_threads);
    let connections = match part {
        RelayPart::Upload | RelayPart::Download => BULK_CONNECTIONS,
        RelayPart::PingPong => 1,
        RelayPart::Requests | RelayPart::Connects => spec.connections,
        RelayPart::Idle => spec.idle,
    };
    let load = Load { part, target: plan.server, connections, warm_up: WARM_UP, measured: spec.measured };
    let (seen, held) = lab.outside.run(|| {
        let _ = bind_to(&lab.cores.clients); // With shared cores they are slower.
        match part {
            RelayPart::Idle => hold(load, &target).map(|(seen, held)| (seen, Some(held))),
            _ => client::run(load, &upstream, &cost).map(|seen| (seen, None)),
        }
    })?;
    if let Some(words) = target.last_words_of_the_dead() {
        return Err(RunError::Io(io::Error::other(format!("{alternative}: {words}"))));
    }
    let cpu_s = seen.cpu.as_secs_f64();
    Ok(RelayRound {
        alternative: alternative.to_string(),
        repetition: 0,
        part,
        connections,
        seconds: seen.seconds,
        done: seen.done,
        failed: seen.failed,
        latency_us: seen.latency_us,
        cpu_s,
        load: if seen.seconds > 0.0 { cpu_s / seen.seconds / lab.cores.target.len() as f64 } else { 0.0 },
        resident_bytes_per_connection: held.as_ref().map(|held| held.resident_bytes),
        socket_bytes_per_connection: held.and_then(|held| held.socket_bytes),
    })
}

/// The lab, with what relays need beside: local ports that are free again as soon as they may be.
fn lay(setting: &Setting) -> io::Result<Lab> {
    let lab = Lab::new(setting.cores.clone());
    for namespace in [&lab.outside, &lab.server] {
        namespace.sysctl("net.ipv4.ip_local_port_range", "10000 65535");
        namespace.sysctl("net.ipv4.tcp_tw_reuse", "1");
        // Always there, and without timers for pacing, which would be measured in the place of the relay.
        namespace.sysctl("net.ipv4.tcp_congestion_control", "reno");
    }
    lab.receive_answers_outside()?;
    Ok(lab)
}

/// Memory of each connection that is held.
struct Held {
    resident_bytes: f64,
    socket_bytes: Option<f64>,
}

/// Opens them, waits until all is quiet, and looks.
fn hold(load: Load, target: &Target) -> io::Result<(Seen, Held)> {
    // What the first connections of a process need once is no cost of the later ones.
    drop(client::hold(load.target, 50)?);
    std::thread::sleep(SETTLE);
    let (resident, sockets) = (target.resident_bytes(), tcp_memory_bytes());
    let connections = client::hold(load.target, load.connections)?;
    std::thread::sleep(SETTLE);
    let each = |before: u64, after: u64| (after as f64 - before as f64) / connections.len() as f64;
    let held = Held {
        resident_bytes: each(resident, target.resident_bytes()),
        socket_bytes: sockets.zip(tcp_memory_bytes()).map(|(before, after)| each(before, after)),
    };
    let seen = Seen { done: connections.len() as u64, latency_us: Quantiles::default(), ..Seen::default() };
    Ok((seen, held))
}
