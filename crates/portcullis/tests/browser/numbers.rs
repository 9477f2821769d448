//! The numbers on the page, beside those of `/metrics`.

use std::collections::BTreeMap;

use serde::Deserialize;
use testnet::{Metrics, eventually, eventually_seen};

use super::super::support::{Door, PATIENCE};
use super::Tab;

/// A number on the page that names its metric.
#[derive(Clone, Debug, Deserialize)]
pub struct Number {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    /// What is to be read there: the value itself, or a rate that was made of it.
    pub text: String,
}

impl Number {
    /// Its value in a scrape.
    ///
    /// # Panics
    /// Where there is no such metric.
    pub fn of(&self, metrics: &Metrics) -> f64 {
        let labels: Vec<_> = self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        metrics.get(&self.name, &labels).unwrap_or_else(|| panic!("/metrics has no {} {:?}", self.name, self.labels))
    }

    /// Whether it never falls: by its name, as Prometheus has it.
    fn is_monotone(&self) -> bool {
        self.name.ends_with("_total") || self.name.ends_with("_count")
    }
}

/// All of them, at one moment.
pub fn numbers(tab: &Tab<'_>) -> Vec<Number> {
    let shown = tab.evaluate(
        "[...document.querySelectorAll('[data-metric]')].map(e => ({ name: e.dataset.metric, labels: JSON.parse(e.dataset.labels), \
         value: Number(e.dataset.value), text: e.textContent }))",
    );
    let numbers: Vec<Number> = serde_json::from_value(shown).expect("numbers");
    // What is written out in full is the value; the rest has a unit, or is a rate.
    for number in numbers.iter().filter(|number| number.text.chars().all(|c| c.is_ascii_digit() || c == ',')) {
        assert_eq!(number.text.replace(',', ""), number.value.to_string(), "{number:?}");
    }
    numbers
}

/// Waits for so many more samples of the stream. The last of two was made after the call.
pub fn wait_for_samples(tab: &Tab<'_>, count: usize) {
    let clock = "samples[samples.length - 1].clock_seconds";
    for _ in 0..count {
        let before = tab.evaluate(clock);
        eventually("a sample", PATIENCE, || tab.evaluate(clock) != before);
    }
}

/// Checks that each number that never falls is between those of two scrapes.
pub fn assert_between(before: &Metrics, shown: &[Number], after: &Metrics) {
    let monotone: Vec<_> = shown.iter().filter(|number| number.is_monotone()).collect();
    assert!(monotone.len() >= NUMBERS_MIN, "only {} numbers on the page", monotone.len());
    for number in monotone {
        let (least, most) = (number.of(before), number.of(after));
        assert!(least <= number.value && number.value <= most, "{number:?} is not between {least} and {most}");
    }
}

/// Waits until all numbers are those of `/metrics`, which happens when nothing does.
pub fn expect_equal(door: &Door, tab: &Tab<'_>) {
    let differing = || {
        let shown = numbers(tab);
        assert!(shown.len() >= NUMBERS_MIN, "only {} numbers on the page", shown.len());
        let metrics = door.metrics();
        let beside_metrics = shown.into_iter().map(|number| (number.of(&metrics), number));
        beside_metrics.filter(|(told, number)| *told != number.value).collect::<Vec<_>>()
    };
    eventually_seen("no number differs from what /metrics tells", PATIENCE, differing, Vec::is_empty);
}

/// Fewer are not all, also where the kernel does not let us see the steps behind the handshake.
const NUMBERS_MIN: usize = 40;
