//! Answers for people, and for scripts.

use std::fmt::Write;

use exporter::status::KeysStatus;

use super::protocol::{
    Answer, Changed, Conn, Conns, Drained, Killed, ListenerStatus, Reloaded, Restarted, Rotated, Status, Top, Traffic,
    UpstreamStatus,
};

/// The answer as one line of JSON, without the word for what was asked.
///
/// # Errors
/// That of serde_json, which these types do not cause.
pub fn json(answer: &Answer) -> Result<String, serde_json::Error> {
    let line = match answer {
        Answer::Status(answer) => serde_json::to_string(answer),
        Answer::Conns(answer) => serde_json::to_string(answer),
        Answer::Top(answer) => serde_json::to_string(answer),
        Answer::Drain(answer) => serde_json::to_string(answer),
        Answer::Reload(answer) => serde_json::to_string(answer),
        Answer::Kill(answer) => serde_json::to_string(answer),
        Answer::Restart(answer) => serde_json::to_string(answer),
        Answer::RotateKeys(answer) => serde_json::to_string(answer),
        Answer::LogLevel(answer) => serde_json::to_string(answer),
        Answer::Error(answer) => serde_json::to_string(answer),
    };
    line.map(|line| line + "\n")
}

/// The answer as a few lines or a table.
pub fn text(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => status_text(status),
        Answer::Conns(conns) => conns_text(conns),
        Answer::Top(top) => top_text(top),
        Answer::Drain(drained) => drained_text(*drained),
        Answer::Reload(reloaded) => reloaded_text(reloaded),
        Answer::Kill(killed) => killed_text(killed),
        Answer::Restart(restarted) => restarted_text(*restarted),
        Answer::RotateKeys(rotated) => rotated_text(rotated),
        Answer::LogLevel(changed) => format!("log level {} (was {})\n", changed.new, changed.old),
        Answer::Error(refusal) => format!("{}\n", refusal.message),
    }
}

fn status_text(status: &Status) -> String {
    let Status { version, pid, uptime_seconds, draining, log_level, access_log, keys, listeners, .. } = status;
    let state = if *draining { "draining" } else { "running" };
    let mut text = format!("portcullis {version}, process {pid}, {state}, up {}\n", span(*uptime_seconds as f64));
    let _ = writeln!(text, "log level {log_level}");
    if let Some(log) = access_log {
        let _ = writeln!(text, "access log: {} lines written, {} dropped", log.written, log.dropped);
    }
    if let Some(KeysStatus { rotations, from_unix_seconds: Some(from) }) = keys {
        let word = if *from > status.unix_seconds { "in" } else { "since" };
        let _ = writeln!(
            text,
            "master key: {rotations} rotations, the last one in use {word} {}",
            span(from.abs_diff(status.unix_seconds) as f64)
        );
    }
    for listener in listeners {
        text.push('\n');
        text.push_str(&listener_text(listener));
    }
    text
}

fn listener_text(listener: &ListenerStatus) -> String {
    let bind: Vec<_> = listener.bind.iter().map(ToString::to_string).collect();
    let ListenerStatus { name, tier, mode, .. } = listener;
    let mut text = format!("{name}: {}\n", bind.join(", "));
    let mut row = |key: &str, value: String| {
        let _ = writeln!(text, "  {key:<14} {value}");
    };
    row("datapath", format!("{tier}, mode {mode}"));
    row("accept queue", format!("{} of {}", listener.accept_queue, listener.accept_queue_max));
    row("connections", format!("{} open, {} accepted", listener.open, listener.accepted));
    row("closed", counts(&listener.closed));
    if listener.refused.values().any(|count| *count > 0) {
        row("refused", counts(&listener.refused));
    }
    if let Some(states) = &listener.states {
        row("states", counts(states));
    }
    row("payload", traffic(listener.traffic));
    listener.upstreams.iter().for_each(|server| row("upstream", upstream_text(server)));
    if mode == "kernel" {
        return text; // What is below is counted where we answer SYNs.
    }
    row("half-open", format!("{} of {}", listener.half_open, listener.half_open_max));
    row("SYNs", listener.syns.to_string());
    let ListenerStatus { cookies_sent, cookies_valid, cookies_bad, ring_dropped, .. } = listener;
    row("cookies", format!("{cookies_sent} sent, {cookies_valid} valid, {cookies_bad} bad"));
    row("dropped", counts(&listener.dropped));
    row("ring overruns", ring_dropped.to_string());
    text
}

fn upstream_text(server: &UpstreamStatus) -> String {
    let UpstreamStatus { server, up, connections, connects, connect_failures, check_failures, last_error } = server;
    let state = if *up { "up" } else { "DOWN" };
    let mut text = format!("{server} {state}, {connections} open, {connects} connects, {connect_failures} failed");
    if *check_failures > 0 {
        let _ = write!(text, ", {check_failures} checks failed");
    }
    if let (false, Some(error)) = (up, last_error) {
        let _ = write!(text, " ({error})");
    }
    text
}

/// What occurred, by reason.
fn counts(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let occurred: Vec<_> =
        counts.iter().filter(|(_, count)| **count > 0).map(|(reason, count)| format!("{count} {reason}")).collect();
    if occurred.is_empty() { "0".to_owned() } else { occurred.join(", ") }
}

fn conns_text(conns: &Conns) -> String {
    let heads = ["ID", "PEER", "CLIENT", "LOCAL", "LISTENER", "AGE", "RECEIVED", "SENT", "STATE", "VIA", "BEHIND"];
    let rows = conns.connections.iter().map(conn_row);
    let mut text = table(heads, rows);
    let shown = conns.connections.len();
    if shown < conns.matching {
        let _ = writeln!(text, "{shown} of {} (--limit shows more)", conns.matching);
    }
    text
}

fn conn_row(conn: &Conn) -> [String; 11] {
    let unknown = || "-".to_owned();
    [
        conn.id.to_string(),
        conn.peer.to_string(),
        conn.client.map_or_else(unknown, |client| client.to_string()),
        conn.local.to_string(),
        conn.listener.clone(),
        span(conn.age_seconds),
        size(conn.traffic.received_bytes),
        size(conn.traffic.sent_bytes),
        conn.state.clone().unwrap_or_else(unknown),
        conn.via.clone(),
        conn.upstream.clone().or_else(|| conn.service.clone()).unwrap_or_else(unknown),
    ]
}

fn top_text(top: &Top) -> String {
    let rows = top.top.iter().map(|entry| {
        let Traffic { received_bytes, sent_bytes } = entry.traffic;
        [entry.prefix.to_string(), entry.open.to_string(), size(received_bytes), size(sent_bytes)]
    });
    let mut text = table(["PREFIX", "OPEN", "RECEIVED", "SENT"], rows);
    if top.top.len() < top.prefixes {
        let _ = writeln!(text, "{} of {} prefixes (--limit shows more)", top.top.len(), top.prefixes);
    }
    text
}

fn drained_text(drained: Drained) -> String {
    let Drained { already, open, deadline_seconds } = drained;
    let word = if already { "draining already" } else { "draining" };
    format!("{word}: {open} open, closed {deadline_seconds} s after the beginning\n")
}

fn restarted_text(Restarted { pid, open, deadline_seconds }: Restarted) -> String {
    format!(
        "process {pid} has taken over; {open} open connections have {deadline_seconds} s to finish with the old one\n"
    )
}

fn rotated_text(rotated: &Rotated) -> String {
    let Rotated { from_unix_seconds, in_seconds, source } = rotated;
    format!("master key of {source}: in use in {in_seconds} s (Unix time {from_unix_seconds})\n")
}

fn reloaded_text(reloaded: &Reloaded) -> String {
    let mut text = format!("reloaded, {} changed\n", reloaded.changes.len());
    for Changed { key, from, to } in &reloaded.changes {
        let _ = writeln!(text, "  {key}: {from} -> {to}");
    }
    text
}

fn killed_text(killed: &Killed) -> String {
    let mut text = format!("{} killed\n", killed.killed);
    for id in &killed.unknown {
        let _ = writeln!(text, "{id}: no such connection");
    }
    text
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn traffic(traffic: Traffic) -> String {
    format!("{} received, {} sent", size(traffic.received_bytes), size(traffic.sent_bytes))
}

/// Bytes with three digits or so.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time with its two largest units.
pub fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds:.1}s"),
        (0, 0, minutes) => format!("{minutes}m{rest:02}s"),
        (0, hours, minutes) => format!("{hours}h{minutes:02}m"),
        (days, hours, _) => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_few_digits() {
        for (seconds, shown) in
            [(0.25, "0.2s"), (59.9, "59.9s"), (60.0, "1m00s"), (3725.0, "1h02m"), (90_000.0, "1d01h")]
        {
            assert_eq!(span(seconds), shown);
        }
        for (bytes, shown) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (u64::MAX, "16384.0 PiB")]
        {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn connections_are_a_table_with_a_line_each() {
        let conn = Conn {
            id: 7,
            peer: "198.18.0.1:40000".parse().unwrap(),
            client: None,
            local: "198.18.0.2:80".parse().unwrap(),
            listener: "web".into(),
            age_seconds: 65.0,
            traffic: Traffic { received_bytes: 12, sent_bytes: 2048 },
            state: Some("ESTABLISHED".into()),
            via: "cookie".into(),
            service: None,
            upstream: Some("198.18.0.3:80".into()),
        };
        assert_eq!(
            conns_text(&Conns { matching: 5, connections: vec![conn] }),
            "ID  PEER              CLIENT  LOCAL          LISTENER  AGE    RECEIVED  SENT     STATE        VIA     BEHIND\n\
             7   198.18.0.1:40000  -       198.18.0.2:80  web       1m05s  12 B      2.0 KiB  ESTABLISHED  cookie  198.18.0.3:80\n\
             1 of 5 (--limit shows more)\n"
        );
    }

    #[test]
    fn json_is_the_answer_alone() {
        let answer = Answer::Kill(Killed { killed: 2, unknown: vec![9] });
        assert_eq!(json(&answer).unwrap(), "{\"killed\":2,\"unknown\":[9]}\n");
        assert_eq!(text(&answer), "2 killed\n9: no such connection\n");
    }
}
