//! Alternatives side by side, one table for each flood.

use super::run::{cross_check, failures};
use super::{Cell, LIMITED_MARK, LIMITED_NOTE, Table};
use crate::report::group::{Case, Measure, Spread, alternatives, baseline, cases, paired_ratio};
use crate::report::measure;
use crate::report::number::{NOTHING, bytes, millis, percent, ratio, si, significant};
use crate::results::{Round, ScenarioResults};

/// A column of medians.
struct Column {
    title: &'static str,
    measure: Measure,
    format: fn(f64) -> String,
    /// Whether the smallest and the largest repetition stand beside the median.
    spread: bool,
}

/// What is compared.
const COLUMNS: [Column; 13] = [
    Column { title: "offered/s", measure: measure::offered_pps, format: si, spread: false },
    Column { title: "taken/s", measure: measure::taken_pps, format: si, spread: false },
    Column { title: "answered/s", measure: measure::answered_pps, format: si, spread: true },
    Column { title: "success %", measure: measure::success_percent, format: percent, spread: true },
    Column { title: "p50 ms", measure: measure::connect_p50, format: millis, spread: false },
    Column { title: "p99 ms", measure: measure::connect_p99, format: millis, spread: true },
    Column { title: "p99.9 ms", measure: measure::connect_p999, format: millis, spread: false },
    Column { title: "conn/s", measure: measure::connections_per_s, format: si, spread: false },
    Column { title: "CPU ns/frame", measure: measure::cpu_ns, format: three, spread: true },
    Column { title: "CPU ns/answer", measure: measure::cpu_ns_per_answer, format: three, spread: true },
    Column { title: "ampl.", measure: measure::amplification, format: three, spread: false },
    Column { title: "RSS", measure: measure::rss_peak, format: bytes, spread: false },
    Column { title: "half-open", measure: measure::half_open_peak, format: si, spread: false },
];

/// What is set in relation to the baseline.
const RATIOS: [(&str, Measure); 3] =
    [("success", measure::success_percent), ("p99", measure::connect_p99), ("CPU", measure::cpu_ns)];

/// One table per flood, one row per alternative: medians over the repetitions, `[smallest..largest]`, and how many times the
/// baseline's that is, where the scenario has an alternative of that name.
pub fn compare(scenario: &ScenarioResults, baseline_name: &str) -> Vec<Table> {
    let baseline = baseline(scenario, baseline_name);
    cases(scenario).into_iter().map(|case| one(scenario, case, baseline)).collect()
}

/// The table of one flood.
fn one(scenario: &ScenarioResults, case: Case<'_>, baseline: Option<&str>) -> Table {
    let against = baseline.map(|name| case.rounds(scenario, name));
    let rows = alternatives(scenario).into_iter().filter_map(|name| {
        let rounds = case.rounds(scenario, name);
        (!rounds.is_empty()).then(|| row(name, &rounds, against.as_deref()))
    });
    Table {
        caption: format!("{}: {}", scenario.name, case.label()),
        columns: titles(baseline.is_some()),
        rows: rows.collect(),
        notes: notes(scenario, case, baseline),
    }
}

/// The titles of the columns.
fn titles(with_ratios: bool) -> Vec<String> {
    let ratios = RATIOS.iter().filter(|_| with_ratios).map(|(title, _)| format!("{title}/base"));
    let measures = COLUMNS.iter().map(|column| column.title.to_owned());
    let first = ["alternative", "runs", "checks"].map(str::to_owned);
    first.into_iter().chain(measures).chain(ratios).collect()
}

/// The fields of one alternative.
fn row(name: &str, rounds: &[&Round], baseline: Option<&[&Round]>) -> Vec<Cell> {
    let limited = rounds.iter().any(|round| round.flood.generator_limited);
    let mark = if limited { LIMITED_MARK } else { "" };
    let checks: Vec<bool> = rounds.iter().flat_map(|round| &round.checks).map(|check| check.passed).collect();
    let failed = checks.iter().filter(|passed| !**passed).count();
    let mut cells = vec![Cell::plain(format!("{name}{mark}")), Cell::plain(rounds.len().to_string())];
    cells.push(Cell::verdict(failed, checks.len()));
    cells.extend(COLUMNS.iter().map(|column| median(rounds, column)));
    if let Some(baseline) = baseline {
        cells.extend(RATIOS.map(|(_, measure)| Cell::number(paired_ratio(rounds, baseline, measure), ratio)));
    }
    cells
}

/// A median, and how far the repetitions lie apart if they do.
fn median(rounds: &[&Round], column: &Column) -> Cell {
    let Some(spread) = Spread::of(rounds, column.measure) else { return Cell::plain(NOTHING) };
    let [median, min, max] = [spread.median, spread.min, spread.max].map(column.format);
    match column.spread && min != max {
        true => Cell::plain(format!("{median} [{min}..{max}]")),
        false => Cell::plain(median),
    }
}

/// Three digits.
fn three(value: f64) -> String {
    significant(value, 3)
}

/// What must be known to read the table of a flood.
fn notes(scenario: &ScenarioResults, case: Case<'_>, baseline: Option<&str>) -> Vec<String> {
    let rounds: Vec<&Round> = scenario.rounds.iter().filter(|round| Case::of(round) == case).collect();
    let limited = rounds.iter().any(|round| round.flood.generator_limited).then(|| LIMITED_NOTE.to_owned());
    let base = baseline.map(|name| format!("base: {name}; medians of the ratios of the same repetition"));
    limited.into_iter().chain(base).chain(failures(&rounds)).chain(worst_cross_check(&rounds)).collect()
}

/// The round in which the counts of the flood disagree most: if that is little, all are good.
fn worst_cross_check(rounds: &[&Round]) -> Option<String> {
    let order = |round: &&&Round| measure::disagreement(round).unwrap_or(-1.0);
    let worst = rounds.iter().max_by(|a, b| order(a).total_cmp(&order(b)))?;
    cross_check(worst).map(|sentence| format!("largest difference of {sentence}"))
}
