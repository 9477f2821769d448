//! The page.

use super::made_up::{comparison, hopeless, results, scenario, single};
use crate::report::{BASELINE, html, plot};
use crate::results::{Results, Round};

/// The page of some results.
fn page(results: &Results) -> String {
    html::page(results, &plot::all(results).expect("plots"), BASELINE)
}

/// Checks that every element that begins ends, in the right order, and that no `<` or `&` stands for itself.
pub fn assert_balanced(markup: &str) {
    let mut open: Vec<&str> = Vec::new();
    for piece in markup.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("no end of <{piece}"));
        assert!(!text.contains('>'), "a bare > in {text:?}");
        assert_entities(text);
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "</{name}> ends another element"),
            None if tag.ends_with('/') || tag.starts_with('!') => {}
            None => open.push(tag.split_whitespace().next().unwrap_or_default()),
        }
    }
    assert!(open.is_empty(), "{open:?} do not end");
}

/// Checks that each `&` begins an entity that this program writes.
fn assert_entities(text: &str) {
    for rest in text.split('&').skip(1) {
        let name = rest.split_once(';').map(|(name, _)| name);
        assert!(matches!(name, Some("amp" | "lt" | "gt" | "quot" | "apos" | "#39")), "a bare & before {rest:?}");
    }
}

#[test]
fn it_is_well_formed_and_needs_nothing_from_outside() {
    for results in [comparison(), single(), results(vec![])] {
        let page = page(&results);
        assert_balanced(&page);
        for outside in ["http://", "https://", "<script", "<link", "url(", "@import", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}

#[test]
fn it_says_where_and_how() {
    let page = page(&comparison());
    let parts = [
        "AMD EPYC 7763, 2 cores",
        "8.00 GiB",
        "6.1.0-28-amd64",
        "2026-11-21 21:39 UTC",
        "The flood runs on core 0.",
        "<pre>loadtest compare scenarios/syn.toml --repetitions 3</pre>",
        "<h2>syn-flood</h2>",
        "Spoofed SYNs against one port",
        "<code>success &gt;= 99.9%</code> <span class=\"bad\">FAIL</span>",
        "The flood, counted three ways",
    ];
    for part in parts {
        assert!(page.contains(part), "{part} is missing");
    }
}

#[test]
fn failed_checks_come_first() {
    let page = page(&comparison());
    let (failed, first_scenario) = (page.find("Failed checks"), page.find("<h2>syn-flood"));
    assert!(failed.is_some() && failed < first_scenario);
}

#[test]
fn all_passed_is_said() {
    let mut good = single();
    good.scenarios[0].rounds.truncate(2);
    assert!(page(&good).contains("All 4 checks pass."));
}

#[test]
fn all_text_is_escaped() {
    let evil = "<script>alert(\"1\")</script>&'\u{0}\x1b";
    let mut results = single();
    results.command = evil.to_owned();
    results.machine.cpu = evil.to_owned();
    results.machine.kernel = evil.to_owned();
    results.machine.placement = vec![evil.to_owned()];
    let scenario = &mut results.scenarios[0];
    (scenario.name, scenario.description) = (evil.to_owned(), evil.to_owned());
    scenario.pass = vec![evil.to_owned()];
    for round in &mut scenario.rounds {
        (round.alternative, round.flood_kind) = (evil.to_owned(), evil.to_owned());
        round.checks.iter_mut().for_each(|check| (check.threshold, check.found) = (evil.to_owned(), evil.to_owned()));
        round.checks.iter_mut().for_each(|check| check.passed = false);
    }
    let page = page(&results);
    assert_balanced(&page);
    assert!(!page.contains("<script") && !page.contains('\u{0}') && !page.contains('\x1b'));
}

#[test]
fn generator_limited_is_said() {
    let mut limited = single();
    assert!(!page(&limited).contains("marked *"));
    limited.scenarios[0].rounds[3].flood.generator_limited = true;
    assert!(page(&limited).contains("In 1 of 5 rounds, marked *"));
}

#[test]
fn nothing_and_nonsense_have_pages() {
    assert!(page(&results(vec![])).contains("Nothing was run."));
    assert!(page(&results(vec![scenario("empty", vec![])])).contains("No rounds were run."));
    let odd = page(&results(vec![scenario("odd", vec![hopeless(), Round::default()])]));
    assert_balanced(&odd);
    assert!(!odd.contains("NaN"));
}
