//! Sockets by listener and state.

use std::task::{Context, Waker};

use listener::TcpState;

use super::*;

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
