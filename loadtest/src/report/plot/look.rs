//! The same colour and shape for the same alternative in all plots.

use plotters::style::RGBColor;

use crate::report::group::alternatives;
use crate::results::Results;

/// How an alternative looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Of its lines.
    pub colour: RGBColor,
    /// Of its points.
    pub shape: Shape,
}

/// The outline of a point. Colours alone would not tell nine lines apart for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A circle, in short strokes.
    Circle,
    /// Standing on an edge.
    Square,
    /// Pointing up.
    Triangle,
    /// A square standing on a corner.
    Diamond,
    /// A triangle pointing down.
    Down,
}

/// The looks of all alternatives of a report.
#[derive(Clone, Debug)]
pub struct Looks {
    /// In the order they came.
    names: Vec<String>,
}

/// Okabe and Ito's colours for all kinds of colour vision (<https://jfly.uni-koeln.de/color/>), with grey and wine in place of
/// their yellow, which is too pale for a line on white.
const COLOURS: [RGBColor; 10] = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY, WINE, BLACK, OLIVE];

/// As in [`COLOURS`].
pub const BLUE: RGBColor = RGBColor(0, 114, 178);
/// As in [`COLOURS`].
pub const VERMILLION: RGBColor = RGBColor(213, 94, 0);
/// As in [`COLOURS`].
pub const GREEN: RGBColor = RGBColor(0, 158, 115);
/// As in [`COLOURS`].
pub const PURPLE: RGBColor = RGBColor(190, 100, 150);
/// As in [`COLOURS`].
const ORANGE: RGBColor = RGBColor(230, 159, 0);
/// As in [`COLOURS`].
const SKY: RGBColor = RGBColor(86, 180, 233);
/// As in [`COLOURS`].
pub const GREY: RGBColor = RGBColor(127, 127, 127);
/// As in [`COLOURS`].
const WINE: RGBColor = RGBColor(136, 34, 85);
/// As in [`COLOURS`].
const BLACK: RGBColor = RGBColor(0, 0, 0);
/// Dark, and neither of the greens nor the reds.
const OLIVE: RGBColor = RGBColor(153, 153, 51);

/// Five, so that nine colours and the shapes repeat together only after 45 alternatives.
const SHAPES: [Shape; 5] = [Shape::Circle, Shape::Square, Shape::Triangle, Shape::Diamond, Shape::Down];

impl Looks {
    /// Gives each alternative of the results a look.
    pub fn of(results: &Results) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in results.scenarios.iter().flat_map(alternatives) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Self { names }
    }

    /// The look of an alternative.
    pub fn get(&self, name: &str) -> Look {
        let place = self.names.iter().position(|known| known == name).unwrap_or(0);
        Look::nth(place)
    }
}

impl Look {
    /// One of a row in which neighbours differ.
    pub fn nth(place: usize) -> Self {
        Self { colour: COLOURS[place % COLOURS.len()], shape: SHAPES[place % SHAPES.len()] }
    }
}

impl Shape {
    /// The corners, for a point of radius 1 around 0.
    pub fn corners(self) -> Vec<(f64, f64)> {
        match self {
            Self::Circle => (0..16).map(|i| (f64::from(i) * std::f64::consts::TAU / 16.0).sin_cos()).collect(),
            Self::Square => vec![(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
            Self::Triangle => vec![(0.0, -1.15), (1.05, 0.8), (-1.05, 0.8)],
            Self::Diamond => vec![(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
            Self::Down => vec![(0.0, 1.15), (1.05, -0.8), (-1.05, -0.8)],
        }
    }
}
