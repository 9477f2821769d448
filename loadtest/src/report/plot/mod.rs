//! Plots as SVG text.
//!
//! `plotters` draws, and only its SVG half is compiled in: no fonts are needed to make a plot, and the reader's own show it.
//! Axes are drawn here, because flood rates need a 0 and a "max" on one logarithmic axis, and percentiles an axis of their own.

mod axis;
mod canvas;
mod latency;
mod legend;
mod look;
mod over_rate;
mod panel;
mod rate_axis;
mod series;

use std::collections::BTreeSet;

pub use canvas::DrawError;
pub use look::Looks;

use crate::results::{Results, ScenarioResults};

/// A finished plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// A file name without `.svg`: letters, digits and dashes, and no other plot has it.
    pub name: String,
    /// What it shows, for those who cannot see it.
    pub title: String,
    /// The picture.
    pub svg: String,
    /// Whether it shows a single round, for those who ask how the others came about.
    pub is_detail: bool,
}

/// The plots of each scenario, in their order.
pub fn all(results: &Results) -> Result<Vec<Vec<Plot>>, DrawError> {
    let looks = Looks::of(results);
    let mut taken = BTreeSet::new();
    let mut of_scenario = |scenario: &ScenarioResults| {
        let mut plots = over_rate::plots(scenario, &looks)?;
        plots.extend(latency::plots(scenario, &looks)?);
        plots.extend(series::plots(scenario)?);
        plots.iter_mut().for_each(|plot| plot.name = unique_name(&scenario.name, &plot.name, &mut taken));
        Ok(plots)
    };
    results.scenarios.iter().map(&mut of_scenario).collect()
}

/// A file name from the names of scenario and plot, whatever they contain.
fn unique_name(scenario: &str, plot: &str, taken: &mut BTreeSet<String>) -> String {
    let name = slug(&format!("{scenario}-{plot}"));
    let numbered = (2..).map(|n: u32| format!("{name}-{n}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name));
    // The numbers do not end before the names do; the name alone is there for the compiler.
    let free = free.unwrap_or(name);
    taken.insert(free.clone());
    free
}

/// Lower-case letters and digits, with single dashes for all else.
fn slug(text: &str) -> String {
    let dashed: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    dashed.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}
