//! Every series is there, and has the value that it should.

use std::time::Duration;

use listener::{Counter, DropReason, HANDSHAKE_BUCKETS, TcpState, Transition};

use super::*;
use crate::catalog;
use crate::testing::{ACCEPT_QUEUE_LIMIT, CONNECTIONS_LIMIT, HALF_OPEN_LIMIT};

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
