//! `run.json`: written whole or not at all, and read with an error that shows the place.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::results::{FORMAT, Quantiles, Results, Round, Sample};

/// Why a file could not be read as results.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be read at all.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what this program writes.
    #[error("{}:{}:{}: {source}", path.display(), source.line(), source.column())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// Another version of this program wrote it.
    #[error("{}: format {found}, but this program reads format {FORMAT}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The number it has.
        found: u32,
    },
}

/// Writes results to a file; whoever reads it meanwhile sees the old one or the new one.
///
/// JSON has no word for a number that is none (0/0). Such numbers become 0, or absent where they may be, because a file that
/// could not be read again would lose a whole night of measurements.
pub fn write(path: &Path, results: &Results) -> io::Result<()> {
    let mut results = results.clone();
    results.scenarios.iter_mut().flat_map(|scenario| &mut scenario.rounds).for_each(make_finite);
    write_atomically(path, |out| Ok(serde_json::to_writer_pretty(out, &results)?))
}

/// Writes a file under another name in the same directory, then gives it its name.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let unfinished = unfinished_name(path);
    let outcome = fill_and_sync(&unfinished, fill).and_then(|()| fs::rename(&unfinished, path));
    if outcome.is_err() {
        // The first error is the one to tell; what is left behind is a matter of tidiness.
        let _ = fs::remove_file(&unfinished);
    }
    outcome
}

/// Reads results of this format.
pub fn read(path: &Path) -> Result<Results, ReadError> {
    let text = fs::read_to_string(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    let parse_error = |source| ReadError::Parse { path: path.to_owned(), source };
    // The number first: of another format, the first unknown field would be a puzzle instead of an answer.
    let Header { format } = serde_json::from_str(&text).map_err(parse_error)?;
    if format != FORMAT {
        return Err(ReadError::Format { path: path.to_owned(), found: format });
    }
    serde_json::from_str(&text).map_err(parse_error)
}

/// The part that every format has.
#[derive(Deserialize)]
struct Header {
    /// See [`FORMAT`].
    format: u32,
}

/// Beside the file, and by the process's number out of the way of another one that writes the same.
fn unfinished_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    name.into()
}

/// A new file whose content is on the disk when this returns.
fn fill_and_sync(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    fill(&mut out)?;
    out.into_inner()?.sync_all()
}

/// Every number of a round.
fn make_finite(round: &mut Round) {
    round.flood_rate = round.flood_rate.filter(|rate| rate.is_finite());
    finite([&mut round.seconds]);
    finite(quantiles(&mut round.clients.connect_us));
    finite(quantiles(&mut round.clients.total_us));
    finite(round.clients.connect_curve.iter_mut().map(|(_, fraction)| fraction));
    let target = &mut round.target;
    finite([&mut target.cpu_user_s, &mut target.cpu_system_s, &mut target.cpu_softirq_s]);
    for value in [
        &mut target.cpu_ns_per_frame,
        &mut target.bytes_per_half_open,
        &mut target.switch_in_ms,
        &mut target.switch_out_ms,
    ] {
        *value = value.filter(|value| value.is_finite());
    }
    finite(round.series.iter_mut().flat_map(sample));
}

/// The numbers of a distribution.
fn quantiles(q: &mut Quantiles) -> [&mut f64; 5] {
    [&mut q.p50, &mut q.p90, &mut q.p99, &mut q.p999, &mut q.max]
}

/// The numbers of a sample.
fn sample(s: &mut Sample) -> [&mut f64; 6] {
    [&mut s.at_s, &mut s.sent_pps, &mut s.received_pps, &mut s.replies_pps, &mut s.connect_max_us, &mut s.busy]
}

/// Sets what is no number to 0.
fn finite<'a>(values: impl IntoIterator<Item = &'a mut f64>) {
    values.into_iter().filter(|value| !value.is_finite()).for_each(|value| *value = 0.0);
}
