//! What is shown, and what keys do to it. No terminal and no clock here.

use std::time::{Duration, Instant};

use super::rates::{Rates, rates};
use super::sample::Sample;
use crate::control::{ListenerStatus, TopEntry};

/// The state of the view.
pub struct App {
    /// Time between two looks.
    pub interval: Duration,
    pub paused: bool,
    pub sort: Sort,
    /// The latest, and the one before.
    sample: Option<Sample>,
    before: Option<Sample>,
    /// The listener that is shown. By name: after a restart they may stand in another order.
    selected: Option<String>,
    /// Why there is nothing newer, and since when.
    pub trouble: Option<(String, Instant)>,
}

/// By what prefixes are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Open,
    Received,
    Sent,
}

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Quit,
    Next,
    Previous,
    Pause,
    Sort,
    /// As Ctrl-Z: give the terminal back to the shell for a while.
    Suspend,
}

impl App {
    /// With nothing to show yet.
    pub fn new(interval: Duration) -> App {
        App { interval, paused: false, sort: Sort::Open, sample: None, before: None, selected: None, trouble: None }
    }

    /// Takes in what a look has brought.
    pub fn looked(&mut self, looked: Result<Sample, String>, now: Instant) {
        match looked {
            Ok(sample) => {
                self.before = self.sample.replace(sample);
                self.trouble = None;
            }
            Err(why) => {
                let since = self.trouble.take().map_or(now, |(_, since)| since);
                self.trouble = Some((why, since));
            }
        }
    }

    /// Does what a key says, but for [`Action::Quit`] and [`Action::Suspend`], which are the terminal's.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::Next => self.select(1),
            Action::Previous => self.select(self.listeners().len().saturating_sub(1)),
            Action::Pause => self.paused = !self.paused,
            Action::Sort => {
                self.sort = match self.sort {
                    Sort::Open => Sort::Received,
                    Sort::Received => Sort::Sent,
                    Sort::Sent => Sort::Open,
                }
            }
            Action::Quit | Action::Suspend => {}
        }
    }

    /// The listener so many places on, around the end.
    fn select(&mut self, on: usize) {
        let listeners = self.listeners();
        if listeners.is_empty() {
            return;
        }
        let index = (self.selected_index() + on) % listeners.len();
        self.selected = Some(listeners[index].name.clone());
    }

    /// The latest sample.
    pub fn sample(&self) -> Option<&Sample> {
        self.sample.as_ref()
    }

    pub fn listeners(&self) -> &[ListenerStatus] {
        self.sample.as_ref().map_or(&[], |sample| &sample.status.listeners)
    }

    /// Where the listener that is shown stands; 0 if there is none.
    pub fn selected_index(&self) -> usize {
        let by_name = |name: &String| self.listeners().iter().position(|listener| listener.name == *name);
        self.selected.as_ref().and_then(by_name).unwrap_or(0)
    }

    /// The listener that is shown.
    pub fn listener(&self) -> Option<&ListenerStatus> {
        self.listeners().get(self.selected_index())
    }

    /// Its rates.
    pub fn rates(&self) -> Option<Rates> {
        rates(self.before.as_ref()?, self.sample.as_ref()?, &self.listener()?.name)
    }

    /// The prefixes in the order that was chosen. Of all listeners: a connection's prefix is not asked for by listener.
    pub fn prefixes(&self) -> Vec<&TopEntry> {
        let mut prefixes: Vec<_> = self.sample.iter().flat_map(|sample| &sample.top.top).collect();
        let key = |entry: &TopEntry| match self.sort {
            Sort::Open => entry.open as u64,
            Sort::Received => entry.traffic.received_bytes,
            Sort::Sent => entry.traffic.sent_bytes,
        };
        // Stable: equals stay as the process has them.
        prefixes.sort_by_key(|entry| std::cmp::Reverse(key(entry)));
        prefixes
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::sample;
    use super::*;

    fn shown(app: &App) -> &str {
        &app.listener().unwrap().name
    }

    #[test]
    fn keys_go_around_the_listeners_and_a_restart_keeps_the_one_that_is_shown() {
        let mut app = App::new(Duration::from_secs(2));
        app.act(Action::Next);
        assert!(app.listener().is_none(), "nothing is known yet");
        app.looked(Ok(sample()), Instant::now());
        let mut seen = vec![shown(&app).to_owned()];
        for action in [Action::Next, Action::Next, Action::Previous] {
            app.act(action);
            seen.push(shown(&app).to_owned());
        }
        assert_eq!(seen, ["web", "api", "web", "api"]);
        let mut turned = sample();
        turned.status.listeners.reverse();
        app.looked(Ok(turned), Instant::now());
        assert_eq!((shown(&app), app.selected_index()), ("api", 0));
        let mut gone = sample();
        gone.status.listeners.pop();
        app.looked(Ok(gone), Instant::now());
        assert_eq!(shown(&app), "web", "the first, where the chosen one is gone");
    }

    #[test]
    fn trouble_counts_from_its_beginning_and_ends_with_an_answer() {
        let (mut app, now) = (App::new(Duration::from_secs(2)), Instant::now());
        app.looked(Ok(sample()), now);
        app.looked(Err("gone".to_owned()), now);
        app.looked(Err("still gone".to_owned()), now + Duration::from_secs(3));
        assert_eq!(app.trouble, Some(("still gone".to_owned(), now)));
        assert!(app.sample().is_some(), "what was known is still shown");
        app.looked(Ok(sample()), now);
        assert!(app.trouble.is_none());
    }

    #[test]
    fn prefixes_are_sorted_as_chosen() {
        let mut app = App::new(Duration::from_secs(2));
        app.looked(Ok(sample()), Instant::now());
        let first = |app: &App| app.prefixes()[0].prefix.to_string();
        let mut seen = vec![first(&app)];
        for _ in 0..3 {
            app.act(Action::Sort);
            seen.push(first(&app));
        }
        assert_eq!(seen, ["198.18.2.0/24", "198.18.3.0/24", "2001:db8::/64", "198.18.2.0/24"]);
    }
}
