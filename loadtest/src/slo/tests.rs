//! Every metric and operator, and every way to get a threshold wrong.

use super::*;

/// A round with a flood in which each metric has a value of its own.
fn flooded() -> Round {
    let mut round = Round { flood_kind: "syn".to_owned(), flood_rate: Some(1e5), seconds: 10.0, ..Round::default() };
    round.flood.bytes_in = 1000;
    round.flood.bytes_out = 830;
    round.clients.attempts = 1000;
    round.clients.outcomes.insert("ok".to_owned(), 999);
    round.clients.outcomes.insert("reset".to_owned(), 1);
    round.clients.connect_us =
        crate::results::Quantiles { count: 999, p50: 100.0, p90: 900.0, p99: 9_900.0, p999: 99_900.0, max: 2e6 };
    round.target.rss_peak_bytes = 3 << 20;
    round.target.cpu_ns_per_frame = Some(412.0);
    round.target.switch_in_ms = Some(7.5);
    round.target.switch_out_ms = Some(1500.0);
    round
}

/// Judges a threshold of one term.
fn check(threshold: &str, round: &Round) -> Check {
    let slo: Slo = threshold.parse().expect("a threshold");
    slo.judge(round).remove(0)
}

/// The error of a text.
fn error(text: &str) -> SloError {
    text.parse::<Slo>().expect_err("no threshold")
}

#[test]
fn each_metric_finds_its_value() {
    let cases = [
        ("success >= 99.9%", "success 99.90 %"),
        ("p50 <= 100us", "p50 100 us"),
        ("p90 <= 1ms", "p90 0.9000 ms"),
        ("p99 <= 9.9ms", "p99 9.900 ms"),
        ("p99.9 < 0.1s", "p999 0.09990 s"),
        ("max = 2s", "max 2 s"),
        ("connections >= 99/s", "connections 99.90 /s"),
        ("connections >= 99", "connections 99.90"),
        ("amplification < 1", "amplification 0.8300"),
        ("rss <= 4MiB", "rss 3 MiB"),
        ("rss <= 3072 KiB", "rss 3072 KiB"),
        ("cpu <= 500ns", "cpu 412 ns"),
        ("switch-in <= 10ms", "switch-in 7.500 ms"),
        ("switch-out <= 2000ms", "switch-out 1500 ms"),
        ("failed = 1", "failed 1"),
    ];
    for (threshold, found) in cases {
        let check = check(threshold, &flooded());
        assert!(check.passed, "{threshold}: {}", check.found);
        assert_eq!(check.found, found, "{threshold}");
    }
}

#[test]
fn each_operator_refuses_too() {
    for threshold in ["failed >= 2", "failed > 1", "failed <= 0", "failed < 1", "failed = 2"] {
        assert!(!check(threshold, &flooded()).passed, "{threshold}");
    }
}

#[test]
fn every_term_is_one_check() {
    let slo: Slo = "success >= 99.99% and p99 <= 50ms".parse().expect("a threshold");
    let checks = slo.judge(&flooded());
    let verdicts: Vec<_> = checks.iter().map(|check| (check.threshold.as_str(), check.passed)).collect();
    assert_eq!(verdicts, [("success >= 99.99%", false), ("p99 <= 50ms", true)]);
}

#[test]
fn found_never_contradicts_the_verdict() {
    let mut round = flooded();
    round.clients.connect_us.p99 = 50_000.4;
    let check = check("p99 <= 50ms", &round);
    assert_eq!((check.found.as_str(), check.passed), ("p99 50.0004 ms", false));
}

#[test]
fn without_clients_nothing_is_measured() {
    let round = Round { flood_rate: Some(1.0), seconds: 10.0, ..Round::default() };
    for threshold in ["success >= 0%", "p50 <= 9s", "p90 <= 9s", "p99 <= 9s", "p999 <= 9s", "max <= 9s"] {
        let check = check(threshold, &round);
        assert!(!check.passed && check.found.ends_with(" not measured"), "{threshold}: {}", check.found);
    }
}

#[test]
fn flood_terms_hold_without_a_flood_and_fail_unmeasured_with_one() {
    let quiet = Round { flood_rate: Some(0.0), ..Round::default() };
    let unmeasured = Round { flood_kind: "syn".to_owned(), flood_rate: None, ..Round::default() };
    for threshold in ["amplification < 0.1", "cpu < 1ns", "switch-in < 1ms", "switch-out < 1ms"] {
        let held = check(threshold, &quiet);
        assert!(held.passed && held.found.ends_with(" no flood"), "{threshold}: {}", held.found);
        let failed = check(threshold, &unmeasured);
        assert!(!failed.passed && failed.found.ends_with(" not measured"), "{threshold}: {}", failed.found);
    }
}

#[test]
fn a_value_that_is_no_number_is_not_measured() {
    let mut round = flooded();
    round.target.cpu_ns_per_frame = Some(f64::NAN);
    round.seconds = 0.0;
    assert_eq!(check("cpu <= 1ns", &round).found, "cpu not measured");
    assert_eq!(check("connections > 0", &round).found, "connections not measured");
}

#[test]
fn display_gives_it_back() {
    let text = "success >= 99.9% and p99 <= 50ms and connections > 500/s and amplification < 1.5 and failed = 0";
    let slo: Slo = text.parse().expect("a threshold");
    assert_eq!(slo.to_string(), text);
    let crowded: Slo = "p99.9<=50 ms and connections>5 and rss<64MiB".parse().expect("a threshold");
    assert_eq!(crowded.to_string(), "p999 <= 50ms and connections > 5 and rss < 64MiB");
    assert_eq!(crowded.to_string().parse::<Slo>(), Ok(crowded));
}

#[test]
fn it_is_read_from_a_string() {
    let read: Result<Slo, _> = serde_json::from_str("\"p99 <= 50ms\"");
    assert_eq!(read.expect("a threshold").to_string(), "p99 <= 50ms");
    let refused = serde_json::from_str::<Slo>("\"p98 <= 50ms\"").expect_err("no metric");
    assert!(refused.to_string().contains("unexpected `p98`"), "{refused}");
}

#[test]
fn an_error_names_place_word_and_what_is_legal() {
    let cases = [
        ("latency < 1ms", 1, "latency", "success, p50"),
        ("p99 => 1ms", 5, "=>", ">=, >, <=, <, ="),
        ("p99 1ms", 5, "1ms", ">="),
        ("p99 <= fast", 8, "fast", "a number"),
        ("p99 <= 1.2.3ms", 8, "1.2.3", "a number"),
        ("p99 <= -1ms", 8, "-1ms", "a number"),
        ("p99 <= 50", 10, "", "us, ms, s"),
        ("p99 <= 50MiB", 10, "MiB", "us, ms, s"),
        ("p99 <= 50 and failed = 0", 11, "and", "us, ms, s"),
        ("failed = 0%", 11, "%", "no unit"),
        ("failed = 0 or p99 < 1s", 12, "or", "no unit"),
        ("p99 < 1s or failed = 0", 10, "or", "and"),
        ("p99 < 1s and", 13, "", "success, p50"),
        ("é < 1s", 1, "é", "success"),
        ("", 1, "", "success"),
    ];
    for (text, column, word, legal) in cases {
        let error = error(text);
        assert_eq!((error.column, error.word.as_str()), (column, word), "{text}: {error}");
        assert!(error.legal.starts_with(legal), "{text}: {error}");
    }
}

#[test]
fn an_error_reads_as_a_sentence() {
    assert_eq!(error("p99 <= 50KB").to_string(), "column 10: unexpected `KB`; legal: us, ms, s");
    assert_eq!(error("p99 <= 50").to_string(), "column 10: something is missing at the end; legal: us, ms, s");
}
