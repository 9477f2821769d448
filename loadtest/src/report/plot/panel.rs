//! The rectangle in which data are drawn, with its axes.

use super::axis::Axis;
use super::canvas::{Canvas, Drawn, GRID, INK, Side};

/// How wide all plots are: little enough that words can be read on a phone, where a plot is shown at two thirds of its size.
pub const WIDTH: f64 = 560.0;

/// Left and right of everything.
pub const MARGIN: f64 = 12.0;

/// Where the data begin; left of it stand the labels of the y axis.
const LEFT: f64 = 56.0;

/// Where the data begin; above stand the titles of the plot and of the y axis.
pub const TOP: f64 = 60.0;

/// The height of the data, where there is one panel.
const HEIGHT: f64 = 260.0;

/// From the end of the data to what stands below the labels and the title of the x axis.
pub const BELOW: f64 = 50.0;

/// A rectangle with an axis each way.
pub struct Panel {
    /// Where its upper left corner is.
    pub corner: (f64, f64),
    /// Width and height.
    pub size: (f64, f64),
    /// From left to right.
    pub x: Axis,
    /// From below upwards.
    pub y: Axis,
}

impl Panel {
    /// The only panel of a plot.
    pub fn only(x: Axis, y: Axis) -> Self {
        Self::below_each_other(TOP, HEIGHT, x, y)
    }

    /// One of several of full width.
    pub fn below_each_other(top: f64, height: f64, x: Axis, y: Axis) -> Self {
        Self { corner: (LEFT, top), size: (WIDTH - LEFT - MARGIN, height), x, y }
    }

    /// Where a pair of values lies in the drawing.
    pub fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (self.left() + self.x.place(x) * self.size.0, self.bottom() - self.y.place(y) * self.size.1)
    }

    /// Its left edge.
    pub fn left(&self) -> f64 {
        self.corner.0
    }

    /// Its right edge.
    pub fn right(&self) -> f64 {
        self.corner.0 + self.size.0
    }

    /// Its upper edge.
    pub fn top(&self) -> f64 {
        self.corner.1
    }

    /// Its lower edge.
    pub fn bottom(&self) -> f64 {
        self.corner.1 + self.size.1
    }

    /// A band behind the data from one x to another.
    pub fn shade(&self, canvas: &Canvas<'_>, from: f64, to: f64, colour: plotters::style::RGBColor) -> Drawn {
        let (left, right) = (self.at(from, 0.0).0, self.at(to, 0.0).0);
        canvas.rectangle((left, self.top()), (right, self.bottom()), colour)
    }

    /// Lines behind the data, and the values of y; the title of the y axis stands above, where it can be read unturned.
    pub fn draw_y(&self, canvas: &Canvas<'_>, title: &str) -> Drawn {
        canvas.text(title, (self.left(), self.top() - 14.0), Side::Left, INK)?;
        for (place, label) in self.y.ticks() {
            let y = self.bottom() - place * self.size.1;
            canvas.line(&[(self.left(), y), (self.right(), y)], GRID, 1.0)?;
            canvas.text(label, (self.left() - 7.0, y), Side::Right, INK)?;
        }
        canvas.line(&[(self.left(), self.bottom()), (self.right(), self.bottom())], INK, 1.0)
    }

    /// The values of x and the title of the axis, below.
    pub fn draw_x(&self, canvas: &Canvas<'_>, title: &str) -> Drawn {
        for (place, label) in self.x.ticks() {
            let x = self.left() + place * self.size.0;
            canvas.line(&[(x, self.bottom()), (x, self.bottom() + 4.0)], INK, 1.0)?;
            canvas.text(label, (x, self.bottom() + 15.0), Side::Centre, INK)?;
        }
        canvas.text(title, (self.left() + self.size.0 / 2.0, self.bottom() + 34.0), Side::Centre, INK)
    }
}
