//! What is around the listeners, and statuses beside scrapes.

use std::time::Duration;

use listener::TcpState;

use super::*;

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
