//! Tables as text.

use super::made_up::{comparison, hopeless, results, scenario, single};
use crate::report::group::{Spread, paired_ratio};
use crate::report::{BASELINE, measure, summary};
use crate::results::{Results, Round};

/// The line of a text that begins with a word.
fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines()
        .find(|line| line.trim_start().starts_with(start))
        .unwrap_or_else(|| panic!("no line {start:?} in\n{text}"))
}

/// The table without colours.
fn plain(results: &Results) -> String {
    summary(results, BASELINE, false)
}

#[test]
fn run_has_a_row_per_round() {
    let text = plain(&single());
    let row = line(&text, "syn flood, 100 k/s");
    for field in ["1.00 M", "998 k", "978 k", "100", "500", "9.29 MiB", "4.10 k", "pass"] {
        assert!(row.contains(field), "{field} is not in\n{row}");
    }
    assert!(
        text.contains(
            "counts portcullis-bpf, syn flood, 100 k/s #1: generator sent 1000000, interface received 998000"
        )
    );
    assert!(text.contains("target counted 997002; differ by 0.30 %"), "{text}");
}

#[test]
fn columns_line_up() {
    let text = plain(&comparison());
    let first_table: Vec<&str> = text.lines().skip(1).take(10).collect();
    let widths: Vec<usize> = first_table.iter().map(|line| line.chars().count()).collect();
    assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{widths:?}\n{text}");
}

#[test]
fn compare_has_medians_spreads_and_ratios() {
    let text = plain(&comparison());
    let table = text.split("\n\n").find(|table| table.starts_with("syn-flood: syn flood, 100 k/s")).expect("the table");
    let base = line(table, "kernel-cookies-1");
    assert_eq!(base.matches("1.00×").count(), 3, "{base}");
    let fast = line(table, "portcullis-bpf");
    assert!(fast.contains('[') && fast.contains("..") && fast.contains("0.1"), "{fast}");
    assert!(table.contains("base: kernel-cookies-1"), "{table}");
}

#[test]
fn costs_and_outcomes_stand_in_a_table_of_their_own() {
    let text = plain(&single());
    let table = text.split("\n\n").find(|table| table.contains(": what it cost")).expect("the table");
    let row = line(table, "syn flood, 100 k/s");
    for field in ["312", "1210", "ok 5000"] {
        assert!(row.contains(field), "{field} is not in\n{table}");
    }
    let text = plain(&comparison());
    let table = text.split("\n\n").find(|table| table.contains(": what it cost")).expect("the table");
    assert!(line(table, "syn flood, 10 k/s, kernel-cookies-0").contains("timeout"), "{table}");
}

#[test]
fn what_could_not_be_read_is_no_zero() {
    let mut unread = single();
    unread.scenarios[0].rounds.iter_mut().for_each(|round| round.target.half_open_peak = None);
    assert!(line(&plain(&unread), "syn flood, 100 k/s").contains('–'), "{}", plain(&unread));
    assert!(!line(&plain(&single()), "syn flood, 100 k/s").contains('–'));
}

#[test]
fn generator_limited_is_marked() {
    let text = plain(&single());
    assert!(!text.contains("the generator, not the target"), "{text}");
    let mut limited = single();
    limited.scenarios[0].rounds[3].flood.generator_limited = true;
    let text = plain(&limited);
    assert!(line(&text, "syn flood, 500 k/s*").ends_with("0.30 %"), "{text}");
    assert!(text.contains("* the generator, not the target, was the limit"), "{text}");
}

#[test]
fn failed_checks_are_told() {
    let text = plain(&comparison());
    assert!(
        text.contains(
            "FAIL kernel-cookies-0, syn flood, 10 k/s: success >= 99.9%; found success 12.98 %, success 12.46 %, "
        ),
        "{text}"
    );
}

#[test]
fn colour_is_only_for_terminals() {
    assert!(!plain(&comparison()).contains('\x1b'));
    assert!(summary(&comparison(), BASELINE, true).contains("\x1b[1;31mFAIL"));
}

#[test]
fn a_terminal_does_not_obey_names() {
    let mut results = single();
    results.scenarios[0].name = "\x1b[2Jgone".to_owned();
    assert!(!plain(&results).contains('\x1b'));
}

#[test]
fn nothing_and_nonsense_have_tables() {
    assert_eq!(plain(&results(vec![])), "");
    assert!(plain(&results(vec![scenario("empty", vec![])])).starts_with("empty: no rounds\n"));
    let text = plain(&results(vec![scenario("broken", vec![hopeless(), Round::default()])]));
    assert!(text.contains("syn flood, max"), "{text}");
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
}

#[test]
fn median_of_even_numbers_is_the_middle() {
    let spread = Spread::over([4.0, 1.0, f64::NAN, 2.0, 10.0].into_iter());
    assert_eq!(spread, Some(Spread { median: 3.0, min: 1.0, max: 10.0 }));
    assert_eq!(Spread::over(std::iter::empty()), None);
}

#[test]
fn ratios_are_paired_by_repetition() {
    let round = |repetition, ns| {
        let mut round = Round { repetition, ..Round::default() };
        round.target.cpu_ns_per_frame = Some(ns);
        round
    };
    let (base, ours) = ([round(0, 100.0), round(1, 400.0)], [round(1, 200.0), round(0, 25.0), round(7, 9.0)]);
    let ratio = paired_ratio(&ours.each_ref(), &base.each_ref(), measure::cpu_ns);
    assert_eq!(ratio, Some(f64::midpoint(0.5, 0.25)));
    assert_eq!(paired_ratio(&ours.each_ref(), &[], measure::cpu_ns), None);
}

#[test]
fn compare_tells_what_was_offered_taken_and_answered() {
    let mut compared = comparison();
    for round in &mut compared.scenarios[0].rounds {
        // Of a million in ten seconds three quarters are lost at the queue, and half of the others are answered.
        (round.flood.sent, round.flood.refused) = (250_000, 750_000);
        (round.flood.received, round.flood.replies) = (250_000, 125_000);
        round.target.cpu_ns_per_frame = Some(300.0);
    }
    let text = plain(&compared);
    let table = text.split("\n\n").find(|table| table.starts_with("syn-flood: syn flood, 100 k/s")).expect("the table");
    for title in ["offered/s", "taken/s", "answered/s", "CPU ns/answer"] {
        assert!(table.contains(title), "{title} is not in\n{table}");
    }
    let row = line(table, "portcullis-bpf");
    for field in ["100 k", "25.0 k", "12.5 k", "300", "600"] {
        assert!(row.contains(field), "{field} is not in\n{row}");
    }
}
