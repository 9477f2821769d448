//! When Portcullis switched its mode: it says so in its log.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// What the log of a process told.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    told: Arc<Mutex<Told>>,
}

#[derive(Debug, Default)]
struct Told {
    /// Each switch, and whether it was to cookies alone.
    switches: Vec<(Instant, bool)>,
    /// The last lines, for when the process does not start.
    last_words: Vec<String>,
}

/// Lines that are kept.
const LAST_WORDS_MAX: usize = 8;

impl Switches {
    /// Reads a log to its end, on a thread of its own.
    pub fn read(log: impl Read + Send + 'static) -> Switches {
        let switches = Switches::default();
        let told = Arc::clone(&switches.told);
        thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                told.lock().expect("nobody panics with the lock").hear(line);
            }
        });
        switches
    }

    /// Whether it answers with cookies alone now; `None` when it never said anything of modes.
    pub fn cookies_only(&self) -> Option<bool> {
        self.with(|told| told.switches.last().map(|switch| switch.1))
    }

    /// The first switch to that mode at this moment or later.
    pub fn first_since(&self, moment: Instant, to_cookies: bool) -> Option<Instant> {
        self.with(|told| {
            told.switches.iter().find(|(at, to)| *at >= moment && *to == to_cookies).map(|switch| switch.0)
        })
    }

    /// The last lines.
    pub fn last_words(&self) -> String {
        self.with(|told| told.last_words.join("\n"))
    }

    fn with<R>(&self, look: impl FnOnce(&Told) -> R) -> R {
        look(&self.told.lock().expect("nobody panics with the lock"))
    }
}

impl Told {
    fn hear(&mut self, line: String) {
        for (phrase, to_cookies) in [("answering with cookies alone", true), ("calm again", false)] {
            if line.contains(phrase) {
                self.switches.push((Instant::now(), to_cookies));
            }
        }
        if self.last_words.len() == LAST_WORDS_MAX {
            self.last_words.remove(0);
        }
        self.last_words.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_switch_counts_and_the_first_since_a_moment() {
        let mut told = Told::default();
        let start = Instant::now();
        told.hear("half-open queue at its high watermark: answering with cookies alone".into());
        told.hear("calm again: keeping half-open entries".into());
        (0..20).for_each(|n| told.hear(format!("line {n}")));
        let switches = Switches { told: Arc::new(Mutex::new(told)) };
        assert_eq!(switches.cookies_only(), Some(false));
        assert!(switches.first_since(start, true) <= switches.first_since(start, false));
        assert_eq!(switches.first_since(Instant::now(), true), None);
        assert!(switches.last_words().starts_with("line 12"));
    }
}
