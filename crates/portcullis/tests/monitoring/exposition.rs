//! What a running Portcullis exports.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use testnet::{Namespace, http_get};

use crate::binary::Server;

/// The text of `/metrics` of a process with an upstream, on the kernel tier, which needs no rights: each series is there from the start, in
/// every tier.
pub fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(scrape)
}

fn scrape() -> String {
    let server = Server::start(&["--upstream", "127.0.0.1:9"]);
    let (status, text) = http_get(&Namespace::current(), server.admin, "/metrics").expect("scrape /metrics");
    assert_eq!(status, 200);
    text
}

/// The names of all series, histograms with the ends of theirs.
pub fn names() -> BTreeSet<&'static str> {
    let samples = text().lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    samples.map(|line| line.split(['{', ' ']).next().expect("a name")).collect()
}

/// The values of all labels.
pub fn label_values() -> BTreeSet<&'static str> {
    text().lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split('"').skip(1).step_by(2)).collect()
}

#[test]
fn what_is_exported_can_be_read() {
    assert!(names().contains("portcullis_handshake_duration_seconds_bucket"), "{:?}", names());
    assert!(names().contains("portcullis_upstream_up"), "{:?}", names());
    assert!(label_values().contains("connection_limit"), "{:?}", label_values());
}
