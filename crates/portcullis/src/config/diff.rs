//! What differs between two configurations.

use super::Config;
pub use super::keys::Reach;
use super::keys::Table;

/// A key whose value has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// With the name of its listener: `listener "web": limits.per_prefix`.
    pub key: String,
    /// As the file has it.
    pub from: String,
    pub to: String,
    pub reach: Reach,
}

/// A key by its whole name.
struct Named {
    name: String,
    value: String,
    reach: Reach,
}

impl Config {
    /// All that is different in `new`, in the order of the file. Listeners are the same if they have the same name.
    pub fn changes(&self, new: &Config) -> Vec<Change> {
        let (old, new) = (self.named_keys(), new.named_keys());
        let find = |keys: &[Named], name: &str| keys.iter().find(|key| key.name == name).map(|key| key.value.clone());
        let mut changes: Vec<Change> = Vec::new();
        for key in old.iter().chain(new.iter().filter(|key| find(&old, &key.name).is_none())) {
            let [from, to] = [&old, &new].map(|keys| find(keys, &key.name));
            if from != to {
                let absent = || "(absent)".to_owned();
                changes.push(Change {
                    key: key.name.clone(),
                    // A listener that is new or gone has all of its keys only on one side.
                    reach: if from.is_some() && to.is_some() { key.reach } else { Reach::Restart },
                    from: from.unwrap_or_else(absent),
                    to: to.unwrap_or_else(absent),
                });
            }
        }
        changes
    }

    fn named_keys(&self) -> Vec<Named> {
        let mut keys = named("", self.tables());
        for listener in &self.listeners {
            keys.extend(named(&format!("listener \"{}\": ", listener.name), listener.tables()));
        }
        keys
    }
}

fn named(of: &str, tables: Vec<Table>) -> Vec<Named> {
    let mut named = Vec::new();
    for (table, keys) in tables {
        let dot = if table.is_empty() { "" } else { "." };
        named.extend(keys.into_iter().map(|key| Named {
            name: format!("{of}{table}{dot}{}", key.name),
            value: key.value.unwrap_or_else(|| "not set".to_owned()),
            reach: key.reach,
        }));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_toml(text).unwrap()
    }

    const LISTENER: &str = "[[listener]]\nname = \"web\"\nbind = [\"127.0.0.1:80\"]\n";

    #[test]
    fn the_same_has_no_changes() {
        assert_eq!(config(LISTENER).changes(&config(LISTENER)), []);
    }

    #[test]
    fn a_change_tells_its_key_both_values_and_what_it_takes() {
        let new = format!("{LISTENER}connections_max = 7\nwindow_scale = 3\n");
        let changes = config(LISTENER).changes(&config(&new));
        let told: Vec<_> =
            changes.iter().map(|change| (change.key.as_str(), change.to.as_str(), change.reach)).collect();
        assert_eq!(
            told,
            [
                ("listener \"web\": connections_max", "7", Reach::Reload),
                ("listener \"web\": window_scale", "3", Reach::Restart),
            ]
        );
        assert_eq!(changes[0].from, "65536");
    }

    #[test]
    fn a_key_that_comes_or_goes_in_a_listener_takes_what_the_key_takes() {
        let old = format!("{LISTENER}service = \"echo\"\n");
        let new = format!("{LISTENER}upstreams = [\"127.0.0.1:81\"]\ntimeouts = {{ keepalive_seconds = 30 }}\n");
        let changes = config(&old).changes(&config(&new));
        let told: Vec<_> = changes.iter().map(|change| (change.key.as_str(), change.to.as_str())).collect();
        assert_eq!(
            told,
            [
                ("listener \"web\": service", "not set"),
                ("listener \"web\": upstreams", "[\"127.0.0.1:81\"]"),
                ("listener \"web\": timeouts.keepalive_seconds", "30"),
                ("listener \"web\": timeouts.keepalive_interval_seconds", "15"),
                ("listener \"web\": timeouts.keepalive_probes", "4"),
            ]
        );
        assert!(changes.iter().all(|change| change.reach == Reach::Reload));
    }

    #[test]
    fn a_listener_that_is_new_or_gone_takes_a_restart() {
        let two = format!("{LISTENER}[[listener]]\nname = \"other\"\nbind = [\"127.0.0.1:81\"]\n");
        for (old, new) in [(LISTENER, two.as_str()), (two.as_str(), LISTENER)] {
            let changes = config(old).changes(&config(new));
            assert!(!changes.is_empty());
            assert!(changes.iter().all(|change| change.key.starts_with("listener \"other\"")), "{changes:?}");
            assert!(changes.iter().all(|change| change.reach == Reach::Restart));
        }
    }
}
