//! A measure over the rate of the flood, one line for each alternative.

use super::Plot;
use super::axis::Axis;
use super::canvas::{Canvas, DrawError, Drawn, GREY_INK, INK, Side, draw};
use super::legend::Legend;
use super::look::{Look, Looks};
use super::panel::{BELOW, MARGIN, Panel, WIDTH};
use super::rate_axis::RateAxis;
use crate::report::group::{Case, Measure, Rate, Spread, alternatives, cases, kinds};
use crate::report::measure;
use crate::results::{Round, ScenarioResults};

/// One kind of plot.
struct Subject {
    name: &'static str,
    title: &'static str,
    y_title: &'static str,
    measure: Measure,
    y: fn(&[Line<'_>]) -> Axis,
}

/// What is drawn over the rate.
const SUBJECTS: [Subject; 3] = [
    Subject {
        name: "success",
        title: "Clients that got what they came for",
        y_title: "success, % of attempts",
        measure: measure::success_percent,
        y: |_| Axis::percent(),
    },
    Subject {
        name: "p99",
        title: "Time to connect that 99 % need at most",
        y_title: "p99 of connect, ms, of those who connected",
        measure: |round| measure::connect_p99(round).map(|micros| micros / 1000.0),
        y: |lines| Axis::logarithmic(values(lines)),
    },
    Subject {
        name: "cpu",
        title: "Processor time for each frame of the flood",
        y_title: "CPU, ns per frame received",
        measure: measure::cpu_ns,
        y: |lines| Axis::logarithmic(values(lines)),
    },
];

/// The points of an alternative from left to right.
struct Line<'a> {
    alternative: &'a str,
    look: Look,
    points: Vec<Point>,
}

/// One flood.
struct Point {
    /// Logarithm of the rate; `None` without a flood.
    x: Option<f64>,
    y: Spread,
    rate: Rate,
    limited: bool,
}

impl Point {
    /// Whether it stands at the rate that the generator reached instead of one that was asked for.
    fn at_measured_rate(&self) -> bool {
        self.rate == Rate::Max || self.limited
    }
}

/// One plot per kind of flood and subject of which there is anything to see. Without a flood there is no rate, and no plot.
pub fn plots(scenario: &ScenarioResults, looks: &Looks) -> Result<Vec<Plot>, DrawError> {
    let mut plots = Vec::new();
    for kind in kinds(scenario) {
        for subject in &SUBJECTS {
            let lines = lines(scenario, kind, subject.measure, looks);
            if lines.iter().any(|line| !line.points.is_empty()) {
                plots.push(plot(scenario, kind, subject, &lines)?);
            }
        }
    }
    Ok(plots)
}

/// The lines of all alternatives for one kind of flood.
fn lines<'a>(scenario: &'a ScenarioResults, kind: &str, measure: Measure, looks: &Looks) -> Vec<Line<'a>> {
    let cases: Vec<Case<'_>> =
        cases(scenario).into_iter().filter(|case| case.rate == Rate::Quiet || case.kind == kind).collect();
    let line = |alternative: &'a str| {
        let point = |case: &Case<'a>| point(case.rate, &case.rounds(scenario, alternative), measure);
        let mut points: Vec<Point> = cases.iter().filter_map(point).collect();
        // "max" may lie below a rate that was asked for; the line goes from left to right all the same.
        points.sort_by(|a, b| order(a).total_cmp(&order(b)));
        Line { alternative, look: looks.get(alternative), points }
    };
    alternatives(scenario).into_iter().map(line).collect()
}

/// From left to right.
fn order(point: &Point) -> f64 {
    point.x.unwrap_or(f64::NEG_INFINITY)
}

/// What the repetitions of one flood found. A flood of unknown rate has no place.
fn point(rate: Rate, rounds: &[&Round], measure: Measure) -> Option<Point> {
    let y = Spread::of(rounds, measure)?;
    let limited = rounds.iter().any(|round| round.flood.generator_limited);
    // The same meaning for every point: what was offered. That is the rate asked for, as far as the generator kept it.
    let offered = || Spread::of(rounds, measure::offered_pps).map(|spread| spread.median);
    let x = match rate {
        Rate::Quiet => None,
        Rate::Asked(rate) if !limited => Some(rate),
        Rate::Asked(_) | Rate::Max => Some(offered().filter(|rate| *rate > 0.0)?),
    };
    Some(Point { x: x.map(f64::log10), y, rate, limited })
}

/// Every y, with the ends of the spreads.
fn values<'a>(lines: &'a [Line<'_>]) -> impl Iterator<Item = f64> + 'a {
    lines.iter().flat_map(|line| &line.points).flat_map(|point| [point.y.min, point.y.median, point.y.max])
}

/// Draws one plot.
fn plot(scenario: &ScenarioResults, kind: &str, subject: &Subject, lines: &[Line<'_>]) -> Result<Plot, DrawError> {
    let title = format!("{} ({kind} flood)", subject.title);
    let mut legend = Legend::new();
    lines.iter().for_each(|line| legend.add(line.alternative, line.look, true, !line.points.is_empty()));
    let points = || lines.iter().flat_map(|line| &line.points);
    let rates = RateAxis::new(points().map(|point| point.x), points().filter_map(asked));
    let panel = Panel::only(rates.axis(), (subject.y)(lines));
    let legend_top = panel.bottom() + BELOW;
    let notes_top = legend_top + legend.height(WIDTH - 2.0 * MARGIN);
    let height = notes_top + 44.0;
    let svg = draw((WIDTH, height), |canvas| {
        canvas.heading(&format!("{}: {title}", scenario.name), (MARGIN, 18.0))?;
        draw_max_band(canvas, &panel, lines)?;
        panel.draw_y(canvas, subject.y_title)?;
        panel.draw_x(canvas, "flood, frames per second offered")?;
        draw_lines(canvas, &panel, &rates, lines)?;
        legend.draw(canvas, (MARGIN, legend_top), WIDTH - 2.0 * MARGIN)?;
        canvas.text(BARS_NOTE, (MARGIN, notes_top + 14.0), Side::Left, GREY_INK)?;
        canvas.text(&marks_note(lines), (MARGIN, notes_top + 31.0), Side::Left, GREY_INK)
    })?;
    Ok(Plot { name: format!("{kind}-{}", subject.name), title, svg, is_detail: false })
}

/// How to read the points.
const BARS_NOTE: &str = "Medians, bars from the least to the most, set apart a little to be seen.";

/// What the marks mean, as far as they occur.
fn marks_note(lines: &[Line<'_>]) -> String {
    let any = |test: fn(&Point) -> bool| lines.iter().flat_map(|line| &line.points).any(test);
    let mut sentences = Vec::new();
    if any(Point::at_measured_rate) {
        sentences.push("Hollow: at what the generator could.");
    }
    if any(|point| point.limited) {
        sentences.push("*: the generator was the limit.");
    }
    sentences.join(" ")
}

/// Marks where the floods without a set rate lie.
fn draw_max_band(canvas: &Canvas<'_>, panel: &Panel, lines: &[Line<'_>]) -> Drawn {
    const SHADE: plotters::style::RGBColor = plotters::style::RGBColor(242, 242, 242);
    let at_max = lines.iter().flat_map(|line| &line.points).filter(|point| point.rate == Rate::Max);
    let Some(spread) = Spread::over(at_max.filter_map(|point| point.x)) else { return Ok(()) };
    let margin = 0.06;
    panel.shade(canvas, spread.min - margin, spread.max + margin, SHADE)?;
    let right = panel.at(spread.max + margin, 0.0).0;
    canvas.text("max", (right, panel.top() - 14.0), Side::Right, INK)
}

/// Draws the lines, then all points above them.
fn draw_lines(canvas: &Canvas<'_>, panel: &Panel, rates: &RateAxis, lines: &[Line<'_>]) -> Drawn {
    let at = |i: usize, point: &Point, y: f64| {
        let (x, y) = panel.at(point.x.unwrap_or(rates.zero), y);
        (x + aside(i, lines.len()), y)
    };
    for (i, line) in lines.iter().enumerate() {
        let places: Vec<_> = line.points.iter().map(|point| at(i, point, point.y.median)).collect();
        canvas.line(&places, line.look.colour, 1.8)?;
        for point in &line.points {
            canvas.line(&[at(i, point, point.y.min), at(i, point, point.y.max)], line.look.colour, 1.2)?;
        }
    }
    for (i, line) in lines.iter().enumerate() {
        for point in &line.points {
            draw_point(canvas, at(i, point, point.y.median), point, line.look)?;
        }
    }
    Ok(())
}

/// A point, with the mark of a generator at its limit.
fn draw_point(canvas: &Canvas<'_>, (x, y): (f64, f64), point: &Point, look: Look) -> Drawn {
    canvas.point((x, y), look, point.at_measured_rate())?;
    if point.limited { canvas.text("*", (x, y - 8.0), Side::Centre, look.colour) } else { Ok(()) }
}

/// How far the points of an alternative stand from their true place, so that equal ones can all be seen.
fn aside(i: usize, count: usize) -> f64 {
    // Many stand closer, so that all of them stay near their rate.
    let step = (24.0 / count.max(1) as f64).min(2.6);
    (i as f64 - (count.saturating_sub(1)) as f64 / 2.0) * step
}

/// The rate at which a point stands because it was asked for.
fn asked(point: &Point) -> Option<f64> {
    match point.rate {
        Rate::Asked(rate) if !point.limited => Some(rate),
        Rate::Asked(_) | Rate::Quiet | Rate::Max => None,
    }
}
