//! Thresholds: what a round must reach to pass, such as `success >= 99.9% and p99 <= 50ms`.
//!
//! A threshold is one or more terms joined by `and`; a term is a metric, an operator and a number with its unit. What
//! metrics and units there are is told by [`Metric`] and by the error of a word that is none.

mod metric;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::report::number::significant;
use crate::results::{Check, Round};
use metric::{Metric, Unit};
pub use parse::SloError;

/// A threshold: all of its terms must hold.
///
/// `Display` writes it in one spelling (`p99.9` becomes `p999`, spaces become regular), which parses to the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    /// At least one.
    terms: Vec<Term>,
}

impl Slo {
    /// Judges each term by what a round found, in their order.
    ///
    /// A term whose measure does not exist in the round fails as "not measured": a percentile when nobody connected,
    /// `success` when nobody tried, `cpu` where it was not told. Without a flood the terms about the flood
    /// (`amplification`, `cpu`, `switch-in`, `switch-out`) have nothing to judge and hold, found "no flood".
    pub fn judge(&self, round: &Round) -> Vec<Check> {
        self.terms.iter().map(|term| term.judge(round)).collect()
    }
}

impl FromStr for Slo {
    type Err = SloError;

    fn from_str(text: &str) -> Result<Self, SloError> {
        parse::slo(text)
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let joiner = if i == 0 { "" } else { " and " };
            write!(f, "{joiner}{term}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Slo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// One condition: `p99 <= 50ms`.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    metric: Metric,
    operator: Operator,
    /// In `unit`.
    bound: f64,
    unit: Unit,
}

impl Term {
    /// Holds it against what a round found.
    fn judge(&self, round: &Round) -> Check {
        let (found, passed) = match self.metric.measure(round) {
            metric::Found::Value(value) => self.compare(value / self.unit.size),
            metric::Found::NoFlood => ("no flood".to_owned(), true),
            metric::Found::NotMeasured => ("not measured".to_owned(), false),
        };
        Check { threshold: self.to_string(), found: format!("{} {found}", self.metric.word()), passed }
    }

    /// Compares a value in the threshold's unit, and says what it was.
    fn compare(&self, value: f64) -> (String, bool) {
        let passed = self.operator.holds(value, self.bound);
        let found = format!("{} {}", self.digits(value, passed), self.unit.word);
        (found.trim_end().to_owned(), passed)
    }

    /// Four digits, or all of them where four would contradict the judgement: `p99 50.00 ms` fails no `p99 <= 50ms`.
    fn digits(&self, value: f64, passed: bool) -> String {
        let short = significant(value, 4);
        let agrees = short.parse().is_ok_and(|shown| self.operator.holds(shown, self.bound) == passed);
        if agrees && value.fract() != 0.0 { short } else { value.to_string() }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}{}", self.metric.word(), self.operator.word(), self.bound, self.unit.word)
    }
}

/// How the value found is compared with the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    AtLeast,
    MoreThan,
    AtMost,
    LessThan,
    Equal,
}

impl Operator {
    /// All of them, as an error lists them.
    const ALL: [Self; 5] = [Self::AtLeast, Self::MoreThan, Self::AtMost, Self::LessThan, Self::Equal];

    /// As it is written.
    fn word(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::MoreThan => ">",
            Self::AtMost => "<=",
            Self::LessThan => "<",
            Self::Equal => "=",
        }
    }

    /// Whether the value found satisfies the bound.
    fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::AtLeast => value >= bound,
            Self::MoreThan => value > bound,
            Self::AtMost => value <= bound,
            Self::LessThan => value < bound,
            Self::Equal => value == bound,
        }
    }
}
