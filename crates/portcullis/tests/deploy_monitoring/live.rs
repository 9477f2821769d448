//! A flood, legitimate clients, and a Prometheus that watches: every query of ours has an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread::{self, Scope};
use std::time::Duration;

use serde_json::Value;
use testnet::{FloodKind, Sources, eventually, eventually_seen, isolated, take_turns};

use super::files::string;
use super::prometheus::Prometheus;
use super::{dashboards, rules};
use crate::support::battlefield::Battlefield;
use crate::support::clients::Clients;
use crate::support::{Door, Lab, PORT, Scratch, V4, connect_from, exchange, is_raw};

/// Longer than anything here takes on a busy machine. That alerts fire once they have been pending for long enough, promtool tests.
const PATIENCE: Duration = Duration::from_secs(75);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// The relay's guarded port.
const RELAY: u16 = PORT + 1;
/// Alerts that this scene must raise, pending at least, and for which listener.
const RAISED: [&str; 3] =
    ["PortcullisSynFlood of web", "PortcullisUpstreamDown of relay", "PortcullisClientsRefused of relay"];
/// Alerts that it must not raise, whatever a busy machine does: the other listener is not attacked, and the process is there.
const NOT_RAISED: [&str; 3] =
    ["PortcullisSynFlood of relay", "PortcullisTargetDown of all", "PortcullisNoUpstreamUp of relay"];

/// Panels whose first query must be above 0 in this scene: an answer that is 0 always would be no answer.
const MOVED: [(&str, &str); 14] = [
    ("portcullis-overview", "Attack: SYNs without a handshake"),
    ("portcullis-overview", "Attack: mode"),
    ("portcullis-overview", "Users: handshakes"),
    ("portcullis-overview", "Users: refused or waiting"),
    ("portcullis-overview", "SYNs and handshakes"),
    ("portcullis-overview", "Refused"),
    ("portcullis-overview", "Connects to upstreams"),
    ("portcullis-flood", "SYNs"),
    ("portcullis-flood", "SYNs without a handshake"),
    ("portcullis-flood", "Handshakes by cookie"),
    ("portcullis-flood", "Fullest half-open queue"),
    ("portcullis-flood", "Answers"),
    ("portcullis-flood", "Cookies sent and valid"),
    ("portcullis-flood", "SYNs answered without an entry"),
];

/// Recorded series without a number where another datapath than `raw` is under test: 0 packets of 0, as there is no ring.
const OF_RAW_ALONE: [&str; 1] = ["instance_listener:portcullis_ring_dropped_packets:ratio_rate1m"];

/// The relay's upstream: it answers what it is sent, until both sides have closed.
fn serve(upstream: TcpListener) {
    thread::spawn(move || {
        for stream in upstream.incoming().flatten() {
            thread::spawn(move || {
                let (mut reader, mut writer) = (&stream, &stream);
                let mut buffer = [0; 256];
                while let Ok(count @ 1..) = reader.read(&mut buffer) {
                    if writer.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Two listeners: one is attacked; the other relays to a server that is there and one that is not, and lets in fewer than come.
fn configuration(scratch: &Scratch, alive: SocketAddr) -> PathBuf {
    let log = scratch.path().join("access.log");
    let text = format!(
        r#"
        [access_log]
        path = "{}"
        [[listener]]
        name = "web"
        bind = ["0.0.0.0:{PORT}"]
        service = "echo"
        [listener.half_open]
        max = 1024
        [[listener]]
        name = "relay"
        bind = ["0.0.0.0:{RELAY}"]
        upstreams = ["{alive}", "127.0.0.1:9"]
        [listener.balance]
        check_seconds = 1
        [listener.limits]
        new_per_second = 5
        at_limit = "reset"
        "#,
        log.display()
    );
    scratch.file("portcullis.toml", &text)
}

/// Clients of the relay, as many as come, until told to stop. Some are let in, some are not.
fn crowd<'scope>(scope: &'scope Scope<'scope, '_>, lab: &'scope Lab, clients: &'scope Clients) {
    scope.spawn(move || {
        let relay = SocketAddr::new(V4.ip(), RELAY);
        while !clients.are_stopped() {
            // To be refused is what they are here for.
            let _ = connect_from(&lab.client, relay).and_then(|mut stream| exchange(&mut stream, b"hello"));
            thread::sleep(Duration::from_millis(20));
        }
    });
}

/// The query as Grafana would send it, with all chosen.
fn substituted(expr: &str) -> String {
    let sent = expr
        .replace("$__rate_interval", "5s")
        .replace("$job", ".+")
        .replace("$instance", ".+")
        .replace("$listener", ".+");
    assert!(!sent.contains('$'), "a variable that nothing is put in for: {sent}");
    sent
}

/// Asks until every one of these has an answer with a number in it.
fn expect_answers(prometheus: &Prometheus, mut queries: BTreeMap<String, String>) {
    let unanswered = || {
        queries.retain(|what, expr| {
            let values = prometheus.query(expr).unwrap_or_else(|error| panic!("{what}: {error}: {expr}"));
            !values.iter().any(|value| value.is_finite())
        });
        queries.clone()
    };
    eventually_seen("no query without an answer", PATIENCE, unanswered, BTreeMap::is_empty);
}

/// Every panel's queries, and the dashboards' marks.
fn questions_of_dashboards() -> BTreeMap<String, String> {
    let panels = dashboards::queries()
        .into_iter()
        .enumerate()
        .map(|(number, query)| (format!("{}: {} ({number})", query.dashboard, query.panel), substituted(&query.expr)));
    let marks = dashboards::annotations().into_iter().map(|(name, expr)| {
        // That nothing has started or been reloaded in the last minute is the usual answer: it is the marked series that must be there.
        let expr = expr.replace("> 0", ">= 0").replace("< 60", ">= 0");
        (format!("mark: {name}"), substituted(&expr))
    });
    panels.chain(marks).collect()
}

/// Every recorded series that has a number in the datapath under test.
fn records_of_this_datapath() -> BTreeMap<String, String> {
    let here = |name: &String| is_raw() || !OF_RAW_ALONE.contains(&name.as_str());
    rules::records().into_iter().filter(here).map(|name| (name.clone(), name)).collect()
}

/// What the panels show that this scene moves.
fn expect_moved(prometheus: &Prometheus) {
    let queries = dashboards::queries();
    for (dashboard, panel) in MOVED {
        let query = queries.iter().find(|query| (query.dashboard.as_str(), query.panel.as_str()) == (dashboard, panel));
        let expr = substituted(&query.unwrap_or_else(|| panic!("{dashboard} has no panel {panel:?}")).expr);
        eventually(&format!("{dashboard}: {panel}: above 0"), PATIENCE, || {
            prometheus.query(&expr).expect("an answer").iter().any(|value| *value > 0.0)
        });
    }
}

/// Waits until Prometheus has evaluated every rule of ours, and found none wrong.
fn expect_healthy_rules(prometheus: &Prometheus) {
    let mut rules = Vec::new();
    eventually("all rules are evaluated", PATIENCE, || {
        rules = prometheus.rules();
        rules.iter().all(|rule| rule["health"] != "unknown")
    });
    let names: BTreeSet<&str> = rules.iter().map(|rule| string(rule, "name")).collect();
    let (alerts, records) = (rules::alerts(), rules::records());
    assert_eq!(names, alerts.keys().chain(&records).map(String::as_str).collect());
    for rule in &rules {
        assert_eq!(string(rule, "health"), "ok", "{}: {}", rule["name"], rule["lastError"]);
    }
}

/// Alerts that are pending or firing, as "name of listener".
fn raised(prometheus: &Prometheus) -> BTreeSet<String> {
    let rules = prometheus.rules();
    let active = |rule: &Value| rule["alerts"].as_array().cloned().unwrap_or_default();
    let of = |alert: &Value| {
        format!(
            "{} of {}",
            string(&alert["labels"], "alertname"),
            alert["labels"]["listener"].as_str().unwrap_or("all")
        )
    };
    rules.iter().flat_map(|rule| active(rule).iter().map(of).collect::<Vec<_>>()).collect()
}

#[test]
fn in_a_flood_every_panel_has_data_and_the_alerts_say_what_is_wrong() {
    let _turn = take_turns();
    isolated!(|| {
        let field = Battlefield::new();
        let (upstream, alive) = field.lab.upstream();
        serve(upstream);
        let scratch = Scratch::new();
        let door = Door::configured(&field.lab, &configuration(&scratch, alive));
        let prometheus = Prometheus::start(&field.lab.server, scratch.path(), ADMIN);
        let clients = Clients::default();
        thread::scope(|scope| {
            let _until = clients.come(scope, &field.lab.client, [V4]);
            crowd(scope, &field.lab, &clients);
            let flood = field.flood(FloodKind::Syn, V4, Sources::random("198.19.0.0/16"));
            eventually("cookie mode", PATIENCE, || door.metric("portcullis_syncookies_active") >= 1.0);

            expect_answers(&prometheus, questions_of_dashboards());
            expect_moved(&prometheus);
            expect_answers(&prometheus, records_of_this_datapath());
            for (name, alert) in rules::alerts() {
                prometheus.query(string(&alert, "expr")).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            expect_healthy_rules(&prometheus);

            eventually("the alerts of this scene", PATIENCE, || {
                let raised = raised(&prometheus);
                RAISED.iter().all(|alert| raised.contains(*alert))
            });
            let raised = raised(&prometheus);
            assert!(!NOT_RAISED.iter().any(|alert| raised.contains(*alert)), "{raised:?}");
            println!("{:?}; raised: {raised:?}; clients served: {}", flood.stop(), clients.served());
        });
        expect_numbers(&prometheus, &door);
    });
}

/// What Prometheus has read is what the door counted.
fn expect_numbers(prometheus: &Prometheus, door: &Door) {
    eventually("Prometheus has the last numbers", PATIENCE, || {
        let counted = door.metric("portcullis_handshakes_completed_total");
        prometheus.query("sum(portcullis_handshakes_completed_total)").is_ok_and(|values| values == [counted])
    });
}
