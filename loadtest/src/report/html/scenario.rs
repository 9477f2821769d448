//! The section of one scenario.

use std::fmt::Write;

use super::escape::escaped;
use super::{is_limited, table};
use crate::report::group::alternatives;
use crate::report::plot::Plot;
use crate::report::table::{all_rounds, cross_check, tables};
use crate::results::{Check, ScenarioResults};

/// What it asks, whether it passes, plots and tables of all, plots of single rounds, and every round folded away.
pub fn section(scenario: &ScenarioResults, plots: &[Plot], baseline: &str) -> String {
    let mut html = format!("<section>\n<h2>{}</h2>\n", escaped(&scenario.name));
    let _ = writeln!(html, "<p>{}</p>", escaped(&scenario.description));
    html.push_str(&thresholds(scenario));
    if scenario.rounds.is_empty() {
        html.push_str("<p>No rounds were run.</p>\n</section>\n");
        return html;
    }
    html.push_str(&limited(scenario));
    html.push_str(&figures(plots.iter().filter(|plot| !plot.is_detail)));
    for of_flood in tables(scenario, baseline) {
        html.push_str(&table::table(&of_flood));
    }
    html.push_str(&figures(plots.iter().filter(|plot| plot.is_detail)));
    // Of a single alternative, the table above has them already.
    if alternatives(scenario).len() > 1 {
        html.push_str(&details(scenario));
    }
    html.push_str("</section>\n");
    html
}

/// Each threshold, and in how many rounds it holds; or those that were set, if none was judged.
fn thresholds(scenario: &ScenarioResults) -> String {
    let judged = judged(scenario);
    if judged.is_empty() {
        let set = scenario.pass.iter().map(|text| format!("<li>{}: not judged</li>\n", escaped(text)));
        let set: String = set.collect();
        return if set.is_empty() { set } else { format!("<ul>\n{set}</ul>\n") };
    }
    let items: String = judged.into_iter().map(|(threshold, checks)| threshold_item(threshold, &checks)).collect();
    format!("<ul class=\"thresholds\">\n{items}</ul>\n")
}

/// A threshold with its verdict.
fn threshold_item(threshold: &str, checks: &[&Check]) -> String {
    let passed = checks.iter().filter(|check| check.passed).count();
    let (class, word) = if passed == checks.len() { ("good", "pass") } else { ("bad", "FAIL") };
    let of = format!("holds in {passed} of {} rounds", checks.len());
    format!("<li><code>{}</code> <span class=\"{class}\">{word}</span>, {of}</li>\n", escaped(threshold))
}

/// The checks by their thresholds, in the order they came; those that fail first.
fn judged(scenario: &ScenarioResults) -> Vec<(&str, Vec<&Check>)> {
    let mut judged: Vec<(&str, Vec<&Check>)> = Vec::new();
    for check in scenario.rounds.iter().flat_map(|round| &round.checks) {
        match judged.iter_mut().find(|(threshold, _)| *threshold == check.threshold) {
            Some((_, checks)) => checks.push(check),
            None => judged.push((&check.threshold, vec![check])),
        }
    }
    judged.sort_by_key(|(_, checks)| checks.iter().all(|check| check.passed));
    judged
}

/// A warning that some figures are about the generator.
fn limited(scenario: &ScenarioResults) -> String {
    let count = scenario.rounds.iter().filter(|round| is_limited(round)).count();
    match count {
        0 => String::new(),
        count => format!(
            "<p class=\"note\">In {count} of {} rounds, marked *, the generator and not the target was the limit: \
             they show what the target does at the rate received, not at the rate asked for.</p>\n",
            scenario.rounds.len()
        ),
    }
}

/// The plots, inline.
fn figures<'a>(plots: impl Iterator<Item = &'a Plot>) -> String {
    let figures = plots.map(|plot| format!("<figure>{}</figure>\n", inline(plot)));
    let figures: String = figures.collect();
    if figures.is_empty() { figures } else { format!("<div class=\"plots\">\n{figures}</div>\n") }
}

/// The picture without what only a file of its own needs, and with words for those who cannot see it. The size goes, so that it
/// fills the column; the view box keeps the shape.
fn inline(plot: &Plot) -> String {
    let (opening, rest) = plot.svg.split_once('>').unwrap_or(("", &plot.svg));
    let view_box =
        opening.split_once("viewBox=\"").and_then(|(_, after)| after.split_once('"')).map_or("", |(it, _)| it);
    let title = escaped(&plot.title);
    format!("<svg viewBox=\"{view_box}\" role=\"img\" aria-label=\"{title}\">{rest}")
}

/// Every round, and what was counted three ways.
fn details(scenario: &ScenarioResults) -> String {
    let counts: String =
        scenario.rounds.iter().filter_map(cross_check).map(|text| format!("<li>{}</li>\n", escaped(&text))).collect();
    let mut html =
        format!("<details><summary>Every round</summary>\n{}</details>\n", table::table(&all_rounds(scenario)));
    if !counts.is_empty() {
        let _ = writeln!(
            html,
            "<details><summary>The flood, counted three ways</summary>\n<ul>\n{counts}</ul>\n</details>"
        );
    }
    html
}
