//! What the lines mean, below the data or above them, where it covers none.

use super::canvas::{Canvas, Drawn, GREY_INK, INK, Side, cut, text_width};
use super::look::Look;

/// The distance from one entry to the next below it.
const LINE: f64 = 19.0;

/// Longer names are cut, so that two of them fit beside each other.
const NAME_MAX: usize = 34;

/// The length of the piece of line before a name, with the distance to the name.
const SAMPLE: f64 = 27.0;

/// The distance of a name from the next entry beside it.
const GAP: f64 = 16.0;

/// The meanings of the lines of a plot.
pub struct Legend {
    entries: Vec<Entry>,
}

/// The meaning of one line.
struct Entry {
    name: String,
    look: Look,
    /// Whether it has points besides its line.
    points: bool,
    /// Whether it has anything in the plot.
    present: bool,
}

impl Legend {
    /// Without entries.
    pub fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Adds a line with or without points. What has no data is listed, so that nobody looks for it in vain.
    pub fn add(&mut self, name: &str, look: Look, points: bool, present: bool) {
        let note = if present { "" } else { " (no data)" };
        self.entries.push(Entry { name: format!("{}{note}", cut(name, NAME_MAX)), look, points, present });
    }

    /// The height it needs as columns within some width.
    pub fn height(&self, width: f64) -> f64 {
        self.rows(width) as f64 * LINE
    }

    /// Draws it as columns within some width; the place is the upper left corner.
    pub fn draw(&self, canvas: &Canvas<'_>, (left, top): (f64, f64), width: f64) -> Drawn {
        let rows = self.rows(width);
        for (i, entry) in self.entries.iter().enumerate() {
            let (column, row) = (i / rows, i % rows);
            let place = (left + column as f64 * self.entry_width(), top + (row as f64 + 0.5) * LINE);
            entry.draw(canvas, place)?;
        }
        Ok(())
    }

    /// Draws it as one row that ends at a place.
    pub fn draw_row(&self, canvas: &Canvas<'_>, (right, y): (f64, f64)) -> Drawn {
        let mut x = right;
        for entry in self.entries.iter().rev() {
            x -= entry.width();
            entry.draw(canvas, (x, y))?;
            x -= GAP;
        }
        Ok(())
    }

    /// How many entries stand below each other; at least 1.
    fn rows(&self, width: f64) -> usize {
        let columns = ((width + GAP) / self.entry_width()).floor().max(1.0) as usize;
        self.entries.len().div_ceil(columns).max(1)
    }

    /// The distance from one column to the next.
    fn entry_width(&self) -> f64 {
        self.entries.iter().map(Entry::width).fold(1.0, f64::max) + GAP
    }
}

impl Entry {
    /// Of the sample and the name.
    fn width(&self) -> f64 {
        SAMPLE + text_width(&self.name)
    }

    /// Draws a piece of the line, a point of it, and the name.
    fn draw(&self, canvas: &Canvas<'_>, (x, y): (f64, f64)) -> Drawn {
        if !self.present {
            return canvas.text(&self.name, (x + SAMPLE, y), Side::Left, GREY_INK);
        }
        canvas.line(&[(x, y), (x + 21.0, y)], self.look.colour, 2.0)?;
        if self.points {
            canvas.point((x + 10.5, y), self.look, false)?;
        }
        canvas.text(&self.name, (x + SAMPLE, y), Side::Left, INK)
    }
}
