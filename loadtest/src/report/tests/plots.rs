//! Plots: that they are there, and that nothing breaks them.

use super::made_up::{comparison, hopeless, results, scenario, single};
use super::pages::assert_balanced;
use crate::report::plot::{Looks, Plot, all};
use crate::results::{Results, Round};

/// All plots of all scenarios.
fn plots(results: &Results) -> Vec<Plot> {
    let plots: Vec<Plot> = all(results).expect("plots").into_iter().flatten().collect();
    for plot in &plots {
        assert_balanced(&plot.svg);
        assert!(!plot.svg.contains("NaN"), "{}", plot.name);
    }
    plots
}

/// Their names.
fn names(results: &Results) -> Vec<String> {
    plots(results).into_iter().map(|plot| plot.name).collect()
}

#[test]
fn a_comparison_has_every_plot() {
    let names = names(&comparison());
    for name in ["syn-success", "syn-p99", "syn-cpu", "latency-no-flood", "latency-syn-flood-100-k-s"] {
        assert!(names.contains(&format!("syn-flood-{name}")), "{name} is not in {names:?}");
    }
    let series: Vec<_> = names.iter().filter(|name| name.contains("-series-")).collect();
    assert_eq!(series.len(), 9, "{names:?}");
    assert!(series.iter().all(|name| name.ends_with("-max")), "{names:?}");
}

#[test]
fn one_alternative_has_a_series_for_each_flood() {
    assert_eq!(names(&single()).iter().filter(|name| name.contains("-series-")).count(), 5);
}

#[test]
fn the_axis_of_rates_has_zero_and_max() {
    let plots = plots(&comparison());
    let success = plots.iter().find(|plot| plot.name == "syn-flood-syn-success").expect("the plot");
    for label in ["\n0\n", "\n10 k\n", "\n100 k\n", "\n500 k\n", "\nmax\n"] {
        assert!(success.svg.contains(label), "{label:?} is missing");
    }
}

#[test]
fn an_alternative_looks_the_same_everywhere() {
    let mut two = comparison();
    let mut other = two.scenarios[0].clone();
    other.rounds.reverse();
    two.scenarios.push(other);
    let looks = Looks::of(&two);
    let names = ["kernel-cookies-0", "portcullis-bpf", "portcullis-kernel"];
    assert_eq!(names.map(|name| looks.get(name)), names.map(|name| Looks::of(&comparison()).get(name)));
    assert_ne!(looks.get(names[1]), looks.get(names[2]));
}

#[test]
fn names_of_plots_are_unique_and_harmless() {
    let twice = results(vec![
        scenario("../a b", single().scenarios[0].rounds.clone()),
        scenario("A/B", single().scenarios[0].rounds.clone()),
    ]);
    let mut names = names(&twice);
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')), "{names:?}");
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn what_is_missing_is_not_drawn() {
    assert!(plots(&results(vec![])).is_empty());
    assert!(plots(&results(vec![scenario("empty", vec![])])).is_empty());
    assert!(plots(&results(vec![scenario("quiet", vec![Round::default()])])).is_empty());
}

#[test]
fn one_rate_only_is_drawn() {
    let rounds =
        comparison().scenarios[0].rounds.iter().filter(|round| round.flood_rate == Some(1e5)).cloned().collect();
    assert!(names(&results(vec![scenario("one", rounds)])).contains(&"one-syn-success".to_owned()));
}

#[test]
fn no_flood_is_drawn_without_rates() {
    let rounds =
        comparison().scenarios[0].rounds.iter().filter(|round| round.flood_rate == Some(0.0)).cloned().collect();
    let names = names(&results(vec![scenario("calm", rounds)]));
    assert!(names.iter().all(|name| name.contains("-latency-") || name.contains("-series-")), "{names:?}");
    assert_eq!(names.len(), 10);
}

#[test]
fn nobody_connected_is_drawn() {
    let mut failed = comparison();
    for round in &mut failed.scenarios[0].rounds {
        round.clients.outcomes = [("refused".to_owned(), 5000)].into();
        round.clients.connect_us = Default::default();
        round.clients.connect_curve.clear();
    }
    let names = names(&failed);
    assert!(names.contains(&"syn-flood-syn-success".to_owned()));
    assert!(!names.iter().any(|name| name.contains("latency") || name.contains("p99")), "{names:?}");
}

#[test]
fn numbers_that_are_none_break_nothing() {
    let mut zero = single().scenarios[0].rounds[2].clone();
    zero.clients.connect_us.p99 = 0.0;
    zero.clients.connect_curve = vec![(0, 0.0), (0, 1.0)];
    zero.target.cpu_ns_per_frame = Some(0.0);
    let mut huge = zero.clone();
    huge.flood_rate = Some(1e300);
    huge.clients.connect_us.p99 = 1e300;
    for rounds in [vec![hopeless()], vec![zero.clone()], vec![huge.clone()], vec![hopeless(), zero, huge]] {
        plots(&results(vec![scenario("odd", rounds)]));
    }
}
