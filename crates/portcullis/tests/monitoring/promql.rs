//! As much of PromQL as a lint needs: which series an expression selects, and over which windows. Whether it is PromQL at all, Prometheus
//! itself says.

/// One series selector of an expression.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector<'a> {
    /// The metric's or the recorded series' name.
    pub name: &'a str,
    /// What stands between the braces.
    pub matchers: &'a str,
    /// What stands between the brackets behind it, if they are there.
    pub window: Option<&'a str>,
    /// The function that it is an argument of, if it is the first one.
    pub function: Option<&'a str>,
}

/// Counters of which the difference is a gauge: connections that are open.
const DIFFERENCES: [&str; 2] = ["portcullis_connections_accepted_total", "portcullis_connections_closed_total"];

impl Selector<'_> {
    /// Whether it stands in a difference of counters that is a gauge.
    pub fn is_part_of_difference(&self) -> bool {
        DIFFERENCES.contains(&self.name)
    }

    /// Whether the series counts up for as long as its process lives.
    pub fn is_counter(&self) -> bool {
        ["_total", "_bucket", "_count", "_sum"].iter().any(|ending| self.name.ends_with(ending))
    }
}

/// Words that only this project's series and the standard ones begin with.
const PREFIXES: [&str; 7] =
    ["portcullis_", "process_", "instance_listener:", "job_listener:", "ALERTS", "scrape_", "up"];

/// Every series selector, in the order in which they stand.
pub fn selectors(expr: &str) -> Vec<Selector<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((start, name)) = next_word(expr, at) {
        at = start + name.len();
        if !PREFIXES
            .iter()
            .any(|prefix| if prefix.ends_with(['_', ':']) { name.starts_with(prefix) } else { name == *prefix })
        {
            continue;
        }
        let (matchers, rest) = enclosed(&expr[at..], '{', '}');
        let (window, _) = enclosed(rest, '[', ']');
        at += matchers.map_or(0, |inside| inside.len() + 2);
        let function = expr[..start].trim_end().strip_suffix('(').map(last_word).filter(|word| !word.is_empty());
        found.push(Selector { name, matchers: matchers.unwrap_or(""), window, function });
    }
    found
}

/// The next word that is not within quotes, and where it begins.
fn next_word(expr: &str, from: usize) -> Option<(usize, &str)> {
    let mut quoted = false;
    let mut begin = None;
    for (at, char) in expr[from..].char_indices().map(|(at, char)| (from + at, char)) {
        match begin {
            Some(start) if !is_word(char) => return Some((start, &expr[start..at])),
            Some(_) => {}
            None if char == '"' => quoted = !quoted,
            None if !quoted && is_word(char) => begin = Some(at),
            None => {}
        }
    }
    begin.map(|start| (start, &expr[start..]))
}

fn is_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || char == ':'
}

fn last_word(text: &str) -> &str {
    let start = text.rfind(|char| !is_word(char)).map_or(0, |at| at + 1);
    &text[start..]
}

/// What stands between two marks, if the text begins with the first; and what follows.
fn enclosed(text: &str, open: char, close: char) -> (Option<&str>, &str) {
    let Some(inside) = text.strip_prefix(open) else { return (None, text) };
    let end = inside.find(close).unwrap_or_else(|| panic!("no {close:?} in {text:?}"));
    (Some(&inside[..end]), &inside[end + 1..])
}

#[test]
fn selectors_are_found_with_what_surrounds_them() {
    let found = selectors(r#"sum by (le) (rate(portcullis_a_total{job="up"}[5m])) / up unless on (job) process_b > 1"#);
    let selector = |name, matchers, window, function| Selector { name, matchers, window, function };
    let expected = [
        selector("portcullis_a_total", r#"job="up""#, Some("5m"), Some("rate")),
        selector("up", "", None, None),
        selector("process_b", "", None, None),
    ];
    assert_eq!(found, expected);
}
