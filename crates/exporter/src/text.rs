//! The little of the Prometheus text format, version 0.0.4, that the metrics crate leaves to us.
//!
//! It cannot set a histogram to finished bucket counts, it has no counter of fractions, and it renders in the order of a hash
//! table, which no human can read.

use std::fmt::{Display, Write};

use metrics_exporter_prometheus::formatting::{sanitize_label_value, write_help_line, write_type_line};

use crate::catalog::{self, Family};
use crate::surroundings::UpstreamCounts;

/// The same exposition with its families, and the series in each, in the order of their names.
pub(crate) fn sorted(exposition: &str) -> String {
    // The renderer ends every family with an empty line, and escapes line feeds within one.
    let mut families: Vec<&str> = exposition.split("\n\n").filter(|family| !family.is_empty()).collect();
    families.sort_unstable_by_key(|family| name_of(family));
    let mut sorted = String::with_capacity(exposition.len() + 1);
    for family in families {
        let (comments, mut series): (Vec<&str>, Vec<&str>) = family.lines().partition(|line| line.starts_with('#'));
        series.sort_unstable();
        for line in comments.into_iter().chain(series) {
            sorted.push_str(line);
            sorted.push('\n');
        }
        sorted.push('\n');
    }
    sorted
}

/// The name in a family's first comment, which is `# HELP name …` or `# TYPE name …`.
fn name_of(family: &str) -> &str {
    family.split(' ').nth(2).unwrap_or(family)
}

/// Writes one counter that counts in fractions.
pub(crate) fn write_counter(out: &mut String, family: &Family, value: f64) {
    write_head(out, family, "counter");
    write_line(out, family.name, "", "", value);
    out.push('\n');
}

/// A histogram and the labels it has.
pub(crate) struct Labelled<'a> {
    /// As written, without braces.
    pub(crate) labels: String,
    pub(crate) bounds: &'a [f64],
    /// Per bucket, not cumulative, the unbounded one last.
    pub(crate) counts: &'a [u64],
    pub(crate) sum: f64,
}

/// Writes the histograms of one family.
pub(crate) fn write_histograms<'a>(out: &mut String, family: &Family, histograms: impl Iterator<Item = Labelled<'a>>) {
    let mut histograms = histograms.peekable();
    if histograms.peek().is_none() {
        return;
    }
    write_head(out, family, "histogram");
    for Labelled { labels, bounds, counts, sum } in histograms {
        let mut below = 0;
        for (bound, count) in bounds.iter().zip(counts) {
            below += count;
            write_line(out, family.name, "_bucket", &format!("{labels},le=\"{bound}\""), below);
        }
        // "+Inf" must equal the count, so both come from the same sum of the same buckets.
        let count: u64 = counts.iter().sum();
        write_line(out, family.name, "_bucket", &format!("{labels},le=\"+Inf\""), count);
        write_line(out, family.name, "_sum", &labels, sum);
        write_line(out, family.name, "_count", &labels, count);
    }
    out.push('\n');
}

/// The label of a listener.
pub(crate) fn listener_label(listener: &str) -> String {
    format!("listener=\"{}\"", sanitize_label_value(listener))
}

/// Writes the servers behind each listener, as they are now.
pub(crate) fn write_upstreams(out: &mut String, upstreams: &[(String, Vec<UpstreamCounts>)]) {
    type Value = fn(&UpstreamCounts) -> u64;
    let plain: [(&Family, &str, Value); 4] = [
        (&catalog::UPSTREAM_UP, "gauge", |server| u64::from(server.up)),
        (&catalog::UPSTREAM_CONNECTIONS, "gauge", |server| server.connections),
        (&catalog::UPSTREAM_CONNECTS, "counter", |server| server.connects),
        (&catalog::UPSTREAM_CHECK_FAILURES, "counter", |server| server.check_failures),
    ];
    let servers: Vec<(String, &UpstreamCounts)> = upstreams
        .iter()
        .flat_map(|(listener, servers)| servers.iter().map(move |server| (server_labels(listener, server), server)))
        .collect();
    if servers.is_empty() {
        return;
    }
    for (family, kind, value) in plain {
        write_head(out, family, kind);
        for (labels, server) in &servers {
            write_line(out, family.name, "", labels, value(server));
        }
        out.push('\n');
    }
    let failures = &catalog::UPSTREAM_CONNECT_FAILURES;
    write_head(out, failures, "counter");
    for (labels, server) in &servers {
        for (reason, count) in &server.connect_failures {
            write_line(out, failures.name, "", &format!("{labels},reason=\"{reason}\""), count);
        }
    }
    out.push('\n');
    let durations = servers.iter().map(|(labels, server)| Labelled {
        labels: labels.clone(),
        bounds: server.connect_durations.bounds,
        counts: &server.connect_durations.counts,
        sum: server.connect_durations.sum,
    });
    write_histograms(out, &catalog::UPSTREAM_CONNECT_DURATION, durations);
}

fn server_labels(listener: &str, server: &UpstreamCounts) -> String {
    format!("{},server=\"{}\"", listener_label(listener), sanitize_label_value(&server.server))
}

fn write_head(out: &mut String, family: &Family, kind: &str) {
    write_help_line(out, family.name, None, None, family.help);
    write_type_line(out, family.name, None, None, kind);
}

fn write_line(out: &mut String, name: &str, suffix: &str, labels: &str, value: impl Display) {
    let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{name}{suffix}{open}{labels}{close} {value}");
}

#[cfg(test)]
mod tests {
    use listener::HANDSHAKE_BUCKETS;

    use super::*;

    #[test]
    fn families_and_their_series_are_put_in_order() {
        let given = "# HELP b x\n# TYPE b gauge\nb{l=\"2\"} 1\nb{l=\"1\"} 2\n\n# TYPE a counter\na 1\n\n";
        let wanted = "# TYPE a counter\na 1\n\n# HELP b x\n# TYPE b gauge\nb{l=\"1\"} 2\nb{l=\"2\"} 1\n\n";
        assert_eq!(sorted(given), wanted);
        assert_eq!(sorted(""), "");
    }

    #[test]
    fn buckets_are_cumulative_and_the_last_equals_the_count() {
        let mut buckets = [0; HANDSHAKE_BUCKETS.len() + 1];
        buckets[0] = 2;
        buckets[11] = 3;
        buckets[12] = 4;
        let mut out = String::new();
        let labels = listener_label("we\"b");
        let handshakes = Labelled { labels, bounds: &HANDSHAKE_BUCKETS, counts: &buckets, sum: 61.25 };
        write_histograms(&mut out, &catalog::HANDSHAKE_DURATION, std::iter::once(handshakes));
        let lines: Vec<&str> = out.lines().collect();
        let name = catalog::HANDSHAKE_DURATION.name;
        assert_eq!(lines[2], format!("{name}_bucket{{listener=\"we\\\"b\",le=\"0.0005\"}} 2"));
        assert_eq!(lines[12], format!("{name}_bucket{{listener=\"we\\\"b\",le=\"3\"}} 2"));
        assert_eq!(lines[13], format!("{name}_bucket{{listener=\"we\\\"b\",le=\"7\"}} 5"));
        assert_eq!(lines[14], format!("{name}_bucket{{listener=\"we\\\"b\",le=\"+Inf\"}} 9"));
        assert_eq!(lines[15], format!("{name}_sum{{listener=\"we\\\"b\"}} 61.25"));
        assert_eq!(lines[16], format!("{name}_count{{listener=\"we\\\"b\"}} 9"));
    }
}
