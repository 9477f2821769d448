//! Round by round.

use super::{Cell, LIMITED_MARK, LIMITED_NOTE, Table};
use crate::report::group::{Case, alternatives};
use crate::report::measure;
use crate::report::number::{NOTHING, bytes, millis, percent, si, significant};
use crate::results::{Round, ScenarioResults};

/// The columns behind the name of the round.
const COLUMNS: [&str; 15] = [
    "offered",
    "received",
    "replied",
    "success %",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "conn/s",
    "CPU ns/frame",
    "ampl.",
    "RSS",
    "half-open",
    "checks",
    "counts differ",
];

/// One row per round, with the failed checks and the cross-check of the flood's counts below.
pub fn run(scenario: &ScenarioResults) -> Table {
    let mut table = all_rounds(scenario);
    table.notes.extend(failures(&scenario.rounds.iter().collect::<Vec<_>>()));
    table.notes.extend(scenario.rounds.iter().filter_map(cross_check));
    table
}

/// One row per round, and nothing else.
pub fn all_rounds(scenario: &ScenarioResults) -> Table {
    let limited = scenario.rounds.iter().any(|round| round.flood.generator_limited);
    Table {
        caption: caption(scenario),
        columns: std::iter::once("flood").chain(COLUMNS).map(str::to_owned).collect(),
        rows: scenario.rounds.iter().map(|round| row(round, &name(round, scenario))).collect(),
        notes: limited.then(|| LIMITED_NOTE.to_owned()).into_iter().collect(),
    }
}

/// The scenario, and the alternative if there is but one.
fn caption(scenario: &ScenarioResults) -> String {
    match alternatives(scenario)[..] {
        [] => format!("{}: no rounds", scenario.name),
        [alternative] => format!("{}: {alternative}", scenario.name),
        _ => format!("{}: every round", scenario.name),
    }
}

/// What tells a round from the others, and the mark of a generator at its limit.
fn name(round: &Round, scenario: &ScenarioResults) -> String {
    let mut name = Case::of(round).label();
    if round.flood.generator_limited {
        name.push_str(LIMITED_MARK);
    }
    if scenario.rounds.iter().any(|other| other.repetition > 0) {
        name = format!("{name} #{}", round.repetition.saturating_add(1));
    }
    match alternatives(scenario).len() {
        0 | 1 => name,
        _ => format!("{}, {name}", round.alternative),
    }
}

/// The fields of a round.
fn row(round: &Round, name: &str) -> Vec<Cell> {
    let failed = round.checks.iter().filter(|check| !check.passed).count();
    vec![
        Cell::plain(name),
        // What found the queue full was offered too.
        Cell::plain(si((round.flood.sent + round.flood.refused) as f64)),
        Cell::plain(si(round.flood.received as f64)),
        Cell::plain(si(round.flood.replies as f64)),
        Cell::number(measure::success_percent(round), percent),
        Cell::number(measure::connect_p50(round), millis),
        Cell::number(measure::connect_p99(round), millis),
        Cell::number(measure::connect_p999(round), millis),
        Cell::number(measure::connect_max(round), millis),
        Cell::number(measure::connections_per_s(round), si),
        Cell::number(measure::cpu_ns(round), three),
        Cell::number(measure::amplification(round), three),
        Cell::number(measure::rss_peak(round), bytes),
        Cell::number(measure::half_open_peak(round), si),
        Cell::verdict(failed, round.checks.len()),
        Cell::number(measure::disagreement(round), part),
    ]
}

/// Three digits.
fn three(value: f64) -> String {
    significant(value, 3)
}

/// A part of one as per cent.
fn part(value: f64) -> String {
    format!("{} %", significant(value * 100.0, 2))
}

/// The failed checks of some rounds: a sentence for each alternative, flood and threshold, with what each repetition found.
pub fn failures(rounds: &[&Round]) -> Vec<String> {
    let mut failures: Vec<(String, Vec<&str>)> = Vec::new();
    for round in rounds {
        for check in round.checks.iter().filter(|check| !check.passed) {
            let subject = format!("FAIL {}, {}: {}", round.alternative, Case::of(round).label(), check.threshold);
            match failures.iter_mut().find(|(known, _)| *known == subject) {
                Some((_, found)) => found.push(&check.found),
                None => failures.push((subject, vec![&check.found])),
            }
        }
    }
    failures.into_iter().map(|(subject, found)| format!("{subject}; found {}", found.join(", "))).collect()
}

/// What the generator, the interface and the target counted, and how far they disagree.
pub fn cross_check(round: &Round) -> Option<String> {
    let disagreement = part(measure::disagreement(round)?);
    let flood = &round.flood;
    let counted = flood.counted.map_or_else(|| NOTHING.to_owned(), |counted| counted.to_string());
    let case = Case::of(round).label();
    Some(format!(
        "counts {}, {case} #{}: generator sent {}, interface received {}, target counted {counted}; differ by {disagreement}",
        round.alternative,
        round.repetition.saturating_add(1),
        flood.sent,
        flood.received
    ))
}
