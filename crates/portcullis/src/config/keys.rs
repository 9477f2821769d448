//! Every key of a configuration, with its value as a file has it and what a change of it takes.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connection::upstream::HealthConfig;
use portcullis::Keepalive;

use super::{
    AccessLogConfig, AccessLogPath, Backend, Balance, Choice, Config, ControlPath, Cookies, HalfOpen, Limits,
    ListenerConfig, Log, ProxyProtocol, Timeouts,
};

/// A key of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub name: &'static str,
    /// As TOML. `None`: it is not set, and means what it means then.
    pub value: Option<String>,
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

/// A table of the file, or of a listener: its name, empty for the outermost, and its keys.
pub(super) type Table = (&'static str, Vec<Key>);

// A field that is new breaks the build in each of these, so that somebody says what it is called and what it takes.

impl Config {
    /// All but the listeners, which have tables of their own.
    pub(super) fn tables(&self) -> Vec<Table> {
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
            listeners: _,
        } = self;
        let control = match control {
            ControlPath::Usual => None,
            ControlPath::None => text("none"),
            ControlPath::At(at) => path(at),
        };
        let log_path = match log_path {
            AccessLogPath::None => text("none"),
            AccessLogPath::Stderr => text("stderr"),
            AccessLogPath::File(file) => path(file),
        };
        let root = vec![
            restart("datapath", word(datapath)),
            restart("bpf_hook", word(bpf_hook)),
            restart("bpf_pins", bpf_pins.as_deref().and_then(path)),
            restart("admin", text(admin.map_or("none".to_owned(), |addr| addr.to_string()))),
            restart("master_key_file", master_key_file.as_deref().and_then(path)),
            restart("state_dir", state_dir.as_deref().and_then(path)),
            restart("workers", plain(workers.map_or(0, usize::from))),
            reload("pre_stop_seconds", seconds(pre_stop)),
            reload("shutdown_deadline_seconds", seconds(shutdown_deadline)),
            restart("control", control),
        ];
        vec![
            ("", root),
            ("log", vec![restart("format", word(format)), reload("level", word(level))]),
            ("access_log", vec![restart("path", log_path), restart("queue_lines", plain(queue_lines))]),
        ]
    }
}

impl ListenerConfig {
    pub(super) fn tables(&self) -> Vec<Table> {
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
            half_open,
            cookies: Cookies { accept, bad_per_prefix },
            limits,
            timeouts,
        } = self;
        let (service, upstreams) = match backend {
            Backend::Service(service) => (word(service), None),
            Backend::Upstreams(servers) => (None, list(servers)),
        };
        let own = vec![
            restart("name", text(name)),
            restart("bind", list(bind)),
            reload("service", service),
            reload("upstreams", upstreams),
            restart("interfaces", list(interfaces)),
            restart("fail_closed", plain(fail_closed)),
            restart("accept_queue", plain(accept_queue)),
            reload("connections_max", plain(connections_max)),
            restart("replies_per_prefix", plain(replies_per_prefix)),
            restart("window_scale", plain(window_scale)),
        ];
        vec![
            ("", own),
            ("balance", balance_keys(balance)),
            ("proxy_protocol", vec![reload("send", word(send)), reload("accept_from", list(accept_from.iter()))]),
            ("half_open", half_open_keys(half_open)),
            ("cookies", vec![restart("accept", word(accept)), restart("bad_per_prefix", plain(bad_per_prefix))]),
            ("limits", limit_keys(limits)),
            ("timeouts", timeout_keys(timeouts)),
        ]
    }
}

fn balance_keys(Balance { policy, tries, checks }: &Balance) -> Vec<Key> {
    let HealthConfig { interval, timeout, rise, fall } = checks.unwrap_or_default();
    vec![
        reload("policy", word(policy)),
        reload("tries", plain(tries)),
        reload("check_seconds", or_zero(&checks.map(|_| interval))),
        reload("check_timeout_seconds", seconds(&timeout)),
        reload("check_rise", plain(rise)),
        reload("check_fall", plain(fall)),
    ]
}

fn half_open_keys(half_open: &HalfOpen) -> Vec<Key> {
    let HalfOpen { max, high_percent, low_percent, prefix_share_percent, synack_retries } = half_open;
    vec![
        restart("max", plain(max)),
        restart("high_percent", plain(high_percent)),
        restart("low_percent", plain(low_percent)),
        restart("prefix_share_percent", plain(prefix_share_percent)),
        restart("synack_retries", plain(synack_retries)),
    ]
}

fn limit_keys(limits: &Limits) -> Vec<Key> {
    let Limits { new_per_second, per_prefix, allow_files, deny_files, at_limit, displace_idle } = limits;
    vec![
        reload("new_per_second", plain(new_per_second.map_or(0, u32::from))),
        reload("per_prefix", plain(per_prefix.map_or(0, u32::from))),
        reload("allow_files", paths(allow_files)),
        reload("deny_files", paths(deny_files)),
        reload("at_limit", word(at_limit)),
        reload("displace_idle_seconds", seconds(displace_idle)),
    ]
}

fn timeout_keys(timeouts: &Timeouts) -> Vec<Key> {
    let Timeouts { connect, first_byte, idle, half_close, drain_idle, header, user, keepalive } = timeouts;
    let probes = keepalive.map(|Keepalive { idle, interval, count }| (idle, interval, count));
    vec![
        reload("connect_seconds", seconds(connect)),
        reload("first_byte_seconds", or_zero(first_byte)),
        reload("idle_seconds", or_zero(idle)),
        reload("half_close_seconds", or_zero(half_close)),
        reload("drain_idle_seconds", or_zero(drain_idle)),
        reload("header_seconds", seconds(header)),
        reload("user_timeout_seconds", or_zero(user)),
        reload("keepalive_seconds", or_zero(&probes.map(|(idle, ..)| idle))),
        reload("keepalive_interval_seconds", probes.and_then(|(_, interval, _)| seconds(&interval))),
        reload("keepalive_probes", probes.and_then(|(.., count)| plain(count))),
    ]
}

fn reload(name: &'static str, value: Option<String>) -> Key {
    Key { name, value, reach: Reach::Reload }
}

fn restart(name: &'static str, value: Option<String>) -> Key {
    Key { name, value, reach: Reach::Restart }
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

fn seconds(value: &Duration) -> Option<String> {
    plain(value.as_secs())
}

/// What never happens takes 0 s in the file.
fn or_zero(value: &Option<Duration>) -> Option<String> {
    seconds(&value.unwrap_or_default())
}

fn path(value: &Path) -> Option<String> {
    text(value.to_string_lossy())
}

fn paths(values: &[PathBuf]) -> Option<String> {
    list(values.iter().map(|path| path.display()))
}

fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> Option<String> {
    let items: Vec<String> = values.into_iter().map(|value| quoted(&value.to_string())).collect();
    Some(format!("[{}]", items.join(", ")))
}

/// With whatever has to be escaped.
fn quoted(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}
