//! A configuration as a file that would make it.

use std::fmt::Write;

use super::keys::{Key, Table};
use super::{Config, ListenerConfig};

impl Config {
    /// Every key with the value that is in force, and where that is the default, a word that it is.
    ///
    /// Nothing in it is secret: of keys there are the names of files, and none of what is in them. [`from_toml`](Config::from_toml) makes
    /// the same configuration of it.
    pub fn to_toml(&self) -> String {
        let mut out = "# The configuration in force: file and flags together, as of the last reload.\n".to_owned();
        write_tables(&mut out, root_header, self.tables(), Config::default().tables());
        for listener in &self.listeners {
            write_tables(&mut out, listener_header, listener.tables(), ListenerConfig::default().tables());
        }
        out
    }
}

fn root_header(table: &str) -> String {
    if table.is_empty() { String::new() } else { format!("\n[{table}]\n") }
}

fn listener_header(table: &str) -> String {
    if table.is_empty() { "\n[[listener]]\n".to_owned() } else { format!("\n[listener.{table}]\n") }
}

fn write_tables(out: &mut String, header: impl Fn(&str) -> String, tables: Vec<Table>, defaults: Vec<Table>) {
    for ((table, keys), (_, default)) in tables.into_iter().zip(defaults) {
        out.push_str(&header(table));
        for key in keys {
            let mark = if default.contains(&key) { "  # default" } else { "" };
            // Writing to a String cannot fail.
            let _ = match key {
                Key { name, value: Some(value), .. } => writeln!(out, "{name} = {value}{mark}"),
                Key { name, value: None, .. } => writeln!(out, "# {name}: not set"),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_TOML;
    use super::*;

    /// Every key, each with a value that is not the default.
    const ODD: &str = r#"
datapath = "bpf"
bpf_hook = "tc"
bpf_pins = "/sys/fs/bpf/p"
admin = "none"
master_key_file = "/etc/a \"key\".txt"
state_dir = "/var/lib/p"
workers = 3
pre_stop_seconds = 4
shutdown_deadline_seconds = 5
control = "/run/p.sock"
[log]
format = "json"
level = "debug"
[access_log]
path = "/var/log/p"
queue_lines = 7
[[listener]]
name = "web"
bind = ["198.18.0.1:80", "[2001:db8::1]:80"]
upstreams = ["192.0.2.1:80", "unix:/run/app.sock"]
interfaces = ["eth0"]
fail_closed = true
accept_queue = 8
connections_max = 9
replies_per_prefix = 10
window_scale = 11
[listener.balance]
policy = "least_connections"
tries = 1
check_seconds = 12
check_timeout_seconds = 13
check_rise = 14
check_fall = 15
[listener.proxy_protocol]
send = "v2"
accept_from = ["198.18.9.0/24"]
[listener.half_open]
max = 16
high_percent = 17
low_percent = 16
prefix_share_percent = 18
synack_retries = 1
[listener.cookies]
accept = "always"
bad_per_prefix = 19
[listener.limits]
new_per_second = 20
per_prefix = 21
allow_files = ["/etc/allow"]
deny_files = ["/etc/deny"]
at_limit = "displace"
displace_idle_seconds = 22
[listener.timeouts]
connect_seconds = 23
first_byte_seconds = 24
idle_seconds = 0
half_close_seconds = 25
drain_idle_seconds = 26
header_seconds = 27
user_timeout_seconds = 28
keepalive_seconds = 29
keepalive_interval_seconds = 30
keepalive_probes = 31
[[listener]]
name = "other"
bind = ["198.18.0.2:80"]
service = "echo"
"#;

    #[test]
    fn what_is_rendered_makes_the_same_configuration() {
        for text in [DEFAULT_TOML, ODD] {
            let config = Config::from_toml(text).unwrap();
            let rendered = config.to_toml();
            assert_eq!(Config::from_toml(&rendered).unwrap(), config, "{rendered}");
        }
    }

    #[test]
    fn every_value_of_the_default_says_so_and_no_other_does() {
        let default = Config::default().to_toml();
        assert!(
            default.lines().filter(|line| line.contains(" = ")).all(|line| line.ends_with("  # default")),
            "{default}"
        );
        let odd = Config::from_toml(ODD).unwrap().to_toml();
        let first = odd.split("name = \"other\"").next().unwrap();
        assert_eq!(first.matches("# default").count(), 0, "{first}");
    }

    #[test]
    fn every_key_of_the_documented_default_is_rendered() {
        let keys = |text: &str| {
            let keys = text.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key.to_owned());
            keys.filter(|key| key.chars().all(|c| c == '_' || c.is_ascii_lowercase())).collect::<Vec<_>>()
        };
        let rendered = Config::from_toml(ODD).unwrap().to_toml();
        let absent: Vec<_> = keys(DEFAULT_TOML).into_iter().filter(|key| !keys(&rendered).contains(key)).collect();
        assert_eq!(absent, Vec::<String>::new());
    }
}
