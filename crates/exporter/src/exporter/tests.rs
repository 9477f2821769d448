use std::io::Write;
use std::process::{Command, Stdio};
use std::task::{Context, Waker};
use std::time::Duration;

use listener::{Counter, DropReason, HANDSHAKE_BUCKETS, TcpState, Transition};

use super::*;
use crate::catalog;
use crate::testing::{
    ACCEPT_QUEUE_LIMIT, CONNECTIONS_LIMIT, FakeSockets, FakeSource, HALF_OPEN_LIMIT, Scrape, exporter, reporter,
};

fn web() -> Arc<FakeSource> {
    FakeSource::new("web", "raw", "198.18.0.1:80")
}

/// Makes the next scrape run the collectors again, as a second's wait would.
fn let_it_age(exporter: &Exporter) {
    exporter.reporter().census.age(crate::census::AGE_MAX);
}

// Presence.

#[tokio::test]
async fn every_series_is_there_at_zero_from_the_first_scrape_on() {
    let (exporter, _) = exporter(&[web()], &FakeSockets::default());
    let scrape = Scrape::of(&exporter).await;
    for counter in Counter::ALL {
        let place = catalog::place(counter);
        let part = place.part.map_or(String::new(), |(label, value)| format!(",{label}=\"{value}\""));
        assert_eq!(scrape.get(&format!("{}{{listener=\"web\"{part}}}", place.name)), 0.0);
    }
    for reason in DropReason::ALL {
        let key = format!("portcullis_packets_dropped_total{{listener=\"web\",reason=\"{}\"}}", reason.label());
        assert_eq!(scrape.get(&key), 0.0);
    }
    for state in TcpState::ALL {
        assert_eq!(scrape.get(&format!("portcullis_connections{{listener=\"web\",state=\"{}\"}}", state.label())), 0.0);
    }
    for reason in ["peer_fin", "error"] {
        let key = format!("portcullis_connections_closed_total{{listener=\"web\",reason=\"{reason}\"}}");
        assert_eq!(scrape.get(&key), 0.0);
    }
    for bound in HANDSHAKE_BUCKETS.map(|bound| bound.to_string()).iter().map(String::as_str).chain(["+Inf"]) {
        let key = format!("portcullis_handshake_duration_seconds_bucket{{listener=\"web\",le=\"{bound}\"}}");
        assert_eq!(scrape.get(&key), 0.0);
    }
    assert_eq!(scrape.get("portcullis_build_info{version=\"1.2.3\",commit=\"unknown\",datapath=\"raw\"}"), 1.0);
}

#[tokio::test]
async fn every_family_of_the_catalog_is_rendered_with_help_and_type() {
    let (exporter, _) = exporter(&[web()], &FakeSockets::default());
    let text = exporter.render().await.unwrap();
    let always = catalog::all().filter(|family| !family.name.starts_with("portcullis_upstream_"));
    for family in always.clone() {
        assert_eq!(text.matches(&format!("# HELP {} ", family.name)).count(), 1, "{}", family.name);
        assert_eq!(text.matches(&format!("# TYPE {} ", family.name)).count(), 1, "{}", family.name);
    }
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).count();
    assert_eq!(names, always.count(), "every name is in the catalog");
}

#[tokio::test]
async fn series_are_the_same_at_every_scrape() {
    let (exporter, _) = exporter(&[web()], &FakeSockets::default());
    let (first, second) = (Scrape::of(&exporter).await, Scrape::of(&exporter).await);
    assert_eq!(first.keys(), second.keys());
}

// Values.

#[tokio::test]
async fn counters_follow_the_source_each_at_its_own_place() {
    let source = web();
    let (exporter, _) = exporter(std::slice::from_ref(&source), &FakeSockets::default());
    source.set(|values| {
        for (n, counter) in (1..).zip(Counter::ALL) {
            values.stats.add(counter, n);
        }
        for (n, reason) in DropReason::ALL.into_iter().enumerate() {
            (0..=n).for_each(|_| values.stats.count_drop(reason));
        }
    });
    let scrape = Scrape::of(&exporter).await;
    for (n, counter) in (1..).zip(Counter::ALL) {
        let place = catalog::place(counter);
        let part = place.part.map_or(String::new(), |(label, value)| format!(",{label}=\"{value}\""));
        assert_eq!(scrape.get(&format!("{}{{listener=\"web\"{part}}}", place.name)), f64::from(n), "{counter:?}");
    }
    for (n, reason) in (1..).zip(DropReason::ALL) {
        let key = format!("portcullis_packets_dropped_total{{listener=\"web\",reason=\"{}\"}}", reason.label());
        assert_eq!(scrape.get(&key), f64::from(n));
    }
}

#[tokio::test]
async fn reloads_are_shown_and_the_last_one_too() {
    const LAST: &str = "portcullis_config_last_reload_successful";
    let reloads = Arc::new(Reloads::default());
    let (exporter, _readiness) = exporter(&[], &FakeSockets::default());
    let exporter = exporter.with_reloads(reloads.clone());
    let begin = Scrape::of(&exporter).await;
    assert_eq!((begin.get(LAST), begin.sum("portcullis_config_reloads_total")), (1.0, 0.0));
    assert!(begin.get("portcullis_config_last_reload_success_timestamp_seconds") > 1e9);
    reloads.count_success();
    reloads.count_failure();
    let bad = Scrape::of(&exporter).await;
    assert_eq!(bad.get(LAST), 0.0);
    for outcome in ["success", "failure"] {
        assert_eq!(bad.get(&format!("portcullis_config_reloads_total{{outcome=\"{outcome}\"}}")), 1.0);
    }
    reloads.count_success();
    assert_eq!(Scrape::of(&exporter).await.get(LAST), 1.0);
}

#[tokio::test]
async fn gauges_and_connection_counts_follow_the_source() {
    let source = web();
    let (exporter, readiness) = exporter(std::slice::from_ref(&source), &FakeSockets::default());
    source.set(|values| {
        values.half_open = 17;
        values.cookies_mode = true;
        values.accept_queue = 5;
        values.connections = crate::ConnectionCounts {
            accepted: 9,
            closed: vec![("peer_fin", 4), ("error", 2), ("new_reason", 1)],
            refused: vec![("denied", 6)],
            received_bytes: 1 << 40,
            sent_bytes: 3,
            limit: None,
            durations: crate::Histogram { bounds: &[0.1, 1.0], counts: vec![3, 2, 1], sum: 9.5 },
        };
    });
    readiness.set_draining(true);
    let scrape = Scrape::of(&exporter).await;
    assert_eq!(scrape.get("portcullis_half_open{listener=\"web\"}"), 17.0);
    assert_eq!(scrape.get("portcullis_half_open_limit{listener=\"web\"}"), HALF_OPEN_LIMIT as f64);
    assert_eq!(scrape.get("portcullis_syncookies_active{listener=\"web\"}"), 1.0);
    assert_eq!(scrape.get("portcullis_accept_queue{listener=\"web\"}"), 5.0);
    assert_eq!(scrape.get("portcullis_accept_queue_limit{listener=\"web\"}"), ACCEPT_QUEUE_LIMIT as f64);
    assert_eq!(scrape.get("portcullis_connections_accepted_total{listener=\"web\"}"), 9.0);
    assert_eq!(scrape.get("portcullis_connections_open{listener=\"web\"}"), 2.0);
    assert_eq!(scrape.get("portcullis_connections_closed_total{listener=\"web\",reason=\"peer_fin\"}"), 4.0);
    assert_eq!(scrape.get("portcullis_connections_closed_total{listener=\"web\",reason=\"new_reason\"}"), 1.0);
    assert_eq!(scrape.get("portcullis_connections_refused_total{listener=\"web\",reason=\"denied\"}"), 6.0);
    assert_eq!(scrape.get("portcullis_received_bytes_total{listener=\"web\"}"), (1_u64 << 40) as f64);
    assert_eq!(scrape.get("portcullis_sent_bytes_total{listener=\"web\"}"), 3.0);
    assert_eq!(scrape.get("portcullis_draining"), 1.0);

    source.set(|values| (values.half_open, values.cookies_mode) = (0, false));
    readiness.set_draining(false);
    let scrape = Scrape::of(&exporter).await;
    assert_eq!(scrape.get("portcullis_half_open{listener=\"web\"}"), 0.0);
    assert_eq!(scrape.get("portcullis_syncookies_active{listener=\"web\"}"), 0.0);
    assert_eq!(scrape.get("portcullis_draining"), 0.0);
}

#[tokio::test]
async fn parts_add_up_to_what_the_listener_counted() {
    let source = web();
    let (exporter, _) = exporter(std::slice::from_ref(&source), &FakeSockets::default());
    source.set(|values| {
        values.half_open = 100 - 60 - 25 - 5;
        for (counter, n) in [
            (Counter::HalfOpenInserted, 100),
            (Counter::HalfOpenCompleted, 60),
            (Counter::HalfOpenTimedOut, 25),
            (Counter::HalfOpenReset, 5),
            (Counter::HandshakesByQueue, 60),
            (Counter::HandshakesByCookie, 2),
            (Counter::CookiesBadMac, 3),
            (Counter::CookiesExpired, 4),
        ] {
            values.stats.add(counter, n);
        }
        (0..62).for_each(|_| values.stats.record_handshake(Duration::from_millis(2)));
    });
    let scrape = Scrape::of(&exporter).await;
    let removed = scrape.sum("portcullis_half_open_removed_total{listener=\"web\"");
    let inserted = scrape.get("portcullis_half_open_inserted_total{listener=\"web\"}");
    assert_eq!(scrape.get("portcullis_half_open{listener=\"web\"}"), inserted - removed);
    assert_eq!(scrape.sum("portcullis_syncookies_invalid_total{"), 7.0);
    let completed = scrape.sum("portcullis_handshakes_completed_total{listener=\"web\"");
    assert_eq!(completed, 62.0);
    assert_eq!(scrape.get("portcullis_handshake_duration_seconds_count{listener=\"web\"}"), completed);
    assert!((scrape.get("portcullis_handshake_duration_seconds_sum{listener=\"web\"}") - 0.124).abs() < 1e-9);
    assert_eq!(scrape.get("portcullis_handshake_duration_seconds_bucket{listener=\"web\",le=\"0.001\"}"), 0.0);
    assert_eq!(scrape.get("portcullis_handshake_duration_seconds_bucket{listener=\"web\",le=\"0.0025\"}"), 62.0);
}

#[tokio::test]
async fn bounds_are_gauges_and_no_bound_is_infinite() {
    let source = web();
    let (exporter, _) = exporter(std::slice::from_ref(&source), &FakeSockets::default());
    let scrape = Scrape::of(&exporter).await;
    assert_eq!(scrape.get("portcullis_half_open_high_watermark{listener=\"web\"}"), HALF_OPEN_LIMIT as f64 * 0.75);
    assert_eq!(scrape.get("portcullis_half_open_low_watermark{listener=\"web\"}"), HALF_OPEN_LIMIT as f64 * 0.25);
    assert_eq!(scrape.get("portcullis_connections_limit{listener=\"web\"}"), CONNECTIONS_LIMIT as f64);
    source.set(|values| values.connections.limit = None);
    assert_eq!(Scrape::of(&exporter).await.get("portcullis_connections_limit{listener=\"web\"}"), f64::INFINITY);
}

#[tokio::test]
async fn histograms_show_what_the_listener_and_its_connections_recorded() {
    let source = web();
    let (exporter, _) = exporter(std::slice::from_ref(&source), &FakeSockets::default());
    source.set(|values| {
        for entries in [1, 1024, 3072] {
            values.stats.record_occupancy(entries, HALF_OPEN_LIMIT as usize);
        }
        values.connections.durations = crate::Histogram { bounds: &[0.1, 1.0], counts: vec![3, 2, 1], sum: 9.5 };
    });
    let scrape = Scrape::of(&exporter).await;
    let occupancy =
        |le: &str| scrape.get(&format!("portcullis_half_open_occupancy_bucket{{listener=\"web\",le=\"{le}\"}}"));
    assert_eq!((occupancy("0.01"), occupancy("0.25"), occupancy("0.6"), occupancy("0.75")), (1.0, 2.0, 2.0, 3.0));
    assert_eq!(scrape.get("portcullis_half_open_occupancy_sum{listener=\"web\"}"), 4097.0 / HALF_OPEN_LIMIT as f64);
    let durations = |rest: &str| scrape.get(&format!("portcullis_connection_duration_seconds_{rest}"));
    assert_eq!(durations("bucket{listener=\"web\",le=\"1\"}"), 5.0);
    assert_eq!((durations("count{listener=\"web\"}"), durations("sum{listener=\"web\"}")), (6.0, 9.5));
}

#[tokio::test]
async fn all_transitions_are_there_and_a_gauge_says_whether_they_are_counted() {
    const COMPLETE: &str = "portcullis_state_transitions_complete{listener=\"web\"}";
    let step = |from: TcpState, to: TcpState| {
        let (from, to) = (from.label(), to.label());
        format!("portcullis_state_transitions_total{{listener=\"web\",from=\"{from}\",to=\"{to}\"}}")
    };
    let source = web();
    let (exporter, _) = exporter(std::slice::from_ref(&source), &FakeSockets::default());
    let scrape = Scrape::of(&exporter).await;
    for Transition { from, to } in Transition::ALL {
        assert_eq!(scrape.get(&step(from, to)), 0.0);
    }
    assert_eq!(scrape.get(COMPLETE), 0.0);
    source.set(|values| {
        values.stats.add(Counter::HalfOpenInserted, 7);
        values.transitions = Some([5; Transition::ALL.len()]);
    });
    let scrape = Scrape::of(&exporter).await;
    assert_eq!(scrape.get(COMPLETE), 1.0);
    assert_eq!(scrape.get(&step(TcpState::Listen, TcpState::SynReceived)), 7.0, "ours, not the kernel's");
    assert_eq!(scrape.get(&step(TcpState::LastAck, TcpState::Closed)), 5.0);
}

#[tokio::test]
async fn two_exporters_in_one_process_share_nothing() {
    let (one, two) = (web(), web());
    let (first, _) = exporter(std::slice::from_ref(&one), &FakeSockets::default());
    let (second, _) = exporter(&[two], &FakeSockets::default());
    one.set(|values| values.stats.count(Counter::ResetsSent));
    assert_eq!(Scrape::of(&first).await.get("portcullis_resets_sent_total{listener=\"web\"}"), 1.0);
    assert_eq!(Scrape::of(&second).await.get("portcullis_resets_sent_total{listener=\"web\"}"), 0.0);
}

#[test]
fn two_listeners_of_one_name_are_refused() {
    let sources: Vec<Arc<dyn Source>> = vec![web(), web()];
    let refused = Exporter::new("1.2.3", sources, Arc::default()).err().unwrap();
    assert!(matches!(refused, ExporterError::DuplicateListener(name) if name == "web"));
}

// The census.

#[tokio::test]
async fn sockets_are_counted_by_listener_and_state() {
    let sockets = FakeSockets::default();
    let (exporter, _) = exporter(&[web(), FakeSource::new("any", "kernel", "0.0.0.0:80")], &sockets);
    for state in TcpState::ALL {
        (0..=state as usize).for_each(|_| sockets.add("198.18.0.1:80", state));
    }
    sockets.add("198.18.0.2:80", TcpState::TimeWait);
    sockets.add("198.18.0.1:81", TcpState::Established);
    let scrape = Scrape::of(&exporter).await;
    for state in TcpState::ALL.into_iter().filter(|state| *state != TcpState::SynReceived) {
        let key = format!("portcullis_connections{{listener=\"web\",state=\"{}\"}}", state.label());
        assert_eq!(scrape.get(&key), (state as usize + 1) as f64);
    }
    assert_eq!(scrape.get("portcullis_connections{listener=\"any\",state=\"time_wait\"}"), 1.0);
    assert_eq!(scrape.sum("portcullis_connections{listener=\"any\""), 1.0);
}

#[tokio::test]
async fn syn_received_is_the_half_open_queue_in_the_raw_tier_and_the_kernels_in_its_own() {
    let sockets = FakeSockets::default();
    let raw = web();
    let kernel = FakeSource::new("plain", "kernel", "198.18.0.1:81");
    raw.set(|values| values.half_open = 7);
    kernel.set(|values| values.half_open = 7);
    sockets.add("198.18.0.1:80", TcpState::SynReceived);
    sockets.add("198.18.0.1:81", TcpState::SynReceived);
    let (exporter, _) = exporter(&[raw, kernel], &sockets);
    let scrape = Scrape::of(&exporter).await;
    assert_eq!(scrape.get("portcullis_connections{listener=\"web\",state=\"syn_recv\"}"), 7.0);
    assert_eq!(scrape.get("portcullis_connections{listener=\"plain\",state=\"syn_recv\"}"), 1.0);
}

#[tokio::test]
async fn a_failed_census_leaves_the_old_values_and_says_so() {
    const ESTABLISHED: &str = "portcullis_connections{listener=\"web\",state=\"established\"}";
    const SUCCESS: &str = "portcullis_collector_success{collector=\"sock_diag\"}";
    let sockets = FakeSockets::default();
    let (exporter, _) = exporter(&[web()], &sockets);
    sockets.add("198.18.0.1:80", TcpState::Established);
    let scrape = Scrape::of(&exporter).await;
    assert_eq!((scrape.get(ESTABLISHED), scrape.get(SUCCESS)), (1.0, 1.0));

    sockets.add("198.18.0.1:80", TcpState::Established);
    *sockets.error.lock().unwrap() = Some(std::io::ErrorKind::TimedOut);
    let_it_age(&exporter);
    let scrape = Scrape::of(&exporter).await;
    assert_eq!((scrape.get(ESTABLISHED), scrape.get(SUCCESS)), (1.0, 0.0));
    assert_eq!(scrape.get("portcullis_collector_success{collector=\"netstat\"}"), 1.0, "the others go on");

    *sockets.error.lock().unwrap() = None;
    let_it_age(&exporter);
    let scrape = Scrape::of(&exporter).await;
    assert_eq!((scrape.get(ESTABLISHED), scrape.get(SUCCESS)), (2.0, 1.0));
}

#[tokio::test]
async fn many_scrapers_cause_one_census() {
    let sockets = FakeSockets::default();
    let (exporter, _) = exporter(&[web()], &sockets);
    let exporter = Arc::new(exporter);
    let mut scrapers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let exporter = Arc::clone(&exporter);
        scrapers.spawn(async move { exporter.render().await.unwrap() });
    }
    while let Some(scraped) = scrapers.join_next().await {
        assert!(!scraped.unwrap().is_empty());
    }
    // More than one only if this machine took longer than a second for twenty renderings.
    assert_eq!(sockets.walks(), 1);
    let_it_age(&exporter);
    exporter.render().await.unwrap();
    assert_eq!(sockets.walks(), 2);
}

#[tokio::test]
async fn a_scraper_that_goes_away_does_not_stop_the_census() {
    let sockets = FakeSockets::default();
    let (exporter, _) = exporter(&[web()], &sockets);
    {
        // The census cannot end while the table is locked, so the scraper must go away in the middle of it.
        let _table = sockets.sockets.lock().unwrap();
        let mut render = std::pin::pin!(exporter.render());
        assert!(render.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    exporter.render().await.unwrap();
    assert_eq!(sockets.walks(), 1, "the second scraper found the first one's census");
}

#[tokio::test]
async fn the_kernels_own_sockets_are_found() {
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listening.local_addr().unwrap();
    let _client = std::net::TcpStream::connect(addr).unwrap();
    let source = FakeSource::new("real", "kernel", &addr.to_string());
    let exporter = Exporter::new("1.2.3", vec![source], Arc::default()).unwrap();
    let scrape = Scrape::of(&exporter).await;
    assert_eq!(scrape.get("portcullis_collector_success{collector=\"sock_diag\"}"), 1.0);
    assert_eq!(scrape.get("portcullis_connections{listener=\"real\",state=\"listen\"}"), 1.0);
    // The client's own socket has another local port, so only the accepted side is counted.
    assert_eq!(scrape.get("portcullis_connections{listener=\"real\",state=\"established\"}"), 1.0);
    assert_eq!(scrape.sum("portcullis_connections{listener=\"real\""), 2.0);
}

// The process and the kernel.

#[tokio::test]
async fn process_and_kernel_values_are_plausible() {
    let (exporter, _) = exporter(&[web()], &FakeSockets::default());
    let scrape = Scrape::of(&exporter).await;
    let resident = scrape.get("process_resident_memory_bytes");
    assert!(resident > 1e5 && resident < scrape.get("process_virtual_memory_bytes"), "{resident}");
    assert!(scrape.get("process_open_fds") >= 3.0);
    assert!(scrape.get("process_open_fds") <= scrape.get("process_max_fds"));
    assert!(scrape.get("process_start_time_seconds") > 1.6e9);
    assert!(scrape.get("process_cpu_seconds_total") > 0.0);
    for collector in ["netstat", "process"] {
        assert_eq!(scrape.get(&format!("portcullis_collector_success{{collector=\"{collector}\"}}")), 1.0);
        let took = scrape.get(&format!("portcullis_collector_duration_seconds{{collector=\"{collector}\"}}"));
        assert!(took > 0.0 && took < 10.0, "{took}");
    }
}

// The format.

#[tokio::test]
async fn promtool_has_nothing_to_say() {
    let source = web();
    let odd = FakeSource::new("a \"quoted\" \\ name\nof two lines", "kernel", "[::]:81");
    source.set(|values| values.stats.record_handshake(Duration::from_secs(60)));
    let (exporter, _) = exporter(&[source, odd], &FakeSockets::default());
    promtool_check_metrics(&exporter.render().await.unwrap());
}

#[tokio::test]
async fn promtool_has_nothing_to_say_without_listeners() {
    let (exporter, _) = exporter(&[], &FakeSockets::default());
    promtool_check_metrics(&exporter.render().await.unwrap());
}

/// Nothing is wrong; and `--extended`, which always prints its table of cardinalities, has no complaint beside it.
fn promtool_check_metrics(text: &str) {
    let (said, complaints) = promtool(&["check", "metrics"], text);
    assert!(said.is_empty() && complaints.is_empty(), "{said}{complaints}\n{text}");
    let (table, complaints) = promtool(&["check", "metrics", "--extended"], text);
    assert!(complaints.is_empty(), "{complaints}");
    let mut names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert!(names.all(|name| table.contains(name)), "{table}");
}

/// What it prints to standard output and error.
fn promtool(args: &[&str], text: &str) -> (String, String) {
    let mut promtool = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool must be installed (Debian: apt-get install prometheus)");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let [said, complaints] = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success(), "promtool: {}\n{said}{complaints}\n{text}", output.status);
    (said, complaints)
}

// What is around the listeners.

/// A process with a reload in the middle.
#[derive(Default)]
struct Around(std::sync::Mutex<Vec<(String, Vec<crate::UpstreamCounts>)>>);

impl crate::Surroundings for Around {
    fn upstreams(&self) -> Vec<(String, Vec<crate::UpstreamCounts>)> {
        self.0.lock().unwrap().clone()
    }

    fn access_log(&self) -> Option<crate::AccessLogCounts> {
        Some(crate::AccessLogCounts { written: 5, dropped: 3 })
    }

    fn key_rotations(&self) -> Option<crate::KeyRotations> {
        Some(crate::KeyRotations { count: 2, from_unix_seconds: 64 })
    }
}

#[tokio::test]
async fn servers_have_series_for_as_long_as_they_are_there() {
    let around = Arc::new(Around::default());
    let reporter = reporter(&[web()], &FakeSockets::default()).with_surroundings(around.clone());
    let exporter = Exporter::of(Arc::new(reporter)).unwrap();
    assert!(!Scrape::of(&exporter).await.text.contains("portcullis_upstream_"));
    let server = crate::UpstreamCounts {
        server: "unix:/run/a\"b.sock".to_owned(),
        up: true,
        connections: 1,
        connects: 9,
        connect_failures: vec![("refused", 3), ("timeout", 1), ("other", 0)],
        connect_durations: crate::Histogram { bounds: &[0.001, 0.1], counts: vec![4, 1, 0], sum: 0.25 },
        check_failures: 7,
        last_error: Some("refused".to_owned()),
    };
    around.0.lock().unwrap().push(("web".to_owned(), vec![server]));
    let scrape = Scrape::of(&exporter).await;
    promtool_check_metrics(&scrape.text);
    const LABELS: &str = "listener=\"web\",server=\"unix:/run/a\\\"b.sock\"";
    for (series, value) in [
        (format!("up{{{LABELS}}}"), 1.0),
        (format!("connections{{{LABELS}}}"), 1.0),
        (format!("connects_total{{{LABELS}}}"), 9.0),
        (format!("connect_failures_total{{{LABELS},reason=\"refused\"}}"), 3.0),
        (format!("connect_failures_total{{{LABELS},reason=\"other\"}}"), 0.0),
        (format!("connect_duration_seconds_bucket{{{LABELS},le=\"0.1\"}}"), 5.0),
        (format!("connect_duration_seconds_count{{{LABELS}}}"), 5.0),
        (format!("connect_duration_seconds_sum{{{LABELS}}}"), 0.25),
        (format!("check_failures_total{{{LABELS}}}"), 7.0),
    ] {
        assert_eq!(scrape.get(&format!("portcullis_upstream_{series}")), value, "{series}");
    }
    assert_eq!(scrape.get("portcullis_access_log_dropped_total"), 3.0);
    assert_eq!(scrape.get("portcullis_key_rotations_total"), 2.0);
    assert_eq!(scrape.get("portcullis_syncookies_key_rotation_timestamp_seconds"), 64.0);
    around.0.lock().unwrap().clear();
    assert!(!Scrape::of(&exporter).await.text.contains("portcullis_upstream_"));
}

#[tokio::test]
async fn a_status_and_a_scrape_walk_once_for_both() {
    let sockets = FakeSockets::default();
    sockets.add("198.18.0.1:80", TcpState::CloseWait);
    let (exporter, _) = exporter(&[web()], &sockets);
    let status = exporter.reporter().status();
    assert_eq!(status.listeners[0].states.as_ref().unwrap()["CLOSE-WAIT"], 1);
    let scrape = Scrape::of(&exporter).await;
    assert_eq!(scrape.get("portcullis_connections{listener=\"web\",state=\"close_wait\"}"), 1.0);
    exporter.reporter().status();
    assert_eq!(sockets.walks(), 1);
}

#[tokio::test]
async fn no_count_is_older_than_a_second_whoever_asked_before() {
    const ESTABLISHED: &str = "portcullis_connections{listener=\"web\",state=\"established\"}";
    let sockets = FakeSockets::default();
    let (exporter, _) = exporter(&[web()], &sockets);
    exporter.reporter().status();
    exporter.reporter().census.age(Duration::from_millis(500));
    sockets.add("198.18.0.1:80", TcpState::Established);
    assert_eq!(Scrape::of(&exporter).await.get(ESTABLISHED), 0.0, "of half a second ago");
    exporter.reporter().census.age(Duration::from_millis(500));
    assert_eq!(Scrape::of(&exporter).await.get(ESTABLISHED), 1.0, "though the last scrape is younger");
}

#[test]
fn a_failed_census_is_told_to_everybody_and_tried_again_a_second_later() {
    let sockets = FakeSockets::default();
    *sockets.error.lock().unwrap() = Some(std::io::ErrorKind::TimedOut);
    let source = web();
    source.set(|values| values.half_open = 7);
    let census = crate::Census::of(vec![source], Box::new(sockets.clone()));
    for _ in 0..2 {
        assert_eq!(census.counts().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    }
    assert_eq!(sockets.walks(), 1);
    *sockets.error.lock().unwrap() = None;
    census.age(std::time::Duration::from_secs(1));
    assert_eq!(census.counts().unwrap()[0][TcpState::SynReceived as usize], 7, "the half-open queue");
}
