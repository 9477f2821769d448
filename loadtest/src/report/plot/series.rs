//! What happened when, in one round: the flood, the clients, the half-open connections.

use plotters::style::RGBColor;

use super::Plot;
use super::axis::Axis;
use super::canvas::{Canvas, DrawError, Drawn, GREY_INK, Side, draw};
use super::legend::Legend;
use super::look::{BLUE, GREEN, GREY, Look, PURPLE, Shape, VERMILLION};
use super::panel::{MARGIN, Panel, TOP, WIDTH};
use crate::report::group::{Case, Rate, alternatives, cases, middle};
use crate::report::measure;
use crate::results::{Round, Sample, ScenarioResults};

/// One of the panels that lie above each other.
struct Track {
    title: &'static str,
    lines: &'static [Line],
}

/// One line in a panel: its name, its colour, and its value.
struct Line(&'static str, RGBColor, Value);

/// Of a sample, the one before it, and the seconds between them.
type Value = fn(&Sample, &Sample, f64) -> f64;

/// From above downwards.
const TRACKS: [Track; 3] = [
    Track {
        title: "flood, frames per second",
        lines: &[
            Line("sent", GREY, |sample, _, _| sample.sent_pps),
            Line("received", BLUE, |sample, _, _| sample.received_pps),
            Line("replied", VERMILLION, |sample, _, _| sample.replies_pps),
        ],
    },
    Track {
        title: "legitimate clients per second",
        lines: &[
            Line("ok", GREEN, |now, then, seconds| now.ok.saturating_sub(then.ok) as f64 / seconds),
            Line("failed", VERMILLION, |now, then, seconds| now.failed.saturating_sub(then.failed) as f64 / seconds),
        ],
    },
    Track {
        title: "half-open connections",
        lines: &[Line("half-open", PURPLE, |sample, _, _| sample.half_open as f64)],
    },
];

/// Behind the times at which the target answers with cookies alone.
const COOKIES: RGBColor = RGBColor(253, 240, 213);

/// The height of the data of one panel.
const TRACK_HEIGHT: f64 = 105.0;

/// From one panel to the next.
const TRACK_STEP: f64 = TRACK_HEIGHT + 38.0;

/// One plot per round to show: of one alternative, each flood; of several, only the strongest of each kind, because nobody looks
/// at a hundred plots. Of several repetitions, the one whose success is the middle one.
pub fn plots(scenario: &ScenarioResults) -> Result<Vec<Plot>, DrawError> {
    let rounds = shown(scenario).into_iter().filter(|round| round.series.len() > 1);
    rounds.map(|round| plot(scenario, round)).collect()
}

/// The rounds to show.
fn shown(scenario: &ScenarioResults) -> Vec<&Round> {
    let alternatives = alternatives(scenario);
    let several = alternatives.len() > 1;
    let of_alternative = |name: &&str| {
        let met = |case: &Case<'_>| !case.rounds(scenario, name).is_empty();
        let own: Vec<Case<'_>> = cases(scenario).into_iter().filter(met).collect();
        let own = if several { strongest(&own) } else { own };
        let rounds = own.into_iter().filter_map(|case| middle(&case.rounds(scenario, name), measure::success_percent));
        rounds.collect::<Vec<_>>()
    };
    alternatives.iter().flat_map(of_alternative).collect()
}

/// The last of each kind; rates rise. The quiet one stays only where there is no flood at all.
fn strongest<'a>(cases: &[Case<'a>]) -> Vec<Case<'a>> {
    let flooded = cases.iter().any(|case| case.rate != Rate::Quiet);
    let is_last = |i: usize| !cases[i + 1..].iter().any(|later| later.kind == cases[i].kind);
    let last = cases.iter().enumerate().filter(|(i, _)| is_last(*i)).map(|(_, case)| *case);
    last.filter(|case| case.rate != Rate::Quiet || !flooded).collect()
}

/// Draws one round.
fn plot(scenario: &ScenarioResults, round: &Round) -> Result<Plot, DrawError> {
    let label = Case::of(round).label();
    let title = format!("{}, {label}, second by second", round.alternative);
    let height = TOP + TRACK_STEP * TRACKS.len() as f64 + 38.0;
    let svg = draw((WIDTH, height), |canvas| {
        canvas.heading(&format!("{}: {title}", scenario.name), (MARGIN, 18.0))?;
        for (i, track) in TRACKS.iter().enumerate() {
            let is_last = i + 1 == TRACKS.len();
            draw_track(canvas, track, TOP + TRACK_STEP * i as f64, round, is_last)?;
        }
        let note = "Shaded: the target answers with cookies alone.";
        let shaded = round.series.iter().any(|sample| sample.cookies_only == Some(true));
        if shaded { canvas.text(note, (MARGIN, height - 13.0), Side::Left, GREY_INK) } else { Ok(()) }
    })?;
    Ok(Plot { name: format!("series-{}-{label}", round.alternative), title, svg, is_detail: true })
}

/// Draws one panel.
fn draw_track(canvas: &Canvas<'_>, track: &Track, top: f64, round: &Round, is_last: bool) -> Drawn {
    let lines: Vec<Vec<(f64, f64)>> = track.lines.iter().map(|line| values(line, &round.series)).collect();
    let most = lines.iter().flatten().map(|(_, y)| *y).fold(0.0, f64::max);
    let mut legend = Legend::new();
    track.lines.iter().for_each(|Line(name, colour, _)| legend.add(name, look(*colour), false, true));
    let panel = Panel::below_each_other(top, TRACK_HEIGHT, seconds(&round.series), Axis::linear(most));
    shade_cookies(canvas, &panel, &round.series)?;
    panel.draw_y(canvas, track.title)?;
    if is_last {
        panel.draw_x(canvas, "seconds since the first client")?;
    }
    for (i, (line, Line(_, colour, _))) in lines.iter().zip(track.lines).enumerate() {
        let places: Vec<_> = line.iter().map(|(x, y)| panel.at(*x, *y)).collect();
        // What is drawn first is wider, so that it shows beside an equal line that lies above it.
        canvas.line(&places, *colour, 1.5 + 1.2 * (lines.len() - 1 - i) as f64)?;
    }
    legend.draw_row(canvas, (panel.right(), top - 14.0))
}

/// A colour as a look, for lines without points.
fn look(colour: RGBColor) -> Look {
    Look { colour, shape: Shape::Circle }
}

/// The times of the whole round.
fn seconds(series: &[Sample]) -> Axis {
    Axis::linear(last(series)).ending_at(last(series))
}

/// The time of the last sample.
fn last(series: &[Sample]) -> f64 {
    series.iter().map(|sample| sample.at_s).filter(|at| at.is_finite()).fold(0.0, f64::max)
}

/// Each sample behind the one before it; before the first there was nothing yet.
fn intervals(series: &[Sample]) -> impl Iterator<Item = (Sample, &Sample)> {
    let before = std::iter::once(Sample::default()).chain(series.iter().copied());
    before.zip(series)
}

/// A line as (seconds, value). A sample that took no time has no rate.
fn values(line: &Line, series: &[Sample]) -> Vec<(f64, f64)> {
    let Line(_, _, value) = line;
    let timed = intervals(series).map(|(before, sample)| (before, sample, sample.at_s - before.at_s));
    let points = timed
        .filter(|(.., seconds)| *seconds > 0.0)
        .map(|(before, sample, seconds)| (sample.at_s, value(sample, &before, seconds)));
    points.filter(|(_, y)| y.is_finite()).collect()
}

/// Marks the times at which the target answered with cookies alone.
fn shade_cookies(canvas: &Canvas<'_>, panel: &Panel, series: &[Sample]) -> Drawn {
    let cookies = intervals(series).filter(|(_, sample)| sample.cookies_only == Some(true));
    for (from, to) in joined(cookies.map(|(before, sample)| (before.at_s, sample.at_s))) {
        panel.shade(canvas, from, to, COOKIES)?;
    }
    Ok(())
}

/// Puts spans together that touch, so that no seams show between them.
fn joined(spans: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut joined: Vec<(f64, f64)> = Vec::new();
    for (from, to) in spans {
        match joined.last_mut() {
            Some((_, end)) if *end == from => *end = to,
            _ => joined.push((from, to)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_came_before_count_once() {
        let sample = |at_s, ok, failed| Sample { at_s, ok, failed, ..Sample::default() };
        let series = [sample(0.25, 50, 0), sample(0.5, 100, 10), sample(1.0, 200, 10)];
        let [ok, failed] = [0, 1].map(|line| values(&TRACKS[1].lines[line], &series));
        assert_eq!(ok, [(0.25, 200.0), (0.5, 200.0), (1.0, 200.0)]);
        assert_eq!(failed, [(0.25, 0.0), (0.5, 40.0), (1.0, 0.0)]);
    }
}
