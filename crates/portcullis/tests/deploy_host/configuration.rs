//! The configuration that the package installs.

use std::collections::BTreeSet;

use super::binary::{TempFile, code, output, stderr, stdout};
use super::text_of;

const EXAMPLE: &str = "deploy/portcullis.toml";

/// Whether a line, its comment sign taken off, is TOML and not a sentence.
fn is_setting(line: &str) -> bool {
    let key = line.split_once(" = ").map_or("", |(key, _)| key);
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    is_key || (line.starts_with('[') && line.ends_with(']'))
}

/// With everything in force that the file has as a comment.
fn all_in_force() -> String {
    let uncommented = |line: &str| match line.strip_prefix("# ") {
        Some(setting) if is_setting(setting) => setting.to_owned(),
        _ => line.to_owned(),
    };
    text_of(EXAMPLE).lines().map(|line| uncommented(line) + "\n").collect()
}

fn keys(text: &str) -> BTreeSet<String> {
    let uncommented = text.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
    let settings = uncommented.filter(|line| is_setting(line) && !line.starts_with('['));
    settings.filter_map(|line| line.split_once(" = ")).map(|(key, _)| key.to_owned()).collect()
}

#[test]
fn example_as_installed_is_good() {
    let file = TempFile::new(&text_of(EXAMPLE));
    let output = output(&["check", file.path()]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("good, 1 listener"), "{}", stdout(&output));
}

#[test]
fn example_with_every_comment_in_force_is_good() {
    let text = all_in_force();
    assert!(text.contains("\nupstreams = ") && text.contains("\n[listener.timeouts]"), "{text}");
    let file = TempFile::new(&text);
    let output = output(&["check", file.path()]);
    assert_eq!(code(&output), 0, "{}{text}", stderr(&output));
    assert!(stdout(&output).contains("good, 2 listeners"), "{}", stdout(&output));
}

#[test]
fn example_keys_are_documented_by_the_program() {
    let known = keys(&stdout(&output(&["config", "--print-default"])));
    let used = keys(&text_of(EXAMPLE));
    assert!(used.len() > 10, "{used:?}");
    assert!(used.is_subset(&known), "unknown: {:?}", used.difference(&known));
}

#[test]
fn example_guards_loopback_alone() {
    let table: toml::Table = text_of(EXAMPLE).parse().unwrap();
    let bind = table["listener"][0]["bind"].as_array().unwrap();
    assert!(bind.iter().all(|addr| addr.as_str().unwrap().starts_with("127.")), "a package opens no port: {bind:?}");
    assert!(table["admin"].as_str().unwrap().starts_with("127."), "nor this: {}", table["admin"]);
}

#[test]
fn what_an_upgrade_ends_is_told_with_the_times_that_are_the_defaults() {
    let install = text_of("docs/install.md");
    let (_, told) = install.split_once("### What an upgrade ends").expect("that section");
    let default: toml::Table = stdout(&output(&["config", "--print-default"])).parse().unwrap();
    let times = [
        ("drain_idle_seconds", &default["listener"][0]["timeouts"]["drain_idle_seconds"]),
        ("shutdown_deadline_seconds", &default["shutdown_deadline_seconds"]),
    ];
    let example = text_of(EXAMPLE);
    for (key, default) in times {
        assert!(told.contains(&format!("`{key}` ({default})")), "{key} of {default} s");
        assert!(example.contains(&format!("# {key} = {default}\n")), "{key} of {default} s in {EXAMPLE}");
    }
    for (name, text) in [("docs/install.md", &install), (EXAMPLE, &example)] {
        assert!(!text.contains("without a lost connection"), "{name}: a restart ends connections in the end");
    }
}
