//! Lines, shapes and words in a drawing of some size.

use std::io;

use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{PathElement, Polygon, Rectangle};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, ShapeStyle, TextStyle, WHITE};

use super::look::{Look, Shape};

/// What drawing may answer. Into a text in memory it does not, in practice.
pub type DrawError = DrawingAreaErrorKind<io::Error>;

/// What a step of a drawing answers.
pub type Drawn = Result<(), DrawError>;

/// Of words and axes.
pub const INK: RGBColor = RGBColor(40, 40, 40);

/// Of words about what is not there.
pub const GREY_INK: RGBColor = RGBColor(120, 120, 120);

/// Of lines behind the data.
pub const GRID: RGBColor = RGBColor(225, 225, 225);

/// The backend knows whole pixels only; so everything is drawn this many times larger, and shown smaller.
const FINENESS: f64 = 4.0;

/// The backend divides the sizes of fonts by this.
const FONT_FACTOR: f64 = 1.24;

/// The size of ordinary words.
const FONT_SIZE: f64 = 12.5;

/// A drawing. Places are in units from the upper left corner; a unit is a pixel where the plot is shown in its own size.
pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// Where a word stands relative to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Begins there.
    Left,
    /// In the middle.
    Centre,
    /// Ends there.
    Right,
}

/// Draws on white and gives the SVG.
pub fn draw(size: (f64, f64), paint: impl FnOnce(&Canvas<'_>) -> Drawn) -> Result<String, DrawError> {
    let mut svg = String::new();
    let fine = (pixel(size.0).unsigned_abs(), pixel(size.1).unsigned_abs());
    {
        let canvas = Canvas { area: SVGBackend::with_string(&mut svg, fine).into_drawing_area() };
        canvas.area.fill(&WHITE)?;
        paint(&canvas)?;
        canvas.area.present()?;
    }
    Ok(with_natural_size(&svg, size, fine))
}

/// Puts the size in units into the opening tag, and leaves the view box in fine pixels.
fn with_natural_size(svg: &str, (width, height): (f64, f64), (fine_width, fine_height): (u32, u32)) -> String {
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let xmlns = "http://www.w3.org/2000/svg";
    format!(
        "<svg xmlns=\"{xmlns}\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {fine_width} {fine_height}\">{body}"
    )
}

impl Canvas<'_> {
    /// A line through some places.
    pub fn line(&self, places: &[(f64, f64)], colour: RGBColor, width: f64) -> Drawn {
        let style = ShapeStyle::from(colour).stroke_width(pixel(width).unsigned_abs());
        self.area.draw(&PathElement::new(fine(places), style))
    }

    /// A filled rectangle between two corners.
    pub fn rectangle(&self, from: (f64, f64), to: (f64, f64), colour: RGBColor) -> Drawn {
        let corners = [(pixel(from.0), pixel(from.1)), (pixel(to.0), pixel(to.1))];
        self.area.draw(&Rectangle::new(corners, colour.filled()))
    }

    /// A point; hollow, or filled with its colour.
    pub fn point(&self, at: (f64, f64), look: Look, hollow: bool) -> Drawn {
        const RADIUS: f64 = 3.6;
        let outline = outline(look.shape, at, RADIUS);
        let fill = if hollow { WHITE } else { look.colour };
        self.area.draw(&Polygon::new(fine(&outline), fill))?;
        let closed: Vec<_> = outline.iter().chain(outline.first()).copied().collect();
        self.line(&closed, look.colour, 1.5)
    }

    /// Words, centred on the height of their place.
    pub fn text(&self, text: &str, at: (f64, f64), side: Side, colour: RGBColor) -> Drawn {
        self.words(text, at, side, colour, FontStyle::Normal)
    }

    /// Words in bold.
    pub fn heading(&self, text: &str, at: (f64, f64)) -> Drawn {
        // What fits into the width of a plot; the page says the whole title to those who hear it.
        const FITS: usize = 76;
        self.words(&cut(text, FITS), at, Side::Left, INK, FontStyle::Bold)
    }

    /// Words in a style. Characters that SVG cannot hold are left out; the backend escapes the others.
    fn words(&self, text: &str, at: (f64, f64), side: Side, colour: RGBColor, style: FontStyle) -> Drawn {
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        let horizontal = match side {
            Side::Left => HPos::Left,
            Side::Centre => HPos::Center,
            Side::Right => HPos::Right,
        };
        let font = ("sans-serif", FONT_SIZE * FINENESS * FONT_FACTOR, style).into_font();
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(horizontal, VPos::Center));
        self.area.draw_text(&text, &style, (pixel(at.0), pixel(at.1)))
    }
}

/// About how wide some words are: without fonts nobody knows.
pub fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * FONT_SIZE * 0.56
}

/// The beginning of a text that is too long.
pub fn cut(text: &str, length_max: usize) -> String {
    if text.chars().count() <= length_max {
        return text.to_owned();
    }
    text.chars().take(length_max.saturating_sub(1)).chain(['…']).collect()
}

/// The corners of a shape around a place.
fn outline(shape: Shape, at: (f64, f64), radius: f64) -> Vec<(f64, f64)> {
    shape.corners().into_iter().map(|(x, y)| (at.0 + x * radius, at.1 + y * radius)).collect()
}

/// Places in fine pixels.
fn fine(places: &[(f64, f64)]) -> Vec<(i32, i32)> {
    places.iter().map(|(x, y)| (pixel(*x), pixel(*y))).collect()
}

/// A length in fine pixels. No number at all becomes 0, and one too large the largest.
fn pixel(units: f64) -> i32 {
    (units * FINENESS).round() as i32
}
