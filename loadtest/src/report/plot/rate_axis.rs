//! The axis of the flood's rate: none, rising, as much as possible.

use super::axis::Axis;
use crate::report::group::Spread;
use crate::report::number::si_short;

/// Rates on a logarithmic axis, with a place for none at the left.
pub struct RateAxis {
    /// Where no flood stands.
    pub zero: f64,
    /// The least and the most, as logarithms.
    ends: (f64, f64),
    /// The rates that were asked for, rising.
    asked: Vec<f64>,
    /// Whether there are points without a flood.
    quiet: bool,
}

impl RateAxis {
    /// For points at these places (logarithms, `None` without a flood), some of them at rates that were asked for.
    pub fn new(places: impl Iterator<Item = Option<f64>> + Clone, asked: impl Iterator<Item = f64>) -> Self {
        let spread = Spread::over(places.clone().flatten());
        let ends = spread.map_or((3.0, 6.0), |spread| (spread.min, spread.max));
        let mut asked: Vec<f64> = asked.filter(|rate| rate.log10().is_finite()).collect();
        asked.sort_by(f64::total_cmp);
        asked.dedup();
        Self { zero: ends.0 - 0.7, ends, asked, quiet: places.into_iter().any(|place| place.is_none()) }
    }

    /// From none, or the least, to the most, with the rates asked for as ticks, and powers of ten where there is room.
    pub fn axis(&self) -> Axis {
        let (low, high) = (if self.quiet { self.zero } else { self.ends.0 } - 0.25, self.ends.1 + 0.25);
        let room = (high - low) * 0.085;
        let mut ticks: Vec<(f64, String)> = Vec::new();
        let powers = (0..16).map(|power| 10_f64.powi(power));
        for rate in self.asked.iter().copied().chain(powers) {
            let x = rate.log10();
            let fits = ticks.iter().all(|(other, _)| (x - other).abs() >= room);
            if fits && x >= self.ends.0 - 1e-9 && x <= high {
                ticks.push((x, si_short(rate)));
            }
        }
        if self.quiet {
            ticks.push((self.zero, "0".to_owned()));
        }
        Axis::with_ticks(low, high, ticks)
    }
}
