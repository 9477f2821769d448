//! One page with everything in it: no script, and nothing that is fetched from anywhere.

mod escape;
mod scenario;
mod table;

use std::fmt::Write;

use self::escape::escaped;
use super::number::bytes;
use super::plot::Plot;
use super::table::failures;
use crate::results::{Results, Round};

/// Colours follow the reader's choice of light or dark; plots stay on a light card, because their colours are chosen for white.
const STYLE: &str = include_str!("style.css");

/// The page. `plots` are those of the scenarios, in their order.
pub fn page(results: &Results, plots: &[Vec<Plot>], baseline: &str) -> String {
    let mut body = head(results);
    body.push_str(&failed_checks(results));
    for (i, scenario) in results.scenarios.iter().enumerate() {
        let plots = plots.get(i).map_or(&[][..], Vec::as_slice);
        body.push_str(&scenario::section(scenario, plots, baseline));
    }
    if let Some(relays) = super::table::relay(&results.relay) {
        let _ = writeln!(body, "<section>\n<h2>Relays</h2>\n{}</section>", table::table(&relays));
    }
    if results.scenarios.is_empty() && results.relay.is_empty() {
        body.push_str("<p>Nothing was run.</p>\n");
    }
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escaped(&title(results))
    )
}

/// What was run.
fn title(results: &Results) -> String {
    let names: Vec<&str> = results.scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    match names[..] {
        [] => "Portcullis load test".to_owned(),
        _ => format!("Portcullis load test: {}", names.join(", ")),
    }
}

/// The title, where it ran, and how to repeat it.
fn head(results: &Results) -> String {
    let machine = &results.machine;
    let cores = if machine.cores == 1 { "core" } else { "cores" };
    let facts = [
        ("Begun", utc(results.started_unix)),
        ("Processor", format!("{}, {} {cores}", machine.cpu, machine.cores)),
        ("Memory", bytes(machine.memory_bytes as f64)),
        ("Kernel", machine.kernel.clone()),
    ];
    let mut html = format!("<h1>{}</h1>\n<dl>\n", escaped(&title(results)));
    for (name, value) in facts {
        // Writing to a String cannot fail.
        let _ = writeln!(html, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    html.push_str("<dt>Placement</dt><dd>");
    let placement: Vec<String> = machine.placement.iter().map(|sentence| escaped(sentence)).collect();
    html.push_str(&placement.join("<br/>"));
    let _ = writeln!(html, "</dd>\n</dl>\n<p>To repeat it:</p>\n<pre>{}</pre>", escaped(&results.command));
    html
}

/// What failed, before anything else; or that nothing did.
fn failed_checks(results: &Results) -> String {
    if results.scenarios.is_empty() {
        return String::new();
    }
    let all = || results.scenarios.iter().flat_map(|scenario| &scenario.rounds);
    let total: usize = all().map(|round| round.checks.len()).sum();
    let failed = all().flat_map(|round| &round.checks).filter(|check| !check.passed).count();
    match (failed, total) {
        (_, 0) => "<p>No thresholds were set.</p>\n".to_owned(),
        (0, total) => format!("<p class=\"verdict good\">All {total} checks pass.</p>\n"),
        (failed, total) => format!(
            "<h2>Failed checks</h2>\n<p class=\"verdict bad\">{failed} of {total} checks fail.</p>\n{}",
            failure_lists(results)
        ),
    }
}

/// The failed checks, scenario by scenario. Long lists begin folded, so that the rest of the page can be found.
fn failure_lists(results: &Results) -> String {
    let mut html = String::new();
    for scenario in &results.scenarios {
        let failures: Vec<String> = failures(&scenario.rounds.iter().collect::<Vec<_>>());
        if failures.is_empty() {
            continue;
        }
        let open = if failures.len() <= 12 { " open=\"open\"" } else { "" };
        let name = escaped(&scenario.name);
        let _ = writeln!(
            html,
            "<details{open}><summary>{name}: {} of thresholds and floods</summary>\n<ul>",
            failures.len()
        );
        for failure in &failures {
            let _ = writeln!(html, "<li class=\"bad\">{}</li>", escaped(failure));
        }
        html.push_str("</ul>\n</details>\n");
    }
    html
}

/// Whether a round was limited by the generator.
fn is_limited(round: &Round) -> bool {
    round.flood.generator_limited
}

/// A moment as `2026-11-21 21:39 UTC`.
fn utc(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = date(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600, seconds % 3600 / 60)
}

/// The date of a day since 1970, by the rule of 400 years of 146,097 days that begin in March (so leap days come last).
///
/// As in Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_knows_leap_days() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(1_709_210_096), "2024-02-29 12:34 UTC");
        assert_eq!(utc(1_795_297_152), "2026-11-21 21:39 UTC");
        assert!(utc(u64::MAX).ends_with("UTC"));
    }
}
