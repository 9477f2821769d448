//! One round, from an empty lab to a row of the table.

use std::thread;
use std::time::{Duration, Instant};

use super::watch::{HALF_OPEN_TO_TELL_GUARDED, Watch};
use super::{Progress, RunError, Setting};
use crate::clients::{ClientSpec, Clients};
use crate::flood::{Flood, FloodKind, FloodReport, FloodSpec, Place};
use crate::lab::{Lab, Plan};
use crate::results::{Check, FloodResults, Round};
use crate::scenario::{Phase, RoundPlan, Scenario};
use crate::target::{Target, TargetConfig, TargetError};

/// How often the lab looks.
const LOOK: Duration = Duration::from_millis(250);
/// How long a target that answers with cookies alone may take, after the flood, until it keeps entries again.
const CALM_PATIENCE: Duration = Duration::from_secs(15);
/// Frames that are on their way when the last one was sent.
const SETTLE: Duration = Duration::from_millis(200);

/// Runs it in a lab of its own, so that nothing is left of the round before.
///
/// # Errors
/// When there is no target or no flood; what the target does under the flood is a result.
pub fn run_round(
    plan: &RoundPlan,
    scenario: &Scenario,
    setting: &Setting,
    progress: &mut Progress,
) -> Result<Round, RunError> {
    let lab = Lab::new(setting.cores.clone());
    let addresses = Plan::of(scenario.family);
    lab.outside.sysctl("net.ipv4.tcp_timestamps", if scenario.clients.timestamps { "1" } else { "0" });
    let kinds = || plan.phases.iter().flat_map(|phase| &phase.floods).map(|flood| flood.kind);
    let replays = kinds().any(|kind| kind == FloodKind::Replay);
    // Only a target in the driver needs it, and whoever may not have it can have no such target.
    let _answers = lab.take_answers_of(plan.alternative, replays).map_err(|error| TargetError::DoesNotServe {
        alternative: plan.alternative,
        why: format!("the outside takes no answers of a driver: {error}"),
    })?;
    let without_queue = resident_without_queue(plan, scenario, setting, &lab, &addresses)?;
    let mut target = Target::start(plan.alternative, &lab, &addresses, &scenario.target, &setting.binary)?;
    let mut watch = Watch::new(&lab, &target)?;
    watch.compare_with_resident(without_queue);
    let clients = start_clients(scenario, &lab, &addresses);
    let mut floods = Sums::default();
    for phase in &plan.phases {
        run_phase(phase, &lab, &addresses, &clients, &mut watch, &mut floods, progress)?;
    }
    thread::sleep(SETTLE);
    watch.flood_over()?;
    let clients = clients.finish();
    watch.wait_for_calm(CALM_PATIENCE);
    let connected = kinds().any(FloodKind::needs_sockets);
    // Of other kinds nobody counts all.
    let syns = floods.sent > 0 && kinds().all(|kind| matches!(kind, FloodKind::Syn | FloodKind::HalfOpen));
    let (link, counted) = watch.received(connected, clients.attempts, floods.by_program);
    let mut round = Round {
        alternative: plan.alternative.to_string(),
        repetition: plan.repetition,
        flood_kind: plan.flood_kind.clone(),
        flood_rate: plan.flood_rate,
        seconds: plan.phases.iter().map(|phase| phase.seconds).sum(),
        flood: FloodResults {
            engine: floods.engines.join("+"),
            due: floods.due,
            sent: floods.sent,
            refused: floods.refused,
            received: link.rx_frames,
            counted: counted.filter(|_| syns),
            replies: link.tx_frames,
            bytes_in: link.rx_bytes,
            bytes_out: link.tx_bytes,
            generator_limited: floods.limited,
        },
        clients,
        target: watch.target_results(link.rx_frames),
        series: watch.into_series(),
        checks: Vec::new(),
    };
    if floods.sent == 0 {
        round.flood = FloodResults::default();
        round.target.cpu_ns_per_frame = None;
    }
    if scenario.judge.contains(&plan.alternative) {
        round.checks = scenario.pass.iter().flat_map(|slo| slo.judge(&round)).collect();
    }
    round.checks.extend(dead(&mut target));
    Ok(round)
}

/// A target that died in the round fails it, whatever the scenario asks: what was measured of it is no measurement.
fn dead(target: &mut Target) -> Option<Check> {
    let found = target.last_words_of_the_dead()?;
    Some(Check { threshold: "the target lives".to_owned(), found, passed: false })
}

/// Memory of a Portcullis that keeps next to no half-open connections, where the scenario's keeps so many that their memory shows.
fn resident_without_queue(
    plan: &RoundPlan,
    scenario: &Scenario,
    setting: &Setting,
    lab: &Lab,
    addresses: &Plan,
) -> Result<Option<u64>, RunError> {
    if !plan.alternative.is_guarded() || (scenario.target.half_open as u64) < HALF_OPEN_TO_TELL_GUARDED {
        return Ok(None);
    }
    let config = TargetConfig { half_open: 16, ..scenario.target.clone() };
    let target = Target::start(plan.alternative, lab, addresses, &config, &setting.binary)?;
    Ok(Some(target.resident_bytes()))
}

fn start_clients(scenario: &Scenario, lab: &Lab, addresses: &Plan) -> Clients {
    let config = &scenario.clients;
    let spec = ClientSpec {
        target: addresses.server,
        rate: config.rate,
        bytes: config.bytes,
        deadline: Duration::from_secs_f64(config.deadline_seconds),
        seed: 1,
    };
    let source_of: crate::clients::SourceOf = match addresses.server.is_ipv4() {
        true => |number| Some(Plan::of(crate::lab::Family::Ipv4).client(number)),
        false => |number| Some(Plan::of(crate::lab::Family::Ipv6).client(number)),
    };
    Clients::start(spec, lab.outside.clone(), lab.cores.clients.clone(), source_of)
}

fn run_phase(
    phase: &Phase,
    lab: &Lab,
    addresses: &Plan,
    clients: &Clients,
    watch: &mut Watch<'_>,
    sums: &mut Sums,
    progress: &mut Progress,
) -> Result<(), RunError> {
    let place = lab.place(addresses);
    let end = Instant::now() + Duration::from_secs_f64(phase.seconds);
    if !phase.floods.is_empty() {
        watch.flood_begins();
    }
    let floods = start_floods(&phase.floods, &place)?;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::sleep(left.min(LOOK));
        let sent = sums.sent + floods.iter().map(Flood::sent).sum::<u64>();
        progress.sample(watch.look(sent, clients.progress())?);
    }
    floods.into_iter().for_each(|flood| sums.add(flood.stop()));
    if !phase.floods.is_empty() {
        watch.flood_ended();
    }
    Ok(())
}

fn start_floods(specs: &[FloodSpec], place: &Place) -> Result<Vec<Flood>, RunError> {
    let mut floods = Vec::new();
    for spec in specs {
        floods.push(Flood::start(spec, place)?);
    }
    Ok(floods)
}

/// What all floods of a round did.
#[derive(Debug, Default)]
struct Sums {
    engines: Vec<&'static str>,
    due: u64,
    sent: u64,
    refused: u64,
    /// Of `sent`, those that a program made.
    by_program: u64,
    limited: bool,
}

impl Sums {
    fn add(&mut self, report: FloodReport) {
        if !self.engines.contains(&report.engine) {
            self.engines.push(report.engine);
        }
        self.due += report.due;
        self.sent += report.sent;
        self.refused += report.refused;
        self.by_program += if report.engine == "xdp" { report.sent } else { 0 };
        self.limited |= report.generator_limited;
    }
}
