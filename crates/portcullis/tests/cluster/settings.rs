//! The configurations that come with the image, with compose and with the manifests.

use std::time::Duration;

use toml::{Table, Value};

use super::files::text;

/// What comes behind the deadline takes no longer (`END_MAX` of the binary).
const END_MAX: Duration = Duration::from_secs(10);

/// One of them.
pub struct Settings(Table);

impl Settings {
    /// Reads it.
    pub fn read(path: &str) -> Settings {
        Settings(text(path).parse().unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    /// The text under a key of the top.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// The listeners.
    pub fn listeners(&self) -> impl Iterator<Item = &Value> {
        self.0["listener"].as_array().unwrap().iter()
    }

    /// Every address in a list of the listeners, `bind` or `upstreams`.
    pub fn addresses(&self, key: &str) -> Vec<&str> {
        let of_listener = |listener: &'_ Value| listener.get(key).and_then(Value::as_array).cloned();
        let addresses = self.listeners().filter(|listener| of_listener(listener).is_some());
        addresses.flat_map(|listener| listener[key].as_array().unwrap()).map(|item| item.as_str().unwrap()).collect()
    }

    /// Threads for packets of each listener.
    pub fn workers(&self) -> i64 {
        self.0["workers"].as_integer().expect("a number of workers")
    }

    /// A time under a key of the top.
    pub fn seconds(&self, key: &str) -> Duration {
        Duration::from_secs(self.0[key].as_integer().unwrap().try_into().unwrap())
    }

    /// Longer than this an end does not take.
    pub fn end_max(&self) -> Duration {
        self.seconds("pre_stop_seconds") + self.seconds("shutdown_deadline_seconds") + END_MAX
    }
}

/// The port of `ADDRESS:PORT`.
pub fn port(address: &str) -> u16 {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_else(|| panic!("no port in {address}"))
}
