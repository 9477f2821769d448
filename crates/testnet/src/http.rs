//! A tiny HTTP client, and a reader for the Prometheus text format.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::namespace::Namespace;

const TIMEOUT: Duration = Duration::from_secs(5);

/// GETs a path of a server seen from a namespace; returns the status code and the body.
///
/// # Errors
/// Those of the connection, and `InvalidData` for an answer that is not HTTP.
pub fn http_get(namespace: &Namespace, server: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = namespace.run(|| TcpStream::connect_timeout(&server, TIMEOUT))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0, so that the answer is not chunked and ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    split(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, answer.clone()))
}

fn split(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// The samples of one scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Metrics {
    /// Reads the Prometheus text format 0.0.4.
    ///
    /// # Panics
    /// With the line that is not of that format.
    pub fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample = |line: &str| parse_sample(line).unwrap_or_else(|| panic!("not a sample: {line}"));
        Metrics { samples: lines.map(sample).collect() }
    }

    /// The sum of all samples of this name that carry these labels; `None` when there is none.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let carries = |has: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| has.get(*key).is_some_and(|found| found == value))
        };
        let found = self.samples.iter().filter(|(found, has, _)| found == name && carries(has));
        found.map(|(_, _, value)| *value).reduce(|sum, value| sum + value)
    }

    /// The sum of all samples of this name, grouped by the value of one label.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut groups = BTreeMap::new();
        for (_, labels, value) in self.samples.iter().filter(|(found, ..)| found == name) {
            *groups.entry(labels.get(label).cloned().unwrap_or_default()).or_insert(0.0) += value;
        }
        groups
    }

    /// The names of all samples, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.samples.iter().map(|(name, ..)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn parse_sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let name_len = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_len);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while let Some((key, after)) = rest.split_once("=\"") {
            if key.contains('}') {
                break;
            }
            let (value, after) = quoted(after)?;
            labels.insert(key.trim_start_matches(',').to_owned(), value);
            rest = after;
        }
        rest = rest.trim_start_matches(',').strip_prefix('}')?;
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name.to_owned(), labels, value))
}

/// A label's value up to its closing quote, unescaped, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_total Something.\n# TYPE a_total counter\na_total 3\n\
                        b{listener=\"[::]:80\",state=\"listen\"} 1\nb{listener=\"x\\\"y,}\",state=\"listen\"} 2.5\n\
                        c_bucket{le=\"+Inf\"} 1e3 1700000000\n";

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(TEXT);
        assert_eq!(metrics.get("a_total", &[]), Some(3.0));
        assert_eq!(metrics.get("b", &[("listener", "[::]:80")]), Some(1.0));
        assert_eq!(metrics.get("b", &[("listener", "x\"y,}"), ("state", "listen")]), Some(2.5));
        assert_eq!(metrics.get("b", &[("state", "listen")]), Some(3.5));
        assert_eq!(metrics.get("b", &[("state", "close")]), None);
        assert_eq!(metrics.get("c_bucket", &[("le", "+Inf")]), Some(1000.0));
        assert_eq!(metrics.by_label("b", "state"), [("listen".to_owned(), 3.5)].into());
        assert_eq!(metrics.names(), ["a_total", "b", "c_bucket"]);
    }

    #[test]
    #[should_panic(expected = "not a sample")]
    fn a_line_that_is_no_sample_is_refused() {
        Metrics::parse("b{state=\"listen} 1");
    }

    #[test]
    fn status_and_body_are_split() {
        assert_eq!(split("HTTP/1.1 503 No\r\nA: b\r\n\r\nbody"), Some((503, "body".to_owned())));
        assert_eq!(split("SSH-2.0"), None);
    }
}
