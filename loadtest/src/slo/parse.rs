//! From text to a threshold.

use std::fmt;

use super::metric::{Metric, Unit};
use super::{Operator, Slo, Term};

/// Why a text is no threshold: where it stops making sense, and what could stand there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SloError {
    /// The character at which the word begins, from 1.
    pub column: usize,
    /// The word; empty at the end of the text.
    pub word: String,
    /// What may stand there.
    pub legal: String,
}

impl fmt::Display for SloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.word.as_str() {
            "" => write!(f, "column {}: something is missing at the end; legal: {}", self.column, self.legal),
            word => write!(f, "column {}: unexpected `{word}`; legal: {}", self.column, self.legal),
        }
    }
}

/// Reads a whole threshold.
pub(super) fn slo(text: &str) -> Result<Slo, SloError> {
    let mut scanner = Scanner { text, at: 0 };
    let mut terms = vec![term(&mut scanner)?];
    while !scanner.is_at_end() {
        joiner(&mut scanner)?;
        terms.push(term(&mut scanner)?);
    }
    Ok(Slo { terms })
}

/// `p99 <= 50ms`.
fn term(scanner: &mut Scanner<'_>) -> Result<Term, SloError> {
    let metric = metric(scanner)?;
    let operator = operator(scanner)?;
    let bound = number(scanner)?;
    let unit = unit(scanner, metric)?;
    Ok(Term { metric, operator, bound, unit })
}

/// The name of a metric.
fn metric(scanner: &mut Scanner<'_>) -> Result<Metric, SloError> {
    let start = scanner.skip_spaces();
    let word = scanner.take(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    Metric::named(word).ok_or_else(|| scanner.error(start, listed(Metric::ALL.map(Metric::word))))
}

/// A comparison.
fn operator(scanner: &mut Scanner<'_>) -> Result<Operator, SloError> {
    let start = scanner.skip_spaces();
    let word = scanner.take(|c| matches!(c, '<' | '>' | '=' | '!'));
    let found = Operator::ALL.into_iter().find(|operator| operator.word() == word);
    found.ok_or_else(|| scanner.error(start, listed(Operator::ALL.map(Operator::word))))
}

/// A number without sign or exponent: no metric is negative.
fn number(scanner: &mut Scanner<'_>) -> Result<f64, SloError> {
    let start = scanner.skip_spaces();
    let word = scanner.take(|c| c.is_ascii_digit() || c == '.');
    let value = word.parse().ok().filter(|value: &f64| value.is_finite());
    value.ok_or_else(|| scanner.error(start, "a number such as 99.9".to_owned()))
}

/// The unit of a number; nothing, where the metric has a plain one.
fn unit(scanner: &mut Scanner<'_>, metric: Metric) -> Result<Unit, SloError> {
    let start = scanner.skip_spaces();
    let word = match scanner.rest().split_whitespace().next() {
        Some("and") => "",
        _ => scanner.take(|c| c.is_alphabetic() || matches!(c, '%' | '/')),
    };
    let found = metric.units().iter().find(|unit| unit.word == word);
    found.copied().ok_or_else(|| scanner.error(start, legal_units(metric)))
}

/// `and`, between two terms.
fn joiner(scanner: &mut Scanner<'_>) -> Result<(), SloError> {
    let start = scanner.skip_spaces();
    match scanner.take(char::is_alphanumeric) {
        "and" => Ok(()),
        _ => Err(scanner.error(start, "and".to_owned())),
    }
}

/// The units of a metric for an error.
fn legal_units(metric: Metric) -> String {
    let words = metric.units().iter().map(|unit| if unit.word.is_empty() { "no unit" } else { unit.word });
    listed(words)
}

/// Words with commas between them.
fn listed(words: impl IntoIterator<Item = &'static str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

/// A place in a text.
struct Scanner<'a> {
    text: &'a str,
    /// Bytes read so far; always between two characters.
    at: usize,
}

impl<'a> Scanner<'a> {
    /// What was not read yet.
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Moves to the next word and tells where that is.
    fn skip_spaces(&mut self) -> usize {
        self.take(char::is_whitespace);
        self.at
    }

    /// Reads as many characters as fit.
    fn take(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Whether only spaces are left.
    fn is_at_end(&self) -> bool {
        self.rest().trim().is_empty()
    }

    /// The error about the word that begins at a byte.
    fn error(&self, start: usize, legal: String) -> SloError {
        // What was taken as one word is reported as one word; what nothing fits is reported up to the next space.
        let taken = self.text[start..self.at].trim_end();
        let word = if taken.is_empty() { self.text[start..].split_whitespace().next().unwrap_or("") } else { taken };
        SloError { column: self.text[..start].chars().count() + 1, word: word.to_owned(), legal }
    }
}
