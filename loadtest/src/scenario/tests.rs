//! Scenarios that are good, and what is said of those that are not.

use std::path::{Path, PathBuf};

use super::{Scenario, expand};
use crate::target::Alternative;

const SMALL: &str = "name = \"small\"\n[flood]\nkind = \"syn\"\nrates = [0, 1000, \"max\"]\n";

#[test]
fn all_that_come_with_the_lab_are_good() {
    let files = expand(&[PathBuf::from("scenarios/*.toml")]);
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        let scenario = Scenario::load(&file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(Some(scenario.name.as_str()), file.file_stem().and_then(|stem| stem.to_str()));
        assert!(!scenario.description.is_empty() && !scenario.rounds(Alternative::Haproxy, 0).is_empty());
    }
}

#[test]
fn each_rate_is_a_round_and_zero_is_none() {
    let rounds = Scenario::parse(SMALL).unwrap().rounds(Alternative::Haproxy, 2);
    let rates: Vec<_> = rounds.iter().map(|round| round.flood_rate).collect();
    assert_eq!(rates, [Some(0.0), Some(1000.0), None]);
    assert!(rounds[0].phases[0].floods.is_empty() && rounds[0].flood_kind.is_empty());
    assert_eq!((rounds[1].flood_kind.as_str(), rounds[1].repetition), ("syn", 2));
}

#[test]
fn stages_are_one_round() {
    let text = "name = \"s\"\n[[stages]]\nseconds = 1\n[[stages]]\nseconds = 2\n\
                floods = [{ kind = \"syn\", rates = [10] }, { kind = \"ack\", rates = [20] }]\n";
    let rounds = Scenario::parse(text).unwrap().rounds(Alternative::Haproxy, 0);
    assert_eq!(rounds.len(), 1);
    assert_eq!((rounds[0].flood_kind.as_str(), rounds[0].flood_rate), ("syn+ack", Some(30.0)));
    assert_eq!(rounds[0].phases.len(), 2);
}

#[test]
fn what_is_wrong_is_named() {
    for (text, words) in [
        ("name = 1", "expected a string"),
        ("name = \"x\"", "neither [flood] nor [[stages]]"),
        (&format!("secnds = 3\n{SMALL}"), "secnds"),
        (&format!("seconds = 0\n{SMALL}"), "seconds = 0: legal is more than 0"),
        (&format!("alternatives = [\"apache\"]\n{SMALL}"), "no alternative is called \"apache\""),
        (&format!("pass = [\"luck >= 3\"]\n{SMALL}"), "luck"),
        (&SMALL.replace("1000", "-1"), "0 or more, or \"max\""),
        (&SMALL.replace("\"syn\"", "\"sin\""), "sin"),
        (&SMALL.replace("[0, 1000, \"max\"]", "[]"), "at least one"),
        (&format!("{SMALL}[clients]\nbytes = 0\n"), "clients.bytes = 0: legal is 1 to"),
        (&SMALL.replace("small", ""), "name = \"\": legal are 1 to 64 bytes"),
        (&SMALL.replace("1000", "1e300"), "legal is 0 to 1e9, or \"max\""),
        (&format!("{SMALL}[target]\nbacklog = 4294967295\n"), "target.backlog = 4294967295: legal is 1 to 2147483647"),
        (&format!("{SMALL}[target]\nhalf-open = 0\n"), "target.half-open = 0: legal is 1 to"),
        (&format!("{SMALL}[target]\nhalf-open = 100000000000\n"), "target.half-open = 100000000000: legal is 1 to"),
        (&format!("{SMALL}[clients]\nrate = 100000\nbytes = 16777216\n"), "clients.rate times clients.bytes"),
        (&format!("{SMALL}[[stages]]\nseconds = 1\n"), "not both"),
    ] {
        let why = Scenario::parse(text).expect_err(text);
        assert!(why.contains(words), "of {text:?}: {why}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Scenario::load(Path::new("scenarios/none.toml")).unwrap_err().to_string();
    assert!(error.contains("scenarios/none.toml"), "{error}");
}
