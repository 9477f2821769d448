//! What it cost: processor time, memory, switches of the mode; and what became of clients that were not served.

use std::collections::BTreeMap;

use super::{Cell, Table};
use crate::report::group::{Case, Measure, Spread, alternatives, cases};
use crate::report::measure;
use crate::report::number::{NOTHING, bytes, millis, significant};
use crate::results::{Round, ScenarioResults};

/// A column of medians.
type Column = (&'static str, Measure, fn(f64) -> String);

const COLUMNS: [Column; 13] = [
    ("user s", |round| Some(round.target.cpu_user_s), three),
    ("system s", |round| Some(round.target.cpu_system_s), three),
    ("softirq s", |round| Some(round.target.cpu_softirq_s), three),
    ("RSS before", |round| Some(round.target.rss_before_bytes as f64), bytes),
    ("RSS most", measure::rss_peak, bytes),
    ("slab most", |round| round.target.slab_peak_bytes.map(|bytes| bytes as f64), bytes),
    ("half-open", measure::half_open_peak, three),
    ("B/half-open", |round| round.target.bytes_per_half_open, three),
    ("to cookies ms", |round| round.target.switch_in_ms, three),
    ("back ms", |round| round.target.switch_out_ms, three),
    ("whole p50 ms", |round| measure::whole(round, |q| q.p50), millis),
    ("p99 ms", |round| measure::whole(round, |q| q.p99), millis),
    ("p99.9 ms", |round| measure::whole(round, |q| q.p999), millis),
];

/// A row for each flood and alternative: medians over the repetitions, and all that became of clients.
pub fn costs(scenario: &ScenarioResults) -> Table {
    let titles = ["flood"].into_iter().chain(COLUMNS.map(|(title, ..)| title)).chain(["clients"]);
    Table {
        caption: format!("{}: what it cost", scenario.name),
        columns: titles.map(str::to_owned).collect(),
        rows: cases(scenario).into_iter().flat_map(|case| rows(scenario, case)).collect(),
        notes: vec![
            "seconds of the target's cores while the flood ran; whole: from the moment a client was due to its last byte".to_owned(),
        ],
    }
}

fn rows(scenario: &ScenarioResults, case: Case<'_>) -> Vec<Vec<Cell>> {
    let alternatives = alternatives(scenario);
    let mut rows = Vec::new();
    for alternative in &alternatives {
        let rounds = case.rounds(scenario, alternative);
        let name = match alternatives.len() {
            1 => case.label(),
            _ => format!("{}, {alternative}", case.label()),
        };
        if !rounds.is_empty() {
            rows.push(row(name, &rounds));
        }
    }
    rows
}

fn row(name: String, rounds: &[&Round]) -> Vec<Cell> {
    let median = |measure, format: fn(f64) -> String| {
        Spread::of(rounds, measure).map_or_else(|| NOTHING.to_owned(), |spread| format(spread.median))
    };
    let medians = COLUMNS.map(|(_, measure, format)| median(measure, format));
    [name].into_iter().chain(medians).chain([outcomes(rounds)]).map(Cell::plain).collect()
}

/// `ok 600, timeout 3`.
fn outcomes(rounds: &[&Round]) -> String {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (outcome, count) in rounds.iter().flat_map(|round| &round.clients.outcomes) {
        *sums.entry(outcome).or_default() += count;
    }
    let mut some: Vec<_> = sums.into_iter().filter(|(_, count)| *count > 0).collect();
    some.sort_by_key(|(outcome, _)| *outcome != "ok");
    match some.is_empty() {
        true => NOTHING.to_owned(),
        false => some.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect::<Vec<_>>().join(", "),
    }
}

/// Three digits.
fn three(value: f64) -> String {
    significant(value, 3)
}
