//! The rounds of a scenario, sorted into what is compared with what.

use crate::report::measure;
use crate::report::number::si_short;
use crate::results::{Round, ScenarioResults};

/// The alternative that others are held against where nobody names one: what a server without any of this has today.
pub const BASELINE: &str = "kernel-cookies-1";

/// A number that a round may have.
pub type Measure = fn(&Round) -> Option<f64>;

/// How much flood was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// None.
    Quiet,
    /// So many frames per second.
    Asked(f64),
    /// As many as the generator can.
    Max,
}

impl Rate {
    /// Of a round.
    pub fn of(round: &Round) -> Self {
        match round.flood_rate {
            _ if !measure::has_flood(round) => Self::Quiet,
            Some(rate) if rate.is_finite() => Self::Asked(rate),
            _ => Self::Max,
        }
    }

    /// `0`, `100 k/s`, `max`.
    pub fn label(self) -> String {
        match self {
            Self::Quiet => "0".to_owned(),
            Self::Asked(rate) => format!("{}/s", si_short(rate)),
            Self::Max => "max".to_owned(),
        }
    }

    /// Rises with the flood.
    fn order(self) -> f64 {
        match self {
            Self::Quiet => 0.0,
            Self::Asked(rate) => rate,
            Self::Max => f64::INFINITY,
        }
    }
}

/// One flood, met by every alternative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case<'a> {
    /// What it is made of; empty without a flood.
    pub kind: &'a str,
    /// How much.
    pub rate: Rate,
}

impl<'a> Case<'a> {
    /// Of a round.
    pub fn of(round: &'a Round) -> Self {
        match Rate::of(round) {
            Rate::Quiet => Self { kind: "", rate: Rate::Quiet },
            rate => Self { kind: &round.flood_kind, rate },
        }
    }

    /// `no flood`, `syn flood, 100 k/s`.
    pub fn label(self) -> String {
        match self.rate {
            Rate::Quiet => "no flood".to_owned(),
            rate => format!("{} flood, {}", self.kind, rate.label()).trim_start().to_owned(),
        }
    }

    /// The rounds of one alternative in this case.
    pub fn rounds(self, scenario: &'a ScenarioResults, alternative: &str) -> Vec<&'a Round> {
        scenario.rounds.iter().filter(|round| round.alternative == alternative && Case::of(round) == self).collect()
    }
}

/// The cases of a scenario: without a flood first, then kind by kind in the order they came, rates rising.
pub fn cases(scenario: &ScenarioResults) -> Vec<Case<'_>> {
    let kinds = kinds(scenario);
    let mut cases = unique(scenario.rounds.iter().map(Case::of));
    let place = |case: &Case<'_>| kinds.iter().position(|kind| *kind == case.kind && case.rate != Rate::Quiet);
    cases.sort_by(|a, b| place(a).cmp(&place(b)).then(a.rate.order().total_cmp(&b.rate.order())));
    cases
}

/// What the floods of a scenario were made of, in the order they came.
pub fn kinds(scenario: &ScenarioResults) -> Vec<&str> {
    unique(scenario.rounds.iter().map(Case::of).filter(|case| case.rate != Rate::Quiet).map(|case| case.kind))
}

/// The alternatives of a scenario in the order they came.
pub fn alternatives(scenario: &ScenarioResults) -> Vec<&str> {
    unique(scenario.rounds.iter().map(|round| round.alternative.as_str()))
}

/// The alternative that others are held against: the one of that name, or of that name in one of several merged files.
pub fn baseline<'a>(scenario: &'a ScenarioResults, name: &str) -> Option<&'a str> {
    let all = alternatives(scenario);
    let in_a_file = format!("{name} (");
    let exact = all.iter().find(|other| **other == name);
    exact.or_else(|| all.iter().find(|other| other.starts_with(&in_a_file))).copied()
}

/// The median of repetitions, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one; the mean of the two in the middle of an even number.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of a measure over some rounds; `None` where no round has it.
    pub fn of(rounds: &[&Round], measure: Measure) -> Option<Self> {
        Self::over(rounds.iter().filter_map(|round| measure(round)))
    }

    /// Of some numbers; those that are none do not count.
    pub fn over(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, min, max })
    }
}

/// The round in the middle by some measure: the one to show where only one is shown.
pub fn middle<'a>(rounds: &[&'a Round], measure: Measure) -> Option<&'a Round> {
    let mut sorted = rounds.to_vec();
    // A round without the measure is worse than any with it; so it does not hide the others.
    sorted.sort_by(|a, b| order(measure(a)).total_cmp(&order(measure(b))));
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// Where a measure stands among others.
fn order(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::INFINITY)
}

/// The median over repetitions of one alternative's measure in units of another's in the same repetition.
///
/// Pairs are formed first because what disturbs a machine disturbs neighbouring rounds alike.
pub fn paired_ratio(rounds: &[&Round], baseline: &[&Round], measure: Measure) -> Option<f64> {
    let ratio = |round: &&Round| {
        let other = baseline.iter().find(|other| other.repetition == round.repetition)?;
        Some(measure(round)? / measure(other)?)
    };
    Spread::over(rounds.iter().filter_map(ratio)).map(|spread| spread.median)
}

/// Each value once, in the order they came. Quadratic; there are dozens.
fn unique<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut unique = Vec::new();
    for value in values {
        if !unique.contains(&value) {
            unique.push(value);
        }
    }
    unique
}
