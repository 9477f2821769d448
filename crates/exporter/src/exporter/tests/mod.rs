//! What `/metrics` shows.

mod census;
mod format;
mod series;
mod surroundings;

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::testing::{FakeSockets, FakeSource, Scrape, exporter, reporter};

fn web() -> Arc<FakeSource> {
    FakeSource::new("web", "raw", "198.18.0.1:80")
}

/// Makes the next scrape run the collectors again, as a second's wait would.
fn let_it_age(exporter: &Exporter) {
    exporter.reporter().census.age(crate::census::AGE_MAX);
}

/// Nothing is wrong; and `--extended`, which always prints its table of cardinalities, has no complaint beside it.
fn promtool_check_metrics(text: &str) {
    let (said, complaints) = promtool(&["check", "metrics"], text);
    assert!(said.is_empty() && complaints.is_empty(), "{said}{complaints}\n{text}");
    let (table, complaints) = promtool(&["check", "metrics", "--extended"], text);
    assert!(complaints.is_empty(), "{complaints}");
    let mut names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert!(names.all(|name| table.contains(name)), "{table}");
}

/// What it prints to standard output and error.
fn promtool(args: &[&str], text: &str) -> (String, String) {
    let mut promtool = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool must be installed (Debian: apt-get install prometheus)");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let [said, complaints] = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success(), "promtool: {}\n{said}{complaints}\n{text}", output.status);
    (said, complaints)
}
