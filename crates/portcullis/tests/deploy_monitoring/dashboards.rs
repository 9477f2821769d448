//! deploy/grafana: what one may expect of a dashboard, and its queries.
//!
//! The rules are those of Grafana's dashboard-linter, which is no Debian package, and some of our own.

use std::collections::BTreeSet;

use serde_json::Value;

use super::files::{self, list, string};
use super::{exposition, promql, rules};

const DASHBOARDS: &str = "deploy/grafana/dashboards";
const UIDS: [&str; 2] = ["portcullis-flood", "portcullis-overview"];
/// Columns of Grafana's grid.
const GRID: u64 = 24;
/// Functions whose window must follow the zoom.
const RATED: [&str; 4] = ["rate", "increase", "irate", "delta"];

/// A panel's query.
#[derive(Debug)]
pub struct Query {
    pub dashboard: String,
    pub panel: String,
    pub expr: String,
}

/// Every dashboard, by its file.
fn dashboards() -> Vec<(String, Value)> {
    files::in_directory(DASHBOARDS, ".json").into_iter().map(|path| (path.clone(), files::json(&path))).collect()
}

/// All panels that are no rows.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row")
}

/// Every query of every panel.
pub fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for (_, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            queries.extend(list(panel, "targets").iter().map(|target| Query {
                dashboard: string(&dashboard, "uid").to_owned(),
                panel: string(panel, "title").to_owned(),
                expr: string(target, "expr").to_owned(),
            }));
        }
    }
    queries
}

/// Every query that makes marks on the panels, with its name.
pub fn annotations() -> Vec<(String, String)> {
    let all = dashboards();
    let of = |dashboard: &Value| list(&dashboard["annotations"], "list").to_vec();
    all.iter()
        .flat_map(|(_, dashboard)| of(dashboard))
        .map(|one| (string(&one, "name").to_owned(), string(&one, "expr").to_owned()))
        .collect()
}

#[test]
fn dashboards_are_of_the_classic_schema_and_kept_in_files() {
    let mut uids = Vec::new();
    for (path, dashboard) in dashboards() {
        assert_eq!(dashboard["schemaVersion"], 39, "{path}");
        assert_eq!(dashboard["editable"], false, "{path}: a change in the browser could not be saved");
        assert!(dashboard.get("id").is_none(), "{path}: an id is of one Grafana alone");
        assert_eq!(files::stem(&path), string(&dashboard, "uid"), "the file is named after what addresses name");
        assert!(!string(&dashboard, "title").is_empty() && !string(&dashboard, "description").is_empty(), "{path}");
        uids.push(string(&dashboard, "uid").to_owned());
    }
    assert_eq!(uids, UIDS);
}

#[test]
fn dashboards_ask_for_source_job_instance_and_listener() {
    for (path, dashboard) in dashboards() {
        let variables = list(&dashboard["templating"], "list");
        let names: Vec<&str> = variables.iter().map(|variable| string(variable, "name")).collect();
        assert_eq!(names, ["datasource", "job", "instance", "listener"], "{path}");
        let (source, labels) = variables.split_first().expect("four");
        assert_eq!((string(source, "type"), string(source, "query")), ("datasource", "prometheus"), "{path}");
        assert_eq!(string(source, "label"), "Data source", "{path}");
        for variable in labels {
            let name = string(variable, "name");
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{path}: {name}");
            assert_eq!(string(variable, "label").to_lowercase(), name, "{path}");
            assert_eq!(string(variable, "allValue"), ".+", "{path}: {name}");
            assert_eq!(variable["refresh"], 2, "{path}: {name} is not asked for again when the time changes");
            for flag in ["multi", "includeAll"] {
                assert_eq!(variable[flag], true, "{path}: {name}: {flag}");
            }
            let query = string(&variable["query"], "query");
            assert_eq!(query, string(variable, "definition"), "{path}: {name}");
            assert!(
                query.starts_with("label_values(portcullis_") && query.ends_with(&format!(", {name})")),
                "{path}: {query}"
            );
            let metric = promql::selectors(query)[0].name;
            assert!(exposition::names().contains(metric), "{path}: {query}");
        }
    }
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit() {
    for (path, dashboard) in dashboards() {
        let mut titles = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = string(panel, "title");
            assert!(titles.insert(title), "{path}: two panels are called {title}");
            assert!(string(panel, "description").ends_with('.'), "{path}: {title}: no description in whole sentences");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!string(defaults, "unit").is_empty(), "{path}: {title}: no unit");
            assert!(!list(&defaults["thresholds"], "steps").is_empty(), "{path}: {title}: no thresholds");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{path}: {title}");
            assert!(!list(panel, "targets").is_empty(), "{path}: {title}: no query");
            for (target, reference) in list(panel, "targets").iter().zip('A'..) {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{path}: {title}");
                assert_eq!(string(target, "refId"), reference.to_string(), "{path}: {title}");
                assert!(!string(target, "legendFormat").is_empty(), "{path}: {title}: no legend");
            }
        }
    }
}

/// Units that are right for what a query measures.
fn units(panel: &Value, expr: &str) -> &'static [&'static str] {
    let has = |text: &str| expr.contains(text);
    if panel["type"] == "heatmap" {
        return if has("_seconds_bucket") { &["s"] } else { &["percentunit"] };
    }
    if has("histogram_quantile(") || has("time() - ") || has("_duration_seconds{") {
        &["s"]
    } else if has(") / ") || has("} / ") {
        &["percentunit"]
    } else if has("rate(process_cpu_seconds_total") {
        &["none"]
    } else if has("_bytes_total{") {
        &["Bps"]
    } else if has("_bytes{") {
        &["bytes"]
    } else if has("connections_") && has("rate(") || has("handshakes_completed_total") && !has("syns_") {
        &["cps", "pps"]
    } else if has("rate(") {
        &["pps", "ops", "wps", "cps"]
    } else {
        &["none", "short"]
    }
}

/// The unit of a query's axis: the panel's, or its own.
fn unit_of<'a>(panel: &'a Value, target: &Value) -> &'a str {
    let config = &panel["fieldConfig"];
    let own = list(config, "overrides")
        .iter()
        .find(|one| one["matcher"]["id"] == "byFrameRefID" && one["matcher"]["options"] == target["refId"]);
    let unit = own.and_then(|one| list(one, "properties").iter().find(|property| property["id"] == "unit"));
    unit.map_or_else(|| string(&config["defaults"], "unit"), |property| string(property, "value"))
}

#[test]
fn units_are_those_of_what_is_measured() {
    for (path, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in list(panel, "targets") {
                let (unit, expr) = (unit_of(panel, target), string(target, "expr"));
                assert!(units(panel, expr).contains(&unit), "{path}: {}: {unit}: {expr}", panel["title"]);
            }
        }
    }
}

#[test]
fn a_single_number_is_the_last_one() {
    for (path, dashboard) in dashboards() {
        for panel in panels(&dashboard).filter(|panel| panel["type"] == "stat" || panel["type"] == "gauge") {
            let calcs = &panel["options"]["reduceOptions"]["calcs"];
            assert_eq!(calcs, &serde_json::json!(["lastNotNull"]), "{path}: {}", panel["title"]);
        }
    }
}

#[test]
fn quantiles_are_those_of_their_legends_and_say_that_nobody_came() {
    let mut seen = 0;
    for (path, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in list(panel, "targets") {
                let Some((_, rest)) = string(target, "expr").split_once("histogram_quantile(") else { continue };
                let quantile = match string(target, "legendFormat") {
                    "median" => "0.5".to_owned(),
                    percent => format!("0.{}", percent.strip_prefix('p').expect("median, or p and two digits")),
                };
                assert!(rest.starts_with(&format!("{quantile}, ")), "{path}: {}: {target}", panel["title"]);
                let none = panel["fieldConfig"]["defaults"]["noValue"].as_str();
                assert!(none.is_some_and(|text| !text.is_empty()), "{path}: {}: empty without traffic", panel["title"]);
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "only {seen} quantiles were found");
}

#[test]
fn a_start_is_marked_however_long_the_process_was_away() {
    for (path, dashboard) in dashboards() {
        let marks = list(&dashboard["annotations"], "list");
        let start = marks.iter().find(|mark| mark["name"] == "Start").expect("a mark of starts");
        // What changes within a window has to have a sample before the gap in it, which a long absence takes away.
        let expr = string(start, "expr");
        assert!(
            expr.starts_with("(time() - process_start_time_seconds{") && expr.ends_with("}) < 60"),
            "{path}: {expr}"
        );
    }
}

#[test]
fn queries_select_what_was_chosen_and_rate_by_the_zoom() {
    for Query { dashboard, panel, expr } in queries() {
        let about = format!("{dashboard}: {panel}: {expr}");
        let selectors = promql::selectors(&expr);
        assert!(!selectors.is_empty(), "{about}");
        for selector in selectors {
            assert!(exposition::names().contains(selector.name), "{about}: no {}", selector.name);
            expect_chosen(&selector, &about);
            let rated = selector.function.is_some_and(|function| RATED.contains(&function));
            assert!(
                selector.is_counter() == rated || selector.is_part_of_difference(),
                "{about}: a counter, and nothing else, is rated: {}",
                selector.name
            );
            if rated {
                assert_eq!(selector.window, Some("$__rate_interval"), "{about}");
            }
        }
        let (counts, sums) =
            (expr.matches("rate(").count() + expr.matches("increase(").count(), expr.matches("sum").count());
        assert!(sums >= counts, "{about}: a rate that is not summed is a line for each series");
    }
}

/// Only what was chosen above is selected: by job and instance, and by listener if the series know one.
fn expect_chosen(selector: &promql::Selector<'_>, about: &str) {
    let name = selector.name;
    for label in ["job", "instance"].into_iter().chain(has_label(name, "listener").then_some("listener")) {
        assert!(selector.matchers.contains(&format!("{label}=~\"${label}\"")), "{about}: {name} without {label}");
    }
}

/// Whether the series of this name carry a label.
fn has_label(name: &str, label: &str) -> bool {
    let sample = exposition::text()
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    sample.unwrap_or_else(|| panic!("no {name}")).contains(&format!("{label}=\""))
}

#[test]
fn panels_stand_in_rows_and_do_not_overlap() {
    for (path, dashboard) in dashboards() {
        let all = list(&dashboard, "panels");
        assert_eq!(all[0]["type"], "row", "{path}");
        let number = |value: &Value| value.as_u64().expect("a whole number");
        let cells = |panel: &Value| {
            let at = &panel["gridPos"];
            let (x, y, w, h) = (number(&at["x"]), number(&at["y"]), number(&at["w"]), number(&at["h"]));
            assert!(w > 0 && h > 0 && x + w <= GRID, "{path}: {at}");
            (y..y + h).flat_map(move |row| (x..x + w).map(move |column| (row, column)))
        };
        let (mut taken, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for panel in all {
            assert!(ids.insert(number(&panel["id"])), "{path}: two panels have the id {}", panel["id"]);
            assert!(cells(panel).all(|cell| taken.insert(cell)), "{path}: something lies under {}", panel["title"]);
        }
    }
}

#[test]
fn the_first_row_answers_attack_users_and_headroom() {
    let overview = files::json(&format!("{DASHBOARDS}/portcullis-overview.json"));
    let row = list(&overview, "panels").iter().skip(1).take_while(|panel| panel["type"] != "row");
    let titles: Vec<&str> = row.map(|panel| string(panel, "title")).collect();
    for question in ["Attack: ", "Users: ", "Headroom: "] {
        assert!(titles.iter().any(|title| title.starts_with(question)), "{question} of {titles:?}");
    }
}

#[test]
fn links_lead_to_the_other_dashboard_and_to_runbooks() {
    for (path, dashboard) in dashboards() {
        let uid = string(&dashboard, "uid");
        let other = UIDS.into_iter().find(|known| *known != uid).expect("two");
        let links = list(&dashboard, "links");
        let to_other =
            links.iter().find(|link| string(link, "url") == format!("/d/{other}")).expect("a link to the other");
        assert!(
            to_other["includeVars"] == true && to_other["keepTime"] == true,
            "{path}: what was chosen is lost on the way"
        );
        assert!(links.iter().any(|link| string(link, "url").ends_with("docs/runbooks/README.md")), "{path}");
        for link in panels(&dashboard).filter_map(|panel| panel["links"].as_array()).flatten() {
            let file = string(link, "url").rsplit_once("/blob/main/").expect("a file of the repository").1;
            assert!(files::path(file).exists(), "{path}: {file}");
        }
    }
}

#[test]
fn every_alert_is_linked_from_a_panel() {
    let text = dashboards().iter().map(|(path, _)| files::text(path)).collect::<String>();
    for alert in rules::alerts().into_keys().filter(|name| name != "PortcullisTargetDown") {
        assert!(text.contains(&format!("docs/runbooks/{alert}.md")), "no panel links to the runbook of {alert}");
    }
}

#[test]
fn the_time_under_cookies_alone_is_marked() {
    for (path, dashboard) in dashboards() {
        let marks = list(&dashboard["annotations"], "list");
        assert!(marks.iter().any(|mark| string(mark, "expr").starts_with("portcullis_syncookies_active{")), "{path}");
        assert!(marks.iter().all(|mark| mark["datasource"]["uid"] == "${datasource}"), "{path}");
    }
    for (name, expr) in annotations() {
        for selector in promql::selectors(&expr) {
            assert!(exposition::names().contains(selector.name), "{name}: {expr}");
            expect_chosen(&selector, &format!("{name}: {expr}"));
        }
    }
}

#[test]
fn keys_stand_in_the_same_order_everywhere() {
    // As in the files: serde_json keeps no order, so the text is looked at.
    for (path, _) in dashboards() {
        let text = files::text(&path);
        let panel_keys: BTreeSet<Vec<&str>> = text
            .split("\n    {\n")
            .filter(|part| part.contains("\"fieldConfig\""))
            .map(|part| {
                part.lines()
                    .filter(|line| line.starts_with("      \""))
                    .filter_map(|line| line.split('"').nth(1))
                    .collect()
            })
            .map(|keys: Vec<&str>| keys.into_iter().filter(|key| *key != "links").collect())
            .collect();
        let order =
            ["id", "type", "title", "description", "datasource", "gridPos", "targets", "fieldConfig", "options"];
        for keys in panel_keys {
            assert!(keys.starts_with(&order), "{path}: {keys:?}");
        }
    }
}

#[test]
fn grafana_is_told_where_the_dashboards_and_prometheus_are() {
    let provider = files::yaml("deploy/grafana/provisioning/dashboards/portcullis.yml");
    assert_eq!((&provider["apiVersion"], &provider["providers"][0]["type"]), (&1.into(), &"file".into()));
    let source = files::yaml("deploy/grafana/provisioning/datasources/portcullis.yml");
    assert_eq!((&source["apiVersion"], &source["datasources"][0]["type"]), (&1.into(), &"prometheus".into()));
    // $__rate_interval is made of it, so it must be what Prometheus does.
    let interval = &source["datasources"][0]["jsonData"]["timeInterval"];
    assert_eq!(interval, &files::yaml("deploy/prometheus/prometheus.yml")["global"]["scrape_interval"]);
}
