//! From a value to its place on an axis, and the values that are written beside it.

use crate::report::number::{si_short, significant};

/// An axis. Any value has a place on it: what lies outside is shown at its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The value at the beginning.
    low: f64,
    /// The value at the end, more than `low`.
    high: f64,
    /// Whether equal distances are equal ratios.
    logarithmic: bool,
    /// What is written where, rising.
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From one value to another, with ticks of one's own.
    pub fn with_ticks(low: f64, high: f64, ticks: Vec<(f64, String)>) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, logarithmic: false, ticks }
    }

    /// From 0 to a round number that is at least so much.
    pub fn linear(most: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 { most.min(1e15) } else { 1.0 };
        let step = round_up(most / 4.0);
        let count = (most / step).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|i| f64::from(i) * step).map(|value| (value, si_short(value)));
        Self { low: 0.0, high: count * step, logarithmic: false, ticks: ticks.collect() }
    }

    /// The same axis, cut off at a value, where a round end would waste room.
    pub fn ending_at(mut self, high: f64) -> Self {
        if high > self.low {
            self.ticks.retain(|(value, _)| *value <= high);
            self.high = high;
        }
        self
    }

    /// Over all values that are more than 0, with round ends. Without any, there is an axis all the same.
    pub fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| *value > 0.0 && value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        let (low, high) = (round_down(low.clamp(1e-6, 1e14)), round_up(high.clamp(1e-6, 1e15)));
        let high = if high > low { high } else { low * 10.0 };
        Self { low, high, logarithmic: true, ticks: logarithmic_ticks(low, high) }
    }

    /// From 0 % to 100 %, with some room at both ends for the points that lie there.
    pub fn percent() -> Self {
        let ticks = [0, 25, 50, 75, 100].map(|value| (f64::from(value), value.to_string()));
        Self { low: -4.0, high: 104.0, logarithmic: false, ticks: ticks.to_vec() }
    }

    /// What is written where, as parts of the axis.
    pub fn ticks(&self) -> impl Iterator<Item = (f64, &str)> {
        self.ticks.iter().map(|(value, label)| (self.place(*value), label.as_str()))
    }

    /// The part of the axis, 0 to 1, at which a value lies.
    pub fn place(&self, value: f64) -> f64 {
        let part = match self.logarithmic {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) }
    }
}

/// Powers of ten; with their doubles and halves where there are few of them.
fn logarithmic_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let decades = (high / low).log10();
    let factors: &[f64] = if decades > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let values = (first..=last).flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
    let inside = values.filter(|value| *value >= low * 0.999 && *value <= high * 1.001);
    inside.map(|value| (value, tick_label(value))).collect()
}

/// A round number without needless digits.
fn tick_label(value: f64) -> String {
    if value < 1.0 { significant(value, 1) } else { si_short(value) }
}

/// The next 1, 2 or 5 times a power of ten that is at least so much.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|round| *round >= value * 0.9999)
        .unwrap_or(value)
}

/// The next 1, 2 or 5 times a power of ten that is at most so much.
fn round_down(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].map(|factor| factor * power).into_iter().find(|round| *round <= value * 1.0001).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written beside an axis.
    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks().map(|(_, label)| label).collect()
    }

    #[test]
    fn linear_ends_at_a_round_number() {
        assert_eq!(labels(&Axis::linear(870_000.0)), ["0", "500 k", "1 M"]);
        assert_eq!(labels(&Axis::linear(f64::NAN)).first(), Some(&"0"));
    }

    #[test]
    fn logarithmic_has_ticks_for_one_value_and_for_many() {
        assert_eq!(labels(&Axis::logarithmic([3.0].into_iter())), ["2", "5"]);
        assert_eq!(labels(&Axis::logarithmic([0.04, 900.0].into_iter())), ["0.1", "1", "10", "100", "1 k"]);
        assert_eq!(labels(&Axis::logarithmic([0.0, f64::NAN].into_iter())), ["1", "2", "5", "10"]);
    }

    #[test]
    fn every_value_has_a_place() {
        for axis in
            [Axis::linear(0.0), Axis::logarithmic([].into_iter()), Axis::percent(), Axis::with_ticks(1.0, 1.0, vec![])]
        {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300] {
                let place = axis.place(value);
                assert!((0.0..=1.0).contains(&place), "{axis:?}: {value} lies at {place}");
            }
        }
    }
}
