//! Relays side by side: medians, and how many times better than HAProxy each is in the rounds that ran one after the other.

use super::{Cell, LIMITED_MARK, Table, Tone};
use crate::report::number::{NOTHING, bytes, millis, ratio, si, significant};
use crate::results::{RelayPart, RelayRound};

/// Who the others are compared with.
const BASELINE: &str = "haproxy";
/// Below, the relay's cores had time to spare: something else set the pace.
const BUSY: f64 = 0.9;
const GIB: f64 = (1_u64 << 30) as f64;

/// A line of the table.
struct Measure {
    part: RelayPart,
    title: &'static str,
    /// What is better: more of it, or less.
    more: bool,
    /// Whether the pace is what is measured.
    pace: bool,
    value: fn(&RelayRound) -> Option<f64>,
    format: fn(f64) -> String,
}

const fn more(
    part: RelayPart,
    title: &'static str,
    value: fn(&RelayRound) -> Option<f64>,
    format: fn(f64) -> String,
) -> Measure {
    Measure { part, title, more: true, pace: true, value, format }
}

const fn less(
    part: RelayPart,
    title: &'static str,
    value: fn(&RelayRound) -> Option<f64>,
    format: fn(f64) -> String,
) -> Measure {
    Measure { part, title, more: false, pace: false, value, format }
}

const MEASURES: [Measure; 16] = [
    more(RelayPart::Upload, "upload, GiB/s", per_second_gib, three_digits),
    less(RelayPart::Upload, "upload, CPU s per GiB", cpu_per_gib, three_digits),
    more(RelayPart::Download, "download, GiB/s", per_second_gib, three_digits),
    less(RelayPart::Download, "download, CPU s per GiB", cpu_per_gib, three_digits),
    more(RelayPart::Requests, "requests per second", per_second, si),
    less(RelayPart::Requests, "a request, CPU µs", cpu_us_each, three_digits),
    less(RelayPart::Requests, "a request, p50 ms", |round| Some(round.latency_us.p50), millis),
    less(RelayPart::Requests, "a request, p99 ms", |round| Some(round.latency_us.p99), millis),
    less(RelayPart::PingPong, "one request at a time, p50 ms", |round| Some(round.latency_us.p50), millis),
    less(RelayPart::PingPong, "one request at a time, p99 ms", |round| Some(round.latency_us.p99), millis),
    more(RelayPart::Connects, "connections per second", per_second, si),
    less(RelayPart::Connects, "a connection, CPU µs", cpu_us_each, three_digits),
    less(RelayPart::Connects, "a connection, p50 ms", |round| Some(round.latency_us.p50), millis),
    less(RelayPart::Connects, "a connection, p99 ms", |round| Some(round.latency_us.p99), millis),
    less(RelayPart::Idle, "idle, resident memory each", |round| round.resident_bytes_per_connection, bytes),
    less(RelayPart::Idle, "idle, buffers of all four sockets", |round| round.socket_bytes_per_connection, bytes),
];

fn three_digits(value: f64) -> String {
    significant(value, 3)
}

fn per_second(round: &RelayRound) -> Option<f64> {
    Some(round.done as f64 / round.seconds)
}

fn per_second_gib(round: &RelayRound) -> Option<f64> {
    Some(round.done as f64 / GIB / round.seconds)
}

fn cpu_per_gib(round: &RelayRound) -> Option<f64> {
    Some(round.cpu_s * GIB / round.done as f64)
}

fn cpu_us_each(round: &RelayRound) -> Option<f64> {
    Some(round.cpu_s * 1e6 / round.done as f64)
}

/// The table; `None` when no relay was measured.
pub fn relay(rounds: &[RelayRound]) -> Option<Table> {
    let names = names(rounds);
    if names.is_empty() {
        return None;
    }
    let measured = MEASURES.iter().filter(|measure| rounds.iter().any(|round| round.part == measure.part));
    let rows: Vec<Vec<Cell>> = measured.map(|measure| row(measure, &names, rounds)).collect();
    let repetitions = rounds.iter().map(|round| round.repetition + 1).max().unwrap_or(0);
    let mut notes = vec![
        format!("medians of {repetitions}; in parentheses how many times better than {BASELINE}, round by round"),
        format!("{LIMITED_MARK} the relay's cores were not busy: clients and upstream set the pace"),
    ];
    let failed: u64 = rounds.iter().map(|round| round.failed).sum();
    if failed > 0 {
        notes.push(format!("{failed} connections broke"));
    }
    let columns = std::iter::once("relay".to_owned()).chain(names.iter().map(|&name| name.to_owned())).collect();
    Some(Table { caption: "Relays side by side".to_owned(), columns, rows, notes })
}

/// In the order in which they came first.
fn names(rounds: &[RelayRound]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for round in rounds {
        if !names.contains(&round.alternative.as_str()) {
            names.push(&round.alternative);
        }
    }
    names.sort_by_key(|name| !name.starts_with("portcullis"));
    names
}

fn row(measure: &Measure, names: &[&str], rounds: &[RelayRound]) -> Vec<Cell> {
    let cells = names.iter().map(|&name| cell(measure, name, rounds));
    std::iter::once(Cell::plain(measure.title)).chain(cells).collect()
}

fn cell(measure: &Measure, name: &str, rounds: &[RelayRound]) -> Cell {
    let own = of(measure, name, rounds);
    let values = own.iter().filter_map(|round| (measure.value)(round));
    let Some(value) = median(values.collect()) else { return Cell::plain(NOTHING) };
    let busy = median(own.iter().map(|round| round.load).collect()).is_some_and(|load| load >= BUSY);
    let mark = if measure.pace && !busy { LIMITED_MARK } else { "" };
    let text = format!("{}{mark}", (measure.format)(value));
    if name == BASELINE {
        return Cell::plain(text);
    }
    let baseline = of(measure, BASELINE, rounds);
    let better = own.iter().filter_map(|round| {
        let other = baseline.iter().find(|other| other.repetition == round.repetition)?;
        let (own, other) = ((measure.value)(round)?, (measure.value)(other)?);
        Some(if measure.more { own / other } else { other / own })
    });
    match median(better.filter(|better| better.is_finite()).collect()) {
        Some(better) => Cell {
            text: format!("{text} ({})", ratio(better)),
            tone: if better >= 1.0 { Tone::Good } else { Tone::Bad },
        },
        None => Cell::plain(text),
    }
}

fn of<'a>(measure: &Measure, name: &str, rounds: &'a [RelayRound]) -> Vec<&'a RelayRound> {
    rounds.iter().filter(|round| round.part == measure.part && round.alternative == name).collect()
}

/// The middle one; of an even number, the mean of the middle two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Quantiles;

    fn round(alternative: &str, repetition: u32, done: u64, cpu_s: f64) -> RelayRound {
        RelayRound {
            alternative: alternative.to_owned(),
            repetition,
            part: RelayPart::Requests,
            connections: 64,
            seconds: 2.0,
            done,
            failed: 0,
            latency_us: Quantiles { p50: 1000.0, p99: 4000.0, ..Quantiles::default() },
            cpu_s,
            load: cpu_s / 2.0,
            resident_bytes_per_connection: None,
            socket_bytes_per_connection: None,
        }
    }

    #[test]
    fn ratios_are_of_rounds_that_ran_beside_each_other() {
        // The machine became three times slower meanwhile, for both.
        let rounds = [
            round("haproxy", 0, 60_000, 2.0),
            round("portcullis-raw", 0, 90_000, 2.0),
            round("portcullis-raw", 1, 30_000, 2.0),
            round("haproxy", 1, 20_000, 2.0),
        ];
        let table = relay(&rounds).expect("a table");
        assert_eq!(table.columns, ["relay", "portcullis-raw", "haproxy"]);
        let texts: Vec<&str> = table.rows[0].iter().map(|cell| cell.text.as_str()).collect();
        assert_eq!(texts, ["requests per second", "30.0 k (1.50×)", "20.0 k"]);
        assert_eq!(table.rows[1][1].tone, Tone::Good, "less of the processor for each is better");
        assert_eq!(table.rows.len(), 4, "only what was measured");
    }

    #[test]
    fn a_relay_that_waits_is_marked_and_nothing_gives_no_table() {
        let table = relay(&[round("haproxy", 0, 60_000, 1.0)]).expect("a table");
        assert_eq!(table.rows[0][1].text, "30.0 k*");
        assert!(relay(&[]).is_none());
    }
}
