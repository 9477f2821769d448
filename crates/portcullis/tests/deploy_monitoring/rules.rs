//! deploy/prometheus: recording rules, alerts, and their tests.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::files::{self, list, string};
use super::prometheus::promtool;
use super::{exposition, promql};
use crate::binary;

const ALERTS: &str = "deploy/prometheus/rules/alerts.yml";
const RECORDING: &str = "deploy/prometheus/rules/recording.yml";
const TESTS: &str = "deploy/prometheus/tests";
/// Tests of all rules together, of no alert's own.
const SCENES: &str = "scenes";

/// Somebody is woken, or looks today. What needs nobody is no alert.
const SEVERITIES: [&str; 2] = ["critical", "warning"];
/// An operator is served by few that matter: who adds one says in deploy/prometheus/README.md what there is to do, or which one goes.
const ALERTS_MAX: usize = 16;

/// Every rule of a file.
fn rules(file: &str) -> Vec<Value> {
    let rules = files::yaml(file);
    list(&rules, "groups").iter().flat_map(|group| list(group, "rules").to_vec()).collect()
}

/// Every alert, by its name.
pub fn alerts() -> BTreeMap<String, Value> {
    rules(ALERTS).into_iter().map(|rule| (string(&rule, "alert").to_owned(), rule)).collect()
}

/// The names of all series that are recorded.
pub fn records() -> BTreeSet<String> {
    rules(RECORDING).iter().map(|rule| string(rule, "record").to_owned()).collect()
}

#[test]
fn promtool_accepts_the_configuration_and_the_rules() {
    promtool(&["check", "config"], ["prometheus.yml"]);
    let rules = [ALERTS, RECORDING].map(files::path);
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], rules);
}

#[test]
fn the_rules_tests_pass() {
    promtool(&["test", "rules"], files::in_directory(TESTS, ".yml").iter().map(|test| files::path(test)));
}

#[test]
fn every_alert_has_cases_in_which_it_fires_and_in_which_it_does_not() {
    let tested: BTreeSet<String> = files::in_directory(TESTS, ".yml")
        .iter()
        .map(|test| files::stem(test).to_owned())
        .filter(|name| name != SCENES)
        .collect();
    assert_eq!(tested, alerts().into_keys().collect(), "files of tests, and alerts");
    for alert in tested {
        let file = files::yaml(&format!("{TESTS}/{alert}.yml"));
        let mut kinds = BTreeSet::new();
        for case in list(&file, "tests") {
            let name = string(case, "name");
            let (kind, what) = name.split_once(": ").unwrap_or_else(|| panic!("{alert}: {name}: no kind"));
            let checks = list(case, "alert_rule_test");
            assert!(!checks.is_empty() && what.len() > 5, "{alert}: {name}");
            for check in checks {
                assert_eq!(string(check, "alertname"), alert, "{name}");
                assert_eq!(list(check, "exp_alerts").is_empty(), kind == "silent", "{alert}: {name}");
            }
            kinds.insert(kind.to_owned());
        }
        assert_eq!(kinds, ["fires", "silent"].map(str::to_owned).into(), "{alert}: kinds of cases");
    }
}

#[test]
fn alerts_are_few() {
    let count = alerts().len();
    assert!((12..=ALERTS_MAX).contains(&count), "{count} alerts");
}

#[test]
fn every_alert_says_what_is_wrong_and_where_to_read_on() {
    for (name, alert) in alerts() {
        assert!(name.starts_with("Portcullis"), "{name}");
        let severity = string(&alert["labels"], "severity");
        assert!(SEVERITIES.contains(&severity), "{name}: {severity}");
        let note = |key| string(&alert["annotations"], key);
        let summary = note("summary");
        assert!(summary.ends_with('.') && summary.starts_with(char::is_uppercase), "{name}: {summary}");
        assert!(!summary.contains("{{"), "{name}: the summary differs from one alert to the next: {summary}");
        assert!(note("description").contains("{{ $labels."), "{name}: the description does not say where");
        let runbook = note("runbook_url").rsplit_once("/blob/main/").expect("a file of the repository").1;
        assert_eq!(runbook, format!("docs/runbooks/{name}.md"));
        expect_dashboard(&name, note("dashboard_url"));
    }
}

/// The address is one of a dashboard here, with variables that it has and labels that all of the rule's series have.
fn expect_dashboard(alert: &str, address: &str) {
    let (uid, variables) = address.rsplit_once("/d/").and_then(|(_, rest)| rest.split_once('?')).expect(alert);
    let dashboard = files::json(&format!("deploy/grafana/dashboards/{uid}.json"));
    assert_eq!(string(&dashboard, "uid"), uid);
    for variable in variables.split('&') {
        let (name, value) = variable.split_once('=').expect(alert);
        let name = name.strip_prefix("var-").expect(alert);
        assert!(list(&dashboard["templating"], "list").iter().any(|has| has["name"] == name), "{alert}: {name}");
        assert_eq!(value, format!("{{{{ $labels.{name} }}}}"), "{alert}");
    }
}

#[test]
fn recorded_series_are_named_by_level_metric_and_operation() {
    for name in records() {
        let parts: Vec<&str> = name.split(':').collect();
        let [level, metric, operation] = parts[..] else { panic!("{name}") };
        assert!(["instance_listener", "job_listener"].contains(&level), "{name}");
        assert!(metric.starts_with("portcullis_") && !metric.ends_with("_total"), "{name}");
        assert!(["rate", "ratio", "bool", "sum"].iter().any(|known| operation.starts_with(known)), "{name}");
    }
}

#[test]
fn rules_use_series_that_are_there() {
    let (exported, recorded) = (exposition::names(), records());
    let known = |name: &str| exported.contains(name) || recorded.contains(name) || name == "up";
    for rule in [rules(ALERTS), rules(RECORDING)].concat() {
        let expr = string(&rule, "expr");
        let selectors = promql::selectors(expr);
        assert!(!selectors.is_empty(), "{expr}");
        for selector in selectors {
            assert!(known(selector.name), "{} in {expr}", selector.name);
            let rated = selector.function.is_some_and(|function| ["rate", "increase"].contains(&function));
            assert!(
                selector.is_counter() == rated || selector.is_part_of_difference(),
                "a counter, and nothing else, is rated: {} in {expr}",
                selector.name
            );
        }
    }
}

/// Labels that all alerts of a Portcullis carry beside their own; `listener` is that of most.
const PLACE: [&str; 3] = ["job", "instance", "listener"];

#[test]
fn alertmanager_is_told_of_alerts_that_exist() {
    let config = files::yaml("deploy/prometheus/alertmanager.yml");
    let mut named = 0;
    for rule in list(&config, "inhibit_rules") {
        for side in ["source_matchers", "target_matchers"] {
            named += list(rule, side).iter().map(expect_matcher).filter(|label| label == "alertname").count();
        }
        let equal: Vec<&str> = list(rule, "equal").iter().filter_map(Value::as_str).collect();
        assert!(equal.starts_with(&PLACE[..2]), "one instance's alert silences another's: {rule}");
        assert!(equal.iter().all(|label| PLACE.contains(label)), "{rule}");
        if list(rule, "source_matchers").iter().all(|matcher| !matcher.to_string().contains("TargetDown")) {
            assert!(equal.contains(&"listener"), "one listener's alert silences another's: {rule}");
        }
    }
    assert!(named > 5, "only {named} alerts are named");
}

#[test]
fn every_route_leads_to_a_receiver_and_every_receiver_is_used() {
    let config = files::yaml("deploy/prometheus/alertmanager.yml");
    let receivers = list(&config, "receivers").iter().map(|receiver| string(receiver, "name")).collect::<Vec<_>>();
    let root = &config["route"];
    let mut used = BTreeSet::from([string(root, "receiver")]);
    let mut severities = BTreeSet::new();
    for route in list(root, "routes") {
        used.insert(string(route, "receiver"));
        for matcher in list(route, "matchers") {
            if expect_matcher(matcher) == "severity" {
                severities.insert(matcher.as_str().and_then(|text| text.split('"').nth(1)).expect("a quoted value"));
            }
        }
    }
    assert_eq!(receivers.iter().copied().collect::<BTreeSet<_>>(), used, "receivers that are there, and named");
    assert_eq!(receivers.len(), used.len(), "a receiver is there twice");
    assert!(severities.contains("critical"), "nobody is woken");
}

/// Holds a matcher to alerts and severities that are there, and says which label it is of.
fn expect_matcher(matcher: &Value) -> String {
    let text = matcher.as_str().unwrap_or_else(|| panic!("a matcher that is no text: {matcher}"));
    let parts: Vec<&str> = text.splitn(3, ' ').collect();
    let [label, operator, value] = parts[..] else { panic!("no `label operator \"value\"`: {text}") };
    let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect(text);
    assert!(["=", "!=", "=~"].contains(&operator), "{text}");
    match label {
        "alertname" => {
            for name in alternatives(value) {
                let all = name == "Portcullis.+" && operator == "=~";
                assert!(all || alerts().contains_key(&name), "{name} in {text}");
            }
        }
        "severity" => {
            let used = alerts().values().any(|alert| string(&alert["labels"], "severity") == value);
            assert!(used && operator == "=", "no alert is so: {text}");
        }
        "instance" => assert_eq!((operator, value), ("!=", ""), "{text}"),
        _ => panic!("a label that alerts do not carry: {text}"),
    }
    label.to_owned()
}

#[test]
fn the_target_is_the_admin_server_of_the_default_configuration() {
    let shown = binary::stdout(&binary::output(&["config", "--print-default"]));
    let admin = shown.lines().find_map(|line| line.trim_start_matches("# ").strip_prefix("admin = "));
    let targets = files::yaml("deploy/prometheus/targets/portcullis.yml");
    let targets: Vec<&str> = targets
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|one| list(one, "targets"))
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(targets, [admin.expect("a default").trim_matches('"')]);
}

/// `A(B|C)` is AB and AC.
fn alternatives(pattern: &str) -> Vec<String> {
    match pattern.split_once('(') {
        Some((head, tails)) => tails.trim_end_matches(')').split('|').map(|tail| format!("{head}{tail}")).collect(),
        None => vec![pattern.to_owned()],
    }
}
