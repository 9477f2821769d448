//! One snapshot as text or JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::rates::{Rates, elapsed, rates};
use super::sample::Sample;
use super::words::{compact, per_second, printable};
use crate::control::{ListenerStatus, Status, Top, size, span};
use crate::failure::Failure;

/// The snapshot for scripts: the later answers as they came, and for each listener what happened in a second.
#[derive(Serialize)]
struct Snapshot<'a> {
    /// Between the two looks, by the clock of the process; `null` if it was another one at the second.
    interval_seconds: Option<f64>,
    /// By listener; `null` where there is nothing to compare with.
    per_second: BTreeMap<&'a str, Option<Rates>>,
    status: &'a Status,
    top: &'a Top,
}

/// As one line.
///
/// # Errors
/// That of serde_json, which these types do not cause.
pub fn json(before: &Sample, after: &Sample) -> Result<String, Failure> {
    let names = after.status.listeners.iter().map(|listener| listener.name.as_str());
    let snapshot = Snapshot {
        interval_seconds: elapsed(before, after),
        per_second: names.map(|name| (name, rates(before, after, name))).collect(),
        status: &after.status,
        top: &after.top,
    };
    let line = serde_json::to_string(&snapshot).map_err(|error| Failure::runtime("cannot write JSON", error))?;
    Ok(line + "\n")
}

/// As a few lines for each listener.
pub fn text(before: &Sample, after: &Sample) -> String {
    let status = &after.status;
    let state = if status.draining { "draining" } else { "running" };
    let mut text = format!(
        "portcullis {}, process {}, {state}, up {}; rates over {}\n",
        printable(&status.version),
        status.pid,
        span(status.uptime_seconds as f64),
        elapsed(before, after)
            .map_or_else(|| "nothing: it has been started anew".to_owned(), |seconds| format!("{seconds:.1} s")),
    );
    for listener in &status.listeners {
        text.push('\n');
        text.push_str(&listener_text(listener, rates(before, after, &listener.name), status.unix_seconds));
    }
    let _ = writeln!(text, "\nprefixes with most connections ({} in all)", after.top.prefixes);
    for entry in after.top.top.iter().take(10) {
        let (received, sent) = (size(entry.traffic.received_bytes), size(entry.traffic.sent_bytes));
        let _ =
            writeln!(text, "  {:<20} {} open, {received} received, {sent} sent", entry.prefix.to_string(), entry.open);
    }
    text
}

fn listener_text(listener: &ListenerStatus, rates: Option<Rates>, now: u64) -> String {
    let bind: Vec<_> = listener.bind.iter().map(ToString::to_string).collect();
    let mut text = format!("{}: {}\n", printable(&listener.name), bind.join(", "));
    let mut row = |key: &str, value: String| {
        let _ = writeln!(text, "  {key:<14} {value}");
    };
    let rate = |of: fn(&Rates) -> f64| per_second(rates.as_ref().map(of));
    row("datapath", format!("{}, mode {}", printable(&listener.tier), printable(&listener.mode)));
    row("SYNs", format!("{}, SYN-ACKs {}", rate(|r| r.syns), rate(|r| r.synacks_sent)));
    let cookies = [rate(|r| r.cookies_sent), rate(|r| r.cookies_valid), rate(|r| r.cookies_bad)];
    row("cookies", format!("{} sent, {} valid, {} bad", cookies[0], cookies[1], cookies[2]));
    row("half-open", format!("{} of {}", listener.half_open, listener.half_open_max));
    row("accept queue", format!("{} of {}", listener.accept_queue, listener.accept_queue_max));
    row(
        "connections",
        format!("{} open, {} accepted, {} closed", listener.open, rate(|r| r.accepted), rate(|r| r.closed)),
    );
    row("refused", format!("{}{}", rate(|r| r.refused), parts(&listener.refused)));
    let bytes =
        |of: fn(&Rates) -> f64| rates.as_ref().map_or_else(|| "-".to_owned(), |r| format!("{}/s", size(of(r) as u64)));
    row("payload", format!("{} received, {} sent", bytes(|r| r.received_bytes), bytes(|r| r.sent_bytes)));
    let lost = [rate(|r| r.dropped), rate(|r| r.ring_dropped)];
    row("dropped", format!("{}, ring overruns {}", lost[0], lost[1]));
    if let Some(states) = &listener.states {
        let states: Vec<_> = states.iter().map(|(state, count)| format!("{count} {}", printable(state))).collect();
        row("states", states.join(", "));
    }
    for switch in listener.switches.iter().rev().take(5) {
        row(
            "switched",
            format!("to {}, {} ago", printable(&switch.to), span(now.saturating_sub(switch.unix_seconds) as f64)),
        );
    }
    for server in &listener.upstreams {
        let state = if server.up { "up" } else { "DOWN" };
        let (open, connects) = (server.connections, compact(server.connects as f64));
        let failed = compact(server.connect_failures as f64);
        row(
            "upstream",
            format!("{} {state}, {open} open, {connects} connects, {failed} failed", printable(&server.server)),
        );
    }
    text
}

/// What occurred since the start, by reason.
fn parts(counts: &BTreeMap<String, u64>) -> String {
    let occurred: Vec<_> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{count} {}", printable(reason)))
        .collect();
    if occurred.is_empty() { String::new() } else { format!(" (since the start: {})", occurred.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{a_second_later, sample};
    use super::*;

    #[test]
    fn text_has_a_line_for_each_thing() {
        let text = text(&sample(), &a_second_later());
        for line in [
            "portcullis 0.1.0, process 4711, running, up 1h02m; rates over 1.0 s",
            "web: 198.18.0.1:443",
            "  datapath       raw, mode cookies",
            "  SYNs           48.1k/s, SYN-ACKs 48.0k/s",
            "  cookies        47.9k/s sent, 12/s valid, 0/s bad",
            "  half-open      3072 of 4096",
            "  connections    12 open, 30/s accepted, 25/s closed",
            "  refused        2/s (since the start: 5 denied)",
            "  payload        0 B/s received, 3.0 MiB/s sent",
            "  switched       to cookies, 12.0s ago",
            "  upstream       unix:/run/app.sock DOWN, 0 open, 3 connects, 3 failed",
            "api: [2001:db8::1]:80",
            "  198.18.2.0/24        7 open, 100 B received, 200 B sent",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line:?} in:\n{text}");
        }
    }

    #[test]
    fn json_has_the_rates_beside_the_answers() {
        let (before, mut after) = (sample(), a_second_later());
        after.status.listeners[1].name = "new\u{1b}[31m".to_owned();
        let line = json(&before, &after).unwrap();
        assert!(!line.contains('\u{1b}'), "JSON escapes it");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["interval_seconds"], 1.0);
        assert_eq!(value["per_second"]["web"]["syns"], 48_123.0);
        assert!(value["per_second"]["new\u{1b}[31m"].is_null());
        assert_eq!(value["status"]["listeners"][0]["mode"], "cookies");
        assert_eq!(value["top"]["prefixes"], 3);
    }
}
