//! `docs/metrics.md`, from the code: what is exported by a process with one listener and one upstream.
//!
//! `PORTCULLIS_WRITE_DOCS=1 cargo test -p exporter --lib metrics_doc` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use connection::upstream::{ConnectFailure, Pool, PoolConfig};
use connection::{CloseReason, ConnectionStats, DurationCounts, Refused};
use listener::Transition;

use crate::catalog::{self, Family};
use crate::testing::{FakeSockets, FakeSource, reporter};
use crate::{Exporter, Histogram, Surroundings, UpstreamCounts};

const INTRODUCTION: &str = "\
# Metrics

<!-- Written by `PORTCULLIS_WRITE_DOCS=1 cargo test -p exporter --lib metrics_doc`: change the code, not this file. -->

What `/metrics` of the admin server says, in the Prometheus text format 0.0.4. `listener` is the name in the configuration, `server` an
upstream as the configuration has it. No label has a client's address, so the number of series does not depend on who comes.

Every series is there from the first scrape on, at 0. Counters begin at 0 when the process starts; after `portcullis ctl restart` the new
process begins anew. Labels whose values are listed have no others.

What comes from the kernel is fetched at each scrape, but for the sockets by state: they are counted at most once a second, however many
scrape and look, so that these counts are up to a second old. If that fails, the series keep their last
values and `portcullis_collector_success` is 0 for as long: look at it before you believe a flat line.

What always holds, when nothing is under way between two readings:

- `portcullis_half_open` = `portcullis_half_open_inserted_total` − the sum of `portcullis_half_open_removed_total`
- `portcullis_connections_open` = `portcullis_connections_accepted_total` − the sum of `portcullis_connections_closed_total`
- the sum of `portcullis_connections_closed_total` = `portcullis_connection_duration_seconds_count`
- ACKs whose cookie was judged here = `portcullis_syncookies_valid_total` + the sum of `portcullis_syncookies_invalid_total`; in datapath
  `bpf` these are all handshakes that were completed, and of the bad cookies those that came under pressure: while it is calm the kernel
  refuses them, and no counter here moves
- `portcullis_upstream_connects_total` = `portcullis_upstream_connect_duration_seconds_count` + the sum of
  `portcullis_upstream_connect_failures_total`
";

/// Where others count the same thing, or nearly.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "`SyncookiesSent` of TcpExt; node_exporter `node_netstat_TcpExt_SyncookiesSent`",
        "portcullis_syncookies_sent_total",
        "",
    ),
    (
        "`SyncookiesRecv` of TcpExt; `cookie_valid` of `/proc/net/stat/synproxy`",
        "portcullis_syncookies_valid_total",
        "",
    ),
    (
        "`SyncookiesFailed` of TcpExt; `cookie_invalid` of synproxy",
        "portcullis_syncookies_invalid_total",
        "the kernel gives no reasons",
    ),
    ("`syn_received` of synproxy", "portcullis_syns_received_total", ""),
    ("`TCPReqQFullDoCookies` of TcpExt", "portcullis_half_open_bypassed_total", ""),
    ("`TCPReqQFullDrop` of TcpExt", "", "none: a full queue is no reason to drop a SYN here"),
    ("`ListenOverflows` of TcpExt", "portcullis_accept_queue_overflows_total", "the handshake waits, and is not lost"),
    ("`TCPChallengeACK` of TcpExt", "portcullis_challenge_acks_sent_total", ""),
    ("`OutRsts` of Tcp", "portcullis_resets_sent_total", "the kernel counts its own alone"),
    (
        "node_exporter `node_tcp_connection_states`",
        "portcullis_connections",
        "the same spelling of states, but all eleven are there, and nothing that is no state",
    ),
    (
        "HAProxy `haproxy_frontend_current_sessions`, `_limit_sessions`",
        "portcullis_connections_open",
        "and `portcullis_connections_limit`",
    ),
    ("HAProxy `haproxy_frontend_sessions_total`", "portcullis_connections_accepted_total", ""),
    ("HAProxy `haproxy_frontend_denied_connections_total`", "portcullis_connections_refused_total", ""),
    (
        "HAProxy `haproxy_frontend_bytes_in_total`, `_bytes_out_total`",
        "portcullis_received_bytes_total",
        "and `portcullis_sent_bytes_total`",
    ),
    ("HAProxy `haproxy_process_stopping`", "portcullis_draining", ""),
    ("Envoy `downstream_cx_length_ms`", "portcullis_connection_duration_seconds", "in seconds"),
    ("Envoy `downstream_cx_overflow`", "portcullis_connections_refused_total", "`reason=\"connection_limit\"`"),
];

/// Names and words that one may look for, by the habits of the trade, and what became of them here.
const NOT_HERE: &[(&str, &str, &str)] = &[
    ("`kernel_tcp_sockets`", "portcullis_connections", "of each listener's addresses, and not of the whole host"),
    ("`connections_rejected_total`", "portcullis_connections_refused_total", ""),
    (
        "`connections_rejected_total`, reason `draining`",
        "portcullis_packets_dropped_total",
        "`reason=\"draining\"`: it is the SYN that gets no answer",
    ),
    (
        "`connections_rejected_total`, reason `no_backend`",
        "portcullis_upstream_connect_failures_total",
        "the client was accepted, and is in `portcullis_connections_closed_total`",
    ),
    (
        "`connections_rejected_total`, reason `fd_limit`",
        "portcullis_handshakes_refused_total",
        "`reason=\"no_descriptors\"`",
    ),
    ("`backend_*`", "portcullis_upstream_up", "and the others of `portcullis_upstream_`"),
    (
        "label `queue` of the ring's counters",
        "portcullis_ring_received_packets_total",
        "by listener; the rings of its workers are added up",
    ),
    (
        "`syncookies_invalid_total`, reason `bad_mss`",
        "portcullis_syncookies_invalid_total",
        "`reason=\"bad_mac\"`: the MAC covers the MSS",
    ),
    (
        "`syncookies_invalid_total`, reason `replay`",
        "",
        "none: no record is kept of cookies that were used; one that comes again in its lifetime is valid",
    ),
    ("`half_open_removed_total`, reason `evicted`", "", "none: no entry has to go for another one"),
    ("`packets_dropped_total`, reason `rate_limited`", "portcullis_packets_dropped_total", "`reason=\"over_budget\"`"),
    (
        "`packets_dropped_total`, reasons `no_buffer`, `tx_error`",
        "portcullis_transmit_errors_total",
        "both: the reply was lost, not the segment",
    ),
];

/// What has every label value that there can be.
struct Everything;

impl Surroundings for Everything {
    fn upstreams(&self) -> Vec<(String, Vec<UpstreamCounts>)> {
        let server = UpstreamCounts {
            server: "198.18.0.3:80".to_owned(),
            connect_failures: ConnectFailure::ALL.map(|kind| (kind.label(), 0)).to_vec(),
            connect_durations: connect_durations(),
            ..UpstreamCounts::default()
        };
        vec![("web".to_owned(), vec![server])]
    }
}

fn connect_durations() -> Histogram {
    let server = "198.18.0.3:80".parse().unwrap();
    let view = Pool::new(PoolConfig::new(vec![server])).unwrap().view().swap_remove(0);
    let DurationCounts { bounds, counts, sum } = view.durations;
    Histogram { bounds, counts, sum }
}

fn exporter() -> Exporter {
    let web = FakeSource::new("web", "raw", "198.18.0.1:80");
    let DurationCounts { bounds, counts, sum } = ConnectionStats::default().durations();
    web.set(|values| {
        values.connections.closed = CloseReason::ALL.map(|reason| (reason.label(), 0)).to_vec();
        values.connections.refused = Refused::ALL.map(|reason| (reason.label(), 0)).to_vec();
        values.connections.durations = Histogram { bounds, counts, sum };
    });
    Exporter::of(Arc::new(reporter(&[web], &FakeSockets::default()).with_surroundings(Arc::new(Everything)))).unwrap()
}

/// What an exposition says of a family: its type, and the values of each label.
#[derive(Default)]
struct Seen {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn seen(exposition: &str) -> BTreeMap<String, Seen> {
    let mut families: BTreeMap<String, Seen> = BTreeMap::new();
    let mut current = String::new();
    for line in exposition.lines().filter(|line| !line.is_empty() && !line.starts_with("# HELP")) {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            families.entry(current.clone()).or_default().kind = kind.to_owned();
            continue;
        }
        let Some((labels, _)) = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')) else { continue };
        // None of the values here has a comma or a quotation mark.
        for (label, value) in labels.split(',').filter_map(|pair| pair.split_once('=')) {
            let values = families.get_mut(&current).expect("a type before its series").labels.entry(label.to_owned());
            values.or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    families
}

/// Labels whose values are not ours to choose, or say the same everywhere.
const OPEN: [&str; 6] = ["listener", "server", "version", "commit", "datapath", "le"];

fn labels(seen: &Seen) -> String {
    let own = seen.labels.iter().filter(|(label, _)| *label != "le");
    let told = own.map(|(label, values)| {
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        if OPEN.contains(&&**label) { format!("`{label}`") } else { format!("`{label}`: {}", values.join(", ")) }
    });
    told.collect::<Vec<_>>().join("; ")
}

fn row(Family { name, help }: &Family, seen: &Seen) -> String {
    let labels = match *name {
        // A table of eleven by eleven would be no help to anybody.
        "portcullis_state_transitions_total" => {
            format!("`listener`; `from`, `to`: states as in `portcullis_connections`, {} steps", Transition::ALL.len())
        }
        _ => labels(seen),
    };
    format!("| `{name}` | {} | {labels} | {} |\n", seen.kind, help.replace('|', "\\|"))
}

fn buckets(exposition: &str, family: &str) -> Vec<String> {
    let prefix = format!("{family}_bucket{{");
    let bounds = exposition.lines().filter(|line| line.starts_with(&prefix));
    bounds.filter_map(|line| Some(line.split_once("le=\"")?.1.split_once('"')?.0.to_owned())).collect()
}

async fn document() -> String {
    let exposition = exporter().render().await.unwrap();
    let seen = seen(&exposition);
    let mut out = INTRODUCTION.to_owned();
    for subject in catalog::SUBJECTS {
        let _ = write!(out, "\n## {}\n\n", subject.title);
        if !subject.note.is_empty() {
            let _ = write!(out, "{}\n\n", subject.note);
        }
        out += "| name | type | labels | meaning |\n|---|---|---|---|\n";
        for family in subject.families {
            out += &row(family, seen.get(family.name).unwrap_or_else(|| panic!("{} is not exported", family.name)));
        }
        for family in subject.families.iter().filter(|family| seen[family.name].kind == "histogram") {
            let bounds = buckets(&exposition, family.name);
            if bounds.len() > 1 {
                let _ = write!(out, "\nBuckets of `{}`: {}.\n", family.name, bounds.join(", "));
            }
        }
    }
    for (title, names) in [("What others call it", ELSEWHERE), ("Names that are not here", NOT_HERE)] {
        let _ = write!(out, "\n## {title}\n\n| there | here | difference |\n|---|---|---|\n");
        for (there, here, difference) in names {
            let here = if here.is_empty() { String::new() } else { format!("`{here}`") };
            let _ = writeln!(out, "| {there} | {here} | {difference} |");
        }
    }
    out
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md")
}

#[tokio::test]
async fn the_document_says_what_the_code_exports() {
    let document = document().await;
    if std::env::var_os("PORTCULLIS_WRITE_DOCS").is_some() {
        std::fs::write(path(), &document).expect("write docs/metrics.md");
    }
    let written = std::fs::read_to_string(path()).expect("docs/metrics.md");
    let differs = document.lines().zip(written.lines()).find(|(new, old)| new != old);
    assert!(
        document == written,
        "docs/metrics.md is not what the code exports ({differs:?}); to write it anew: \
         PORTCULLIS_WRITE_DOCS=1 cargo test -p exporter --lib metrics_doc"
    );
}

#[test]
fn what_is_compared_with_others_is_ours() {
    for (there, here, _) in ELSEWHERE.iter().chain(NOT_HERE) {
        assert!(here.is_empty() || catalog::all().any(|family| family.name == *here), "{there}: {here}");
    }
}

#[tokio::test]
async fn no_label_is_named_like_one_of_the_scraper() {
    for (name, seen) in seen(&exporter().render().await.unwrap()) {
        for label in seen.labels.keys() {
            assert!(!["job", "instance", "service", "region", "cluster", "env", "type"].contains(&&**label), "{name}");
        }
    }
}
