//! A line that changes while a round runs, where somebody watches.

use std::io::{self, IsTerminal, Write};

use crate::results::Sample;

/// The line. Quiet when standard error is not a terminal.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    title: String,
    last: Sample,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { shown: io::stderr().is_terminal(), title: String::new(), last: Sample::default() }
    }
}

impl Progress {
    /// Another round begins.
    pub fn begin(&mut self, number: usize, rounds: usize, what: &str) {
        self.last = Sample::default();
        self.title = format!("[{number}/{rounds}] {what}");
        self.show(&self.title);
    }

    /// Shows a sample.
    pub fn sample(&mut self, sample: Sample) {
        let ok = sample.ok - self.last.ok.min(sample.ok);
        let seconds = (sample.at_s - self.last.at_s).max(1e-3);
        let failed = if sample.failed > 0 { format!(", {} failed", sample.failed) } else { String::new() };
        self.show(&format!(
            "{}  {:4.1} s  flood {} -> {} -> {}  clients {:.0}/s{failed}  half-open {}  cores {:.0} %",
            self.title,
            sample.at_s,
            short(sample.sent_pps),
            short(sample.received_pps),
            short(sample.replies_pps),
            ok as f64 / seconds,
            sample.half_open,
            100.0 * sample.busy,
        ));
        self.last = sample;
    }

    /// Takes the line away.
    pub fn end(&mut self) {
        self.show("");
    }

    /// Says something that stays.
    pub fn say(&mut self, what: &str) {
        self.end();
        eprintln!("{what}");
    }

    fn show(&self, line: &str) {
        if self.shown {
            // To the line's begin, and clear it.
            eprint!("\r\x1b[K{line}");
            let _ = io::stderr().flush(); // Nobody sees it then.
        }
    }
}

/// A rate in few characters: `4.55M`.
fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2}M", rate / 1e6),
        rate if rate >= 1e3 => format!("{:.0}k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn rates_are_short() {
        assert_eq!(["4.55M", "12k", "7"], [4_551_000.0, 12_300.0, 7.1].map(super::short));
    }
}
