//! docs/runbooks: one for each alert, and nothing in them that is not there.

use std::collections::BTreeSet;
use std::fs;

use super::{exposition, files, promql, rules};
use crate::binary;

const RUNBOOKS: &str = "docs/runbooks";
/// The sections of a runbook, in order.
const SECTIONS: [&str; 4] = ["What it means", "What to look at", "What to do", "When it ends"];
/// Programs of the host that runbooks use.
const TOOLS: [&str; 4] = ["curl", "journalctl", "ps", "ss"];
/// Words in code that are no key, metric, label or command, and what they are.
const OTHER_WORDS: [(&str, &str); 13] = [
    ("displace", "a value of limits.at_limit"),
    ("queue", "a value of limits.at_limit"),
    ("silent", "a value of limits.at_limit"),
    ("always", "a value of cookies.accept"),
    ("when_expected", "a value of cookies.accept"),
    ("auto", "a datapath"),
    ("bpf", "a datapath"),
    ("raw", "a datapath"),
    ("kernel", "a datapath"),
    ("behind", "a part of what `portcullis ctl status` shows"),
    ("portcullis", "the job in deploy/prometheus/prometheus.yml"),
    ("for", "a key of an alert"),
    ("AF_NETLINK", "the address family of netlink sockets"),
];

fn runbooks() -> Vec<String> {
    files::in_directory(RUNBOOKS, ".md")
}

/// What stands in blocks of code of this kind, line by line.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let (mut lines, mut inside) = (Vec::new(), None);
    for line in text.lines().map(str::trim) {
        match (line.strip_prefix("```"), inside) {
            (Some(opened), None) => inside = Some(opened),
            (Some(_), Some(_)) => inside = None,
            (None, Some(opened)) if opened == kind => lines.push(line),
            (None, _) => {}
        }
    }
    assert!(inside.is_none(), "a block of code has no end");
    lines
}

/// What stands between single backticks, outside of blocks.
fn inline_code(text: &str) -> Vec<&str> {
    text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect()
}

/// Every key of the configuration as it is written in prose: without `listener`, with its table.
fn keys() -> BTreeSet<String> {
    let shown = binary::stdout(&binary::output(&["config", "--print-default"]));
    let (mut keys, mut table) = (BTreeSet::new(), String::new());
    for line in shown.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_matches(['[', ']']).trim_start_matches("listener").trim_start_matches('.').to_owned();
        }
        let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") else { continue };
        if key.chars().all(|char| char.is_ascii_lowercase() || char == '_') {
            keys.insert(if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") });
        }
    }
    assert!(
        keys.contains("half_open.max") && keys.contains("connections_max") && keys.contains("master_key_file"),
        "{keys:?}"
    );
    keys
}

/// Whether the binary takes this command, up to asking for its help instead of doing it.
fn expect_command(runbook: &str, command: &str) {
    let arguments: Vec<&str> = command.split_whitespace().skip(1).chain(["--help"]).collect();
    let output = binary::output(&arguments);
    assert_eq!(binary::code(&output), 0, "{runbook}: {command}\n{}", binary::stderr(&output));
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let written: BTreeSet<String> =
        runbooks().iter().map(|path| files::stem(path).to_owned()).filter(|name| name != "README").collect();
    let alerts = rules::alerts();
    assert_eq!(written, alerts.keys().cloned().collect());
    let index = files::text("docs/runbooks/README.md");
    for (name, alert) in alerts {
        let severity = files::string(&alert["labels"], "severity");
        assert!(
            index.contains(&format!("| [{name}]({name}.md) | {severity} |")),
            "{name}, {severity}: not in the index"
        );
    }
}

#[test]
fn every_runbook_has_the_same_sections() {
    for path in runbooks().iter().filter(|path| !path.ends_with("README.md")) {
        let text = files::text(path);
        assert_eq!(text.lines().next(), Some(format!("# {}", files::stem(path)).as_str()));
        let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, SECTIONS, "{path}");
    }
}

#[test]
fn commands_in_runbooks_are_commands() {
    let mut seen = 0;
    for path in runbooks() {
        let text = files::text(&path);
        for line in blocks(&text, "console") {
            let command = line.strip_prefix("# ").or_else(|| line.strip_prefix("$ "));
            let command = command.unwrap_or_else(|| panic!("{path}: output was not asked for: {line}"));
            if command.starts_with("portcullis ") {
                expect_command(&path, command);
                seen += 1;
            } else {
                assert!(TOOLS.iter().any(|tool| command.starts_with(&format!("{tool} "))), "{path}: {command}");
            }
        }
        for command in inline_code(&text).into_iter().filter(|code| code.starts_with("portcullis ")) {
            expect_command(&path, command);
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} commands were found");
}

#[test]
fn a_command_that_is_none_is_found() {
    let refused = std::panic::catch_unwind(|| expect_command("a runbook", "portcullis ctl reboot"));
    assert!(refused.is_err());
}

#[test]
fn words_in_code_are_keys_metrics_or_values() {
    let (keys, metrics, values, records) = (keys(), exposition::names(), exposition::label_values(), rules::records());
    let labels = ["reason", "state", "server", "collector"];
    for path in runbooks() {
        let text = files::text(&path);
        for code in inline_code(&text) {
            let known = keys.contains(code)
                || values.contains(code)
                || labels.contains(&code)
                || OTHER_WORDS.iter().any(|(word, _)| *word == code)
                || code.starts_with("portcullis ")
                // What belongs to the host or lies in the repository is not ours to know, or is looked for here.
                || code.starts_with("net.")
                || code == "/proc"
                || code == "grafana.example.com"
                || (code.starts_with("deploy/") && files::path(code).exists());
            let series = promql::selectors(code);
            let known = known
                || !series.is_empty()
                    && series.iter().all(|one| metrics.contains(one.name) || records.contains(one.name));
            assert!(known, "{path}: `{code}` is nothing that is known here");
        }
    }
}

#[test]
fn lines_of_the_log_are_lines_of_the_source() {
    let mut sources = String::new();
    for directory in ["crates/listener/src", "crates/connection/src", "crates/exporter/src", "crates/portcullis/src"] {
        read_all(&files::path(directory), &mut sources);
    }
    let mut seen = 0;
    for path in runbooks() {
        for line in blocks(&files::text(&path), "text") {
            assert!(sources.contains(line), "{path}: nothing logs {line:?}");
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} lines were found");
}

fn read_all(directory: &std::path::Path, into: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_all(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).expect("a source"));
        }
    }
}

#[test]
fn links_in_runbooks_lead_somewhere() {
    for path in runbooks() {
        let text = files::text(&path);
        // A link may be broken over two lines.
        for target in text.split("](").skip(1).map(|rest| rest.split(')').next().expect("a target")) {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = format!("{RUNBOOKS}/{file}");
            let headings = files::text(&file);
            let slugs = headings.lines().filter(|line| line.starts_with('#')).map(slug);
            assert!(anchor.is_empty() || slugs.into_iter().any(|slug| slug == anchor), "{path}: {target}");
        }
    }
}

/// The anchor that the usual renderers make of a heading.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words
        .chars()
        .filter(|char| char.is_alphanumeric() || "-_ ".contains(*char))
        .map(|char| if char == ' ' { '-' } else { char })
        .collect()
}
