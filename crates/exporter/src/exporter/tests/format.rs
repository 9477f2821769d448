//! What the process and the kernel say of themselves, and whether promtool likes it all.

use std::time::Duration;

use super::*;

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
