//! How long connecting takes, percentile by percentile, for each flood.

use super::Plot;
use super::axis::Axis;
use super::canvas::GREY_INK;
use super::canvas::{DrawError, Side, draw};
use super::legend::Legend;
use super::look::{Look, Looks};
use super::panel::{BELOW, MARGIN, Panel, WIDTH};
use crate::report::group::{Case, alternatives, cases, middle};
use crate::report::measure;
use crate::results::{ClientResults, Round, ScenarioResults};

/// A distribution.
struct Curve {
    name: String,
    look: Look,
    /// (the place of the percentile, milliseconds), from left to right.
    points: Vec<(f64, f64)>,
}

/// Of several alternatives, one plot per flood in which anybody connected; of a single one, all floods in one plot.
pub fn plots(scenario: &ScenarioResults, looks: &Looks) -> Result<Vec<Plot>, DrawError> {
    let subjects = match alternatives(scenario)[..] {
        [alternative] => vec![(alternative.to_owned(), floods(scenario, alternative))],
        _ => cases(scenario).into_iter().map(|case| (case.label(), curves(scenario, case, looks))).collect(),
    };
    let seen = subjects.iter().filter(|(_, curves)| curves.iter().any(|curve| !curve.points.is_empty()));
    seen.map(|(name, curves)| plot(scenario, name, curves)).collect()
}

/// The curves of the alternatives that met a flood.
fn curves(scenario: &ScenarioResults, case: Case<'_>, looks: &Looks) -> Vec<Curve> {
    let curve = |name: &str| curve(&case.rounds(scenario, name), name.to_owned(), looks.get(name));
    alternatives(scenario).into_iter().filter_map(curve).collect()
}

/// The curves of the floods that an alternative met.
fn floods(scenario: &ScenarioResults, alternative: &str) -> Vec<Curve> {
    let cases = cases(scenario).into_iter().enumerate();
    cases.filter_map(|(i, case)| curve(&case.rounds(scenario, alternative), case.label(), Look::nth(i))).collect()
}

/// The curve of some repetitions: that of the one in the middle.
fn curve(rounds: &[&Round], name: String, look: Look) -> Option<Curve> {
    let round = middle(rounds, measure::connect_p99)?;
    Some(Curve { name, look, points: points(&round.clients) })
}

/// The points of a curve. The slowest of n connections stands where half a connection is slower, because 100 % is infinitely far.
fn points(clients: &ClientResults) -> Vec<(f64, f64)> {
    let last = 1.0 - 0.5 / (clients.connect_us.count.max(1)) as f64;
    let valid = clients.connect_curve.iter().filter(|(_, part)| (0.0..=1.0).contains(part));
    let mut points: Vec<_> = valid.map(|(us, part)| (place(part.min(last)), *us as f64 / 1000.0)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// Where a part of the connections stands: each nine is one step further.
fn place(part: f64) -> f64 {
    -(1.0 - part).log10()
}

/// Draws one plot.
fn plot(scenario: &ScenarioResults, name: &str, curves: &[Curve]) -> Result<Plot, DrawError> {
    let title = format!("Time to connect by percentile ({name})");
    let mut legend = Legend::new();
    curves.iter().for_each(|curve| legend.add(&curve.name, curve.look, false, !curve.points.is_empty()));
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let x = percentiles(all().map(|(x, _)| *x).fold(1.0, f64::max));
    let panel = Panel::only(x, Axis::logarithmic(all().map(|(_, y)| *y)));
    let legend_top = panel.bottom() + BELOW;
    let height = legend_top + legend.height(WIDTH - 2.0 * MARGIN) + 27.0;
    let svg = draw((WIDTH, height), |canvas| {
        canvas.heading(&format!("{}: {title}", scenario.name), (MARGIN, 18.0))?;
        panel.draw_y(canvas, "time to connect, ms")?;
        panel.draw_x(canvas, "% of the connections take at most so long")?;
        for curve in curves {
            let places: Vec<_> = curve.points.iter().map(|(x, y)| panel.at(*x, *y)).collect();
            canvas.line(&places, curve.look.colour, 1.8)?;
        }
        legend.draw(canvas, (MARGIN, legend_top), WIDTH - 2.0 * MARGIN)?;
        let note = "Of several repetitions, the one with the middle p99. Only those who connected.";
        canvas.text(note, (MARGIN, height - 13.0), Side::Left, GREY_INK)
    })?;
    Ok(Plot { name: format!("latency-{name}"), title, svg, is_detail: false })
}

/// 0, 50, 90, 99, 99.9 % and so on.
fn percentiles(most: f64) -> Axis {
    let most = most.min(9.0);
    let nines = ["90", "99", "99.9", "99.99", "99.999", "99.9999", "99.99999"];
    let nines = nines.iter().enumerate().map(|(i, label)| ((i + 1) as f64, *label));
    let ticks = [(0.0, "0"), (place(0.5), "50")].into_iter().chain(nines).filter(|(x, _)| *x <= most + 0.05);
    Axis::with_ticks(0.0, most + 0.12, ticks.map(|(x, label)| (x, label.to_owned())).collect())
}
