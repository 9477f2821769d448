//! A configuration as a file that would make it.

use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connection::upstream::HealthConfig;
use portcullis::Keepalive;

use super::{
    AccessLogConfig, AccessLogPath, Backend, Balance, Choice, Config, ControlPath, Cookies, HalfOpen, Limits,
    ListenerConfig, Log, ProxyProtocol, Timeouts,
};

/// A key and its value as TOML; `None`: it is not set, and means what it means then.
type Line = (&'static str, Option<String>);
/// A table of the file: its name without brackets, empty for the root, and its lines.
type Table = (&'static str, Vec<Line>);

impl Config {
    /// Every key with the value that is in force, and where that is the default, a word that it is.
    ///
    /// Nothing in it is secret: of keys there are the names of files, and none of what is in them. [`from_toml`](Config::from_toml) makes
    /// the same configuration of it.
    pub fn to_toml(&self) -> String {
        let mut text = "# The configuration in force: file and flags together, as of the last reload.\n".to_owned();
        write_tables(&mut text, self.tables(), Config::default().tables());
        for listener in &self.listeners {
            write_tables(&mut text, listener.tables(), ListenerConfig::default().tables());
        }
        text
    }

    fn tables(&self) -> Vec<Table> {
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
            access_log: AccessLogConfig { path: log_path, queue_lines },
            listeners: _, // Tables of their own.
        } = self;
        let root = vec![
            ("datapath", word(datapath)),
            ("bpf_hook", word(bpf_hook)),
            ("bpf_pins", bpf_pins.as_deref().map(path)),
            ("admin", text(admin.map_or("none".to_owned(), |addr| addr.to_string()))),
            ("master_key_file", master_key_file.as_deref().map(path)),
            ("state_dir", state_dir.as_deref().map(path)),
            ("workers", plain(workers.map_or(0, usize::from))),
            ("pre_stop_seconds", plain(pre_stop.as_secs())),
            ("shutdown_deadline_seconds", plain(shutdown_deadline.as_secs())),
            (
                "control",
                match control {
                    ControlPath::Usual => None,
                    ControlPath::None => text("none"),
                    ControlPath::At(at) => Some(path(at)),
                },
            ),
        ];
        let access_log = match log_path {
            AccessLogPath::None => text("none"),
            AccessLogPath::Stderr => text("stderr"),
            AccessLogPath::File(file) => Some(path(file)),
        };
        vec![
            ("", root),
            ("log", vec![("format", word(format)), ("level", word(level))]),
            ("access_log", vec![("path", access_log), ("queue_lines", plain(queue_lines))]),
        ]
    }
}

impl ListenerConfig {
    fn tables(&self) -> Vec<Table> {
        let ListenerConfig {
            name,
            bind,
            backend,
            balance,
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
            timeouts,
        } = self;
        let own = vec![
            ("name", text(name)),
            ("bind", list(bind.iter().map(SocketAddr::to_string))),
            match backend {
                Backend::Service(service) => ("service", word(service)),
                Backend::Upstreams(servers) => ("upstreams", list(servers.iter().map(ToString::to_string))),
            },
            ("interfaces", list(interfaces.iter().cloned())),
            ("fail_closed", plain(fail_closed)),
            ("accept_queue", plain(accept_queue)),
            ("connections_max", plain(connections_max)),
            ("replies_per_prefix", plain(replies_per_prefix)),
            ("window_scale", plain(window_scale)),
        ];
        let proxy_protocol =
            vec![("send", word(send)), ("accept_from", list(accept_from.iter().map(|prefix| prefix.to_string())))];
        let half_open = vec![
            ("max", plain(max)),
            ("high_percent", plain(high_percent)),
            ("low_percent", plain(low_percent)),
            ("prefix_share_percent", plain(prefix_share_percent)),
            ("synack_retries", plain(synack_retries)),
        ];
        let limits = vec![
            ("new_per_second", plain(new_per_second.map_or(0, u32::from))),
            ("per_prefix", plain(per_prefix.map_or(0, u32::from))),
            ("allow_files", paths(allow_files)),
            ("deny_files", paths(deny_files)),
            ("at_limit", word(at_limit)),
            ("displace_idle_seconds", plain(displace_idle.as_secs())),
        ];
        vec![
            ("[listener]", own),
            ("listener.balance", balance_lines(balance)),
            ("listener.proxy_protocol", proxy_protocol),
            ("listener.half_open", half_open),
            ("listener.cookies", vec![("accept", word(accept)), ("bad_per_prefix", plain(bad_per_prefix))]),
            ("listener.limits", limits),
            ("listener.timeouts", timeout_lines(timeouts)),
        ]
    }
}

fn balance_lines(Balance { policy, tries, checks }: &Balance) -> Vec<Line> {
    let HealthConfig { interval, timeout, rise, fall } = checks.unwrap_or_default();
    vec![
        ("policy", word(policy)),
        ("tries", plain(tries)),
        ("check_seconds", plain(if checks.is_some() { interval.as_secs() } else { 0 })),
        ("check_timeout_seconds", plain(timeout.as_secs())),
        ("check_rise", plain(rise)),
        ("check_fall", plain(fall)),
    ]
}

fn timeout_lines(timeouts: &Timeouts) -> Vec<Line> {
    let Timeouts { connect, first_byte, idle, half_close, drain_idle, header, user, keepalive } = timeouts;
    let or_zero = |time: &Option<Duration>| plain(time.map_or(0, |time| time.as_secs()));
    let mut lines = vec![
        ("connect_seconds", plain(connect.as_secs())),
        ("first_byte_seconds", or_zero(first_byte)),
        ("idle_seconds", or_zero(idle)),
        ("half_close_seconds", or_zero(half_close)),
        ("drain_idle_seconds", or_zero(drain_idle)),
        ("header_seconds", plain(header.as_secs())),
        ("user_timeout_seconds", or_zero(user)),
    ];
    match keepalive {
        None => lines.push(("keepalive_seconds", plain(0))),
        Some(Keepalive { idle, interval, count }) => lines.extend([
            ("keepalive_seconds", plain(idle.as_secs())),
            ("keepalive_interval_seconds", plain(interval.as_secs())),
            ("keepalive_probes", plain(count)),
        ]),
    }
    lines
}

fn write_tables(out: &mut String, tables: Vec<Table>, defaults: Vec<Table>) {
    for ((name, lines), (_, default)) in tables.into_iter().zip(defaults) {
        // Writing to a String cannot fail.
        if !name.is_empty() {
            let _ = writeln!(out, "\n[{name}]");
        }
        for line in lines {
            let mark = if default.contains(&line) { "  # default" } else { "" };
            let _ = match line {
                (key, Some(value)) => writeln!(out, "{key} = {value}{mark}"),
                (key, None) => writeln!(out, "# {key}: not set"),
            };
        }
    }
}

fn word(value: &(impl Choice + PartialEq)) -> Option<String> {
    text(value.word())
}

fn text(value: impl AsRef<str>) -> Option<String> {
    Some(quoted(value.as_ref()))
}

fn plain(value: impl Display) -> Option<String> {
    Some(value.to_string())
}

fn path(value: &Path) -> String {
    quoted(&value.to_string_lossy())
}

fn paths(values: &[PathBuf]) -> Option<String> {
    list(values.iter().map(|path| path.to_string_lossy().into_owned()))
}

fn list(values: impl Iterator<Item = String>) -> Option<String> {
    let items: Vec<String> = values.map(|value| quoted(&value)).collect();
    Some(format!("[{}]", items.join(", ")))
}

/// With whatever has to be escaped.
fn quoted(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
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
