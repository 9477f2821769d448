//! What a kernel counts, and the states of its sockets.

use std::collections::BTreeMap;
use std::fs;

use crate::namespace::Namespace;

/// The counters of `/proc/net/snmp` and `/proc/net/netstat` of one namespace, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    values: BTreeMap<String, i64>,
}

impl Counters {
    /// Reads the counters of a namespace.
    pub fn of(namespace: &Namespace) -> Counters {
        let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("kernel counters");
        let text = namespace.run(|| read("snmp") + &read("netstat"));
        Counters { values: parse(&text) }
    }

    /// A counter by its group and name as nstat(8) joins them: `TcpOutRsts`, `TcpExtTCPChallengeACK`.
    ///
    /// # Panics
    /// When this kernel has no such counter.
    pub fn get(&self, name: &str) -> i64 {
        *self.values.get(name).unwrap_or_else(|| panic!("this kernel counts no {name}"))
    }
}

/// Pairs of lines: the names, then the values, each behind the group's name.
fn parse(text: &str) -> BTreeMap<String, i64> {
    let mut values = BTreeMap::new();
    let mut lines = text.lines();
    while let (Some(names), Some(numbers)) = (lines.next(), lines.next()) {
        let group = names.split(':').next().unwrap_or_default();
        for (name, number) in names.split_whitespace().zip(numbers.split_whitespace()).skip(1) {
            values.insert(format!("{group}{name}"), number.parse().expect("a number"));
        }
    }
    values
}

/// How many TCP sockets of a local port `ss` sees in each state; states without a socket are absent.
///
/// The names are those of node_exporter and of `portcullis_connections`: `established`, `fin_wait1`, `close_wait`.
///
/// # Panics
/// When `ss` is missing or fails.
pub fn states(namespace: &Namespace, port: u16) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in namespace.output("ss", &format!("--numeric --tcp --all --no-header sport = :{port}")).lines() {
        *counts.entry(state_name(line.split_whitespace().next().unwrap_or_default())).or_default() += 1;
    }
    counts
}

fn state_name(ss: &str) -> String {
    match ss {
        "ESTAB" => "established".to_owned(),
        "UNCONN" => "close".to_owned(),
        other => other.to_lowercase().replace("wait-", "wait").replace('-', "_"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::isolated;

    #[test]
    fn pairs_of_lines_are_joined() {
        let values = parse("Tcp: MaxConn OutRsts\nTcp: -1 7\nTcpExt: SyncookiesSent\nTcpExt: 3\n");
        let expected = [("TcpExtSyncookiesSent", 3), ("TcpMaxConn", -1), ("TcpOutRsts", 7)];
        assert_eq!(values, expected.map(|(name, value)| (name.to_owned(), value)).into());
    }

    #[test]
    fn the_names_of_ss_become_those_of_the_metrics() {
        let names =
            ["ESTAB", "FIN-WAIT-1", "TIME-WAIT", "CLOSE-WAIT", "SYN-RECV", "LAST-ACK", "CLOSING"].map(state_name);
        let expected = ["established", "fin_wait1", "time_wait", "close_wait", "syn_recv", "last_ack", "closing"];
        assert_eq!(names, expected);
    }

    #[test]
    fn states_and_counters_follow_a_connection() {
        isolated!(|| {
            let namespace = Namespace::new();
            let before = Counters::of(&namespace);
            let listener = namespace.run(|| TcpListener::bind("127.0.0.1:80").unwrap());
            let client = namespace.run(|| TcpStream::connect("127.0.0.1:80").unwrap());
            let accepted = listener.accept().unwrap().0;
            let expected = [("established".to_owned(), 1), ("listen".to_owned(), 1)];
            assert_eq!(states(&namespace, 80), expected.into());
            drop(client);
            assert_eq!(accepted.peer_addr().unwrap().ip().to_string(), "127.0.0.1");
            assert_eq!(Counters::of(&namespace).get("TcpPassiveOpens"), before.get("TcpPassiveOpens") + 1);
        });
    }
}
