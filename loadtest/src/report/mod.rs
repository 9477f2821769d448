//! What a run found, for people: tables in the terminal, plots, one HTML page; and `run.json` for programs.
//!
//! Nothing here measures or judges. All numbers come from [`Results`], so a report can be made again, on another machine, from the
//! file alone. What a person may doubt is shown with what they need to check it: repetitions with their spread, rounds in which
//! the generator was the limit with a mark, and three counts of the same flood beside each other.

mod group;
mod html;
pub mod json;
pub mod measure;
mod merge;
pub mod number;
mod plot;
mod table;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use group::BASELINE;
pub use merge::merge;

use crate::results::Results;

/// What a report consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The results themselves, for `loadtest report`.
    pub json: PathBuf,
    /// The page, which needs no other file.
    pub html: PathBuf,
    /// The table of relays in Markdown, where relays were measured.
    pub relay: Option<PathBuf>,
    /// Each plot of the page as a file of its own, for documents.
    pub plots: Vec<PathBuf>,
}

/// Why a report is not whole.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A plot could not be drawn.
    #[error("cannot draw a plot: {0}")]
    Draw(#[from] plot::DrawError),
}

/// Writes `run.json`, `report.html` and each plot as `NAME.svg` into a directory, which is made if need be.
///
/// `run.json` comes first: whatever goes wrong later, the measurements are safe.
pub fn write(dir: &Path, results: &Results) -> Result<Written, ReportError> {
    fs::create_dir_all(dir).map_err(|source| ReportError::Io { path: dir.to_owned(), source })?;
    let json = dir.join("run.json");
    json::write(&json, results).map_err(|source| ReportError::Io { path: json.clone(), source })?;
    let plots = plot::all(results)?;
    let html = write_text(dir.join("report.html"), &html::page(results, &plots, BASELINE))?;
    let write_plot = |plot: &plot::Plot| write_text(dir.join(format!("{}.svg", plot.name)), &plot.svg);
    let plots = plots.iter().flatten().map(write_plot).collect::<Result<_, _>>()?;
    let relay = table::relay(&results.relay);
    let relay = relay.map(|table| write_text(dir.join("relay.md"), &table.to_markdown())).transpose()?;
    Ok(Written { json, html, relay, plots })
}

/// The tables of all scenarios as text. `baseline` names the alternative to compare with ([`BASELINE`]); `colour` is for a terminal.
pub fn summary(results: &Results, baseline: &str, colour: bool) -> String {
    let tables = results.scenarios.iter().flat_map(|scenario| table::tables(scenario, baseline));
    tables.chain(table::relay(&results.relay)).map(|table| table.to_text(colour)).collect::<Vec<_>>().join("\n")
}

/// Writes one text file and gives its path.
fn write_text(path: PathBuf, text: &str) -> Result<PathBuf, ReportError> {
    match json::write_atomically(&path, |out| out.write_all(text.as_bytes())) {
        Ok(()) => Ok(path),
        Err(source) => Err(ReportError::Io { path, source }),
    }
}
