//! Tables: made once here, and written as text for a terminal or as HTML.

mod compare;
mod costs;
mod relay;
mod run;
mod text;

pub use compare::compare;
use costs::costs;
pub use relay::relay;
pub use run::{all_rounds, cross_check, failures, run};

use crate::report::group;
use crate::report::number::NOTHING;
use crate::results::ScenarioResults;

/// A table of words and numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// The titles of the columns. The first column is words, the others are numbers.
    pub columns: Vec<String>,
    /// Each as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
    /// Sentences to be read with it.
    pub notes: Vec<String>,
}

/// One field of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// Whether it is good news.
    pub tone: Tone,
}

/// Whether a field is good news; shown as a colour beside the word, never instead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Neither.
    Plain,
    /// A threshold holds.
    Good,
    /// A threshold does not.
    Bad,
}

impl Cell {
    /// A field without judgement.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }

    /// A number that may be missing.
    fn number(value: Option<f64>, format: fn(f64) -> String) -> Self {
        Self::plain(value.map_or_else(|| NOTHING.to_owned(), format))
    }

    /// How many thresholds hold: `pass`, `FAIL 1/3` when one does not, nothing when there are none.
    fn verdict(failed: usize, total: usize) -> Self {
        match (failed, total) {
            (_, 0) => Self::plain(NOTHING),
            (0, _) => Self { text: "pass".to_owned(), tone: Tone::Good },
            (failed, total) => Self { text: format!("FAIL {failed}/{total}"), tone: Tone::Bad },
        }
    }
}

/// Marks a figure that is about the generator.
const LIMITED_MARK: &str = "*";

/// The footnote of [`LIMITED_MARK`].
const LIMITED_NOTE: &str = "* the generator, not the target, was the limit";

/// The tables of a scenario: one alternative round by round, or several side by side; and what it cost.
pub fn tables(scenario: &ScenarioResults, baseline: &str) -> Vec<Table> {
    match group::alternatives(scenario).len() {
        0 => vec![run(scenario)],
        1 => vec![run(scenario), costs(scenario)],
        _ => compare(scenario, baseline).into_iter().chain([costs(scenario)]).collect(),
    }
}
