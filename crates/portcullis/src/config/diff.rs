//! What differs between two configurations, and what it takes for the difference to take effect.

use std::fmt::Debug;

use super::{
    AccessLogConfig, Balance, Config, Cookies, HalfOpen, Limits, ListenerConfig, Log, ProxyProtocol, Timeouts,
};

/// A key whose value has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// With the name of its listener: `listener "web": limits.per_prefix`.
    pub key: String,
    pub from: String,
    pub to: String,
    pub reach: Reach,
}

/// What it takes for a key to take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A reload; for the connections that come from then on.
    Reload,
    /// A restart.
    Restart,
}

/// A key, what it takes, and its value as a log line shows it.
struct Key {
    name: String,
    reach: Reach,
    value: String,
}

impl Config {
    /// All that is different in `new`, in the order of the file. Listeners are the same if they have the same name.
    pub fn changes(&self, new: &Config) -> Vec<Change> {
        let (old, new) = (self.keys(), new.keys());
        let find = |keys: &[Key], name: &str| keys.iter().find(|key| key.name == name).map(|key| key.value.clone());
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

    /// Every key. A field that is new breaks the build here, so that somebody says what it takes.
    fn keys(&self) -> Vec<Key> {
        let Config {
            datapath,
            bpf_hook,
            admin,
            master_key_file,
            state_dir,
            bpf_pins,
            workers,
            pre_stop,
            shutdown_deadline,
            log: Log { format, level },
            control,
            access_log: AccessLogConfig { path, queue_lines },
            listeners,
        } = self;
        let mut keys = vec![
            restart("datapath", datapath),
            restart("bpf_hook", bpf_hook),
            restart("admin", admin),
            restart("master_key_file", master_key_file),
            restart("state_dir", state_dir),
            restart("bpf_pins", bpf_pins),
            restart("workers", workers),
            reload("pre_stop_seconds", pre_stop),
            reload("shutdown_deadline_seconds", shutdown_deadline),
            restart("log.format", format),
            reload("log.level", level),
            restart("control", control),
            restart("access_log.path", path),
            restart("access_log.queue_lines", queue_lines),
        ];
        for listener in listeners {
            keys.extend(listener.keys().into_iter().map(|key| {
                let name = format!("listener \"{}\": {}", listener.name, key.name);
                Key { name, ..key }
            }));
        }
        keys
    }
}

impl ListenerConfig {
    fn keys(&self) -> Vec<Key> {
        let ListenerConfig {
            name: _, // By which it is found.
            bind,
            backend,
            balance: Balance { policy, tries, checks },
            proxy_protocol: ProxyProtocol { send, accept_from },
            interfaces,
            fail_closed,
            accept_queue,
            connections_max,
            replies_per_prefix,
            window_scale,
            half_open: HalfOpen { max, high_percent, low_percent, prefix_share_percent, synack_retries },
            cookies: Cookies { accept, bad_per_prefix },
            limits: Limits { new_per_second, per_prefix, allow_files, deny_files, at_limit, displace_idle },
            timeouts: Timeouts { connect, first_byte, idle, half_close, drain_idle, header, user, keepalive },
        } = self;
        vec![
            restart("bind", bind),
            reload("service or upstream", backend),
            reload("balance.policy", policy),
            reload("balance.tries", tries),
            reload("balance.check_*", checks),
            reload("proxy_protocol.send", send),
            reload("proxy_protocol.accept_from", accept_from),
            restart("interfaces", interfaces),
            restart("fail_closed", fail_closed),
            restart("accept_queue", accept_queue),
            reload("connections_max", connections_max),
            restart("replies_per_prefix", replies_per_prefix),
            restart("window_scale", window_scale),
            restart("half_open.max", max),
            restart("half_open.high_percent", high_percent),
            restart("half_open.low_percent", low_percent),
            restart("half_open.prefix_share_percent", prefix_share_percent),
            restart("half_open.synack_retries", synack_retries),
            restart("cookies.accept", accept),
            restart("cookies.bad_per_prefix", bad_per_prefix),
            reload("limits.new_per_second", new_per_second),
            reload("limits.per_prefix", per_prefix),
            reload("limits.allow_files", allow_files),
            reload("limits.deny_files", deny_files),
            reload("limits.at_limit", at_limit),
            reload("limits.displace_idle_seconds", displace_idle),
            reload("timeouts.connect_seconds", connect),
            reload("timeouts.first_byte_seconds", first_byte),
            reload("timeouts.idle_seconds", idle),
            reload("timeouts.half_close_seconds", half_close),
            reload("timeouts.drain_idle_seconds", drain_idle),
            reload("timeouts.header_seconds", header),
            reload("timeouts.user_timeout_seconds", user),
            reload("timeouts.keepalive_*", keepalive),
        ]
    }
}

fn reload(name: &str, value: &impl Debug) -> Key {
    let text = format!("{value:?}");
    let value = match text.strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => inner.to_owned(),
        None if text == "None" => "none".to_owned(),
        None => text,
    };
    Key { name: name.to_owned(), reach: Reach::Reload, value }
}

fn restart(name: &str, value: &impl Debug) -> Key {
    Key { reach: Reach::Restart, ..reload(name, value) }
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
