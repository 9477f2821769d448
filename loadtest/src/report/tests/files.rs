//! Files: written, read, merged.

use std::fs;
use std::path::PathBuf;

use super::made_up::{comparison, hopeless, results, scenario, single};
use crate::report::{ReportError, json, merge, write};
use crate::results::{FORMAT, Results};

/// A directory that is gone when the test ends.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("loadtest-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// A file in it with this content.
    fn file(&self, content: &str) -> PathBuf {
        let path = self.0.join("run.json");
        fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The names of the alternatives of the first scenario.
fn alternatives(results: &Results) -> Vec<&str> {
    crate::report::group::alternatives(&results.scenarios[0])
}

#[test]
fn what_is_written_can_be_read() {
    let dir = Directory::new("round-trip");
    let path = dir.0.join("run.json");
    let results = comparison();
    json::write(&path, &results).expect("written");
    assert_eq!(json::read(&path).expect("read").scenarios[0].rounds.len(), results.scenarios[0].rounds.len());
    assert_eq!(fs::read_dir(&dir.0).expect("a directory").count(), 1, "something is left beside the file");
}

#[test]
fn numbers_that_are_none_can_be_read_again() {
    let dir = Directory::new("nan");
    let path = dir.0.join("run.json");
    json::write(&path, &results(vec![scenario("odd", vec![hopeless()])])).expect("written");
    let round = &json::read(&path).expect("read").scenarios[0].rounds[0];
    assert_eq!((round.seconds, round.flood_rate, round.target.cpu_ns_per_frame), (0.0, None, None));
}

#[test]
fn a_read_error_names_file_line_and_column() {
    let dir = Directory::new("broken");
    let path = dir.file("{\n  \"format\": 1,\n  \"command\": 7\n}");
    let error = json::read(&path).expect_err("no results").to_string();
    assert!(error.starts_with(&format!("{}:3:", path.display())), "{error}");
    let error = json::read(&dir.0.join("absent.json")).expect_err("no file").to_string();
    assert!(error.contains("cannot read") && error.contains("absent.json"), "{error}");
}

#[test]
fn another_format_is_refused_by_its_number() {
    let dir = Directory::new("format");
    let path = dir.file("{\"format\": 99, \"rounds\": []}");
    let error = json::read(&path).expect_err("another format").to_string();
    assert!(error.ends_with(&format!("format 99, but this program reads format {FORMAT}")), "{error}");
}

#[test]
fn a_report_is_all_of_its_files() {
    let dir = Directory::new("report");
    let written = write(&dir.0.join("new"), &comparison()).expect("a report");
    let all: Vec<_> = [&written.json, &written.html].into_iter().chain(&written.plots).collect();
    assert!(all.iter().all(|path| path.is_file()));
    assert!(written.plots.len() > 10);
    assert_eq!(fs::read_dir(dir.0.join("new")).expect("a directory").count(), all.len());
}

#[test]
fn a_report_that_cannot_be_written_says_where() {
    let dir = Directory::new("refused");
    let file = dir.file("");
    let error = write(&file, &single()).expect_err("a file is no directory");
    assert!(matches!(&error, ReportError::Io { path, .. } if *path == file), "{error}");
}

#[test]
fn merge_tells_equal_names_apart_by_file() {
    let merged = merge(vec![("out/before.json".into(), single()), ("out/after.json".into(), single())]);
    assert_eq!(merged.scenarios.len(), 1);
    assert_eq!(alternatives(&merged), ["portcullis-bpf (before)", "portcullis-bpf (after)"]);
}

#[test]
fn merge_of_files_with_one_name_takes_the_directory() {
    let merged = merge(vec![("before/run.json".into(), single()), ("after/run.json".into(), single())]);
    assert_eq!(alternatives(&merged), ["portcullis-bpf (before)", "portcullis-bpf (after)"]);
    let same = merge(vec![("run.json".into(), single()), ("run.json".into(), single())]);
    assert_eq!(alternatives(&same), ["portcullis-bpf (run.json #1)", "portcullis-bpf (run.json #2)"]);
}

#[test]
fn merge_leaves_different_names_alone() {
    let mut other = single();
    other.scenarios[0].rounds.iter_mut().for_each(|round| round.alternative = "haproxy".to_owned());
    let merged = merge(vec![("a.json".into(), single()), ("b.json".into(), other)]);
    assert_eq!(alternatives(&merged), ["portcullis-bpf", "haproxy"]);
    assert_eq!(merged.machine.placement.len(), 2, "the same sentences stand twice");
}

#[test]
fn merge_of_one_or_none_changes_nothing() {
    assert_eq!(merge(vec![("a.json".into(), single())]), single());
    assert!(merge(vec![]).scenarios.is_empty());
}
