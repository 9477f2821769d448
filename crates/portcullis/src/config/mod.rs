//! What can be configured: the types, their defaults, and how a file becomes a [`Config`].

pub mod diff;
mod duplicate;
mod flags;
mod keys;
pub mod lists;
mod parse;
mod reader;
mod render;
mod report;
mod schema;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use connection::proxy_protocol::ProxyVersion;
use connection::upstream::{Balance as Policy, HealthConfig, Server};
use connection::{AtLimit, PrefixList};
use listener::{AcceptCookies, ListenConfig};
pub use portcullis::BpfHook;
use portcullis::Keepalive;

pub use parse::{admin_address, guarded_address, interface_name, socket_path, upstream_address};
pub use reader::Choice;
pub use report::Diagnostics;

/// The documented default: every key with its meaning, unit, range and default, as `config --print-default` prints it.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// A whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub datapath: Datapath,
    pub bpf_hook: BpfHook,
    /// `None`: no admin server.
    pub admin: Option<SocketAddr>,
    pub master_key_file: Option<PathBuf>,
    pub state_dir: Option<PathBuf>,
    /// Where the programs of datapath `bpf` are pinned.
    pub bpf_pins: Option<PathBuf>,
    /// `None`: one for each core.
    pub workers: Option<NonZeroUsize>,
    /// How long new clients are still served once the end was asked for.
    pub pre_stop: Duration,
    pub shutdown_deadline: Duration,
    pub log: Log,
    /// Where `portcullis ctl` asks.
    pub control: ControlPath,
    pub access_log: AccessLogConfig,
    /// At least one.
    pub listeners: Vec<ListenerConfig>,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    pub level: LogLevel,
}

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlPath {
    /// In `$RUNTIME_DIRECTORY`, else, for root, in `/run/portcullis`; else there is none.
    Usual,
    None,
    At(PathBuf),
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    pub path: AccessLogPath,
    pub queue_lines: usize,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogPath {
    None,
    Stderr,
    File(PathBuf),
}

/// One guarded service.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    pub name: String,
    /// At least one; no two overlap, in this listener or any other.
    pub bind: Vec<SocketAddr>,
    pub backend: Backend,
    /// How clients are spread over upstreams, where there are any.
    pub balance: Balance,
    pub proxy_protocol: ProxyProtocol,
    /// Empty: all.
    pub interfaces: Vec<String>,
    pub fail_closed: bool,
    pub accept_queue: usize,
    pub connections_max: usize,
    pub replies_per_prefix: u32,
    pub window_scale: u8,
    pub half_open: HalfOpen,
    pub cookies: Cookies,
    pub limits: Limits,
    pub timeouts: Timeouts,
}

/// Who answers the accepted connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    Service(Service),
    /// At least one.
    Upstreams(Vec<Server>),
}

/// How clients are spread over upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    pub policy: Policy,
    /// Upstreams tried for one client.
    pub tries: u32,
    /// `None`: upstreams are not checked.
    pub checks: Option<HealthConfig>,
}

/// Who tells whom who the client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// `None`: the upstream is not told.
    pub send: Option<ProxyVersion>,
    /// Peers whose connections begin with a header.
    pub accept_from: PrefixList,
}

/// The bounds of the half-open queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HalfOpen {
    pub max: usize,
    pub high_percent: u8,
    pub low_percent: u8,
    pub prefix_share_percent: u8,
    pub synack_retries: u8,
}

/// Which cookies are checked and accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cookies {
    pub accept: AcceptCookies,
    pub bad_per_prefix: u32,
}

/// Whose connections are served, and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// `None`: as many as come.
    pub new_per_second: Option<NonZeroU32>,
    /// `None`: as many as come.
    pub per_prefix: Option<NonZeroU32>,
    /// Empty: everybody.
    pub allow_files: Vec<PathBuf>,
    /// Empty: nobody.
    pub deny_files: Vec<PathBuf>,
    pub at_limit: AtLimit,
    /// Whom a byte has come from or gone to in this time is not displaced.
    pub displace_idle: Duration,
}

/// How long a connection may do nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeouts {
    pub connect: Duration,
    /// `None`: as long as `idle` allows.
    pub first_byte: Option<Duration>,
    /// `None`: for ever.
    pub idle: Option<Duration>,
    /// `None`: for ever.
    pub half_close: Option<Duration>,
    /// What counts as idle at the drain.
    pub drain_idle: Option<Duration>,
    pub header: Duration,
    /// `None`: the kernel's own.
    pub user: Option<Duration>,
    /// `None`: no probes.
    pub keepalive: Option<Keepalive>,
}

impl Timeouts {
    /// What holds for the client's side.
    pub fn of_client(&self) -> portcullis::Timeouts {
        portcullis::Timeouts {
            first_byte: self.first_byte,
            idle: self.idle,
            half_close: self.half_close,
            user_timeout: self.user,
            keepalive: self.keepalive,
        }
    }
}

/// Which way to the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    Auto,
    Bpf,
    Raw,
    Kernel,
}

/// A built-in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Http,
    Echo,
    Discard,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Which log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl Choice for Datapath {
    const WORDS: &'static [(&'static str, Datapath)] =
        &[("auto", Datapath::Auto), ("bpf", Datapath::Bpf), ("raw", Datapath::Raw), ("kernel", Datapath::Kernel)];
}

impl Choice for BpfHook {
    const WORDS: &'static [(&'static str, BpfHook)] =
        &[("auto", BpfHook::Auto), ("xdp", BpfHook::Xdp), ("tc", BpfHook::Tc)];
}

impl Choice for Service {
    const WORDS: &'static [(&'static str, Service)] =
        &[("http", Service::Http), ("echo", Service::Echo), ("discard", Service::Discard)];
}

impl Choice for AcceptCookies {
    const WORDS: &'static [(&'static str, AcceptCookies)] =
        &[("when_expected", AcceptCookies::WhenExpected), ("always", AcceptCookies::Always)];
}

impl Choice for Policy {
    const WORDS: &'static [(&'static str, Policy)] =
        &[("round_robin", Policy::RoundRobin), ("least_connections", Policy::LeastConnections)];
}

impl Choice for Option<ProxyVersion> {
    const WORDS: &'static [(&'static str, Option<ProxyVersion>)] =
        &[("none", None), ("v1", Some(ProxyVersion::V1)), ("v2", Some(ProxyVersion::V2))];
}

impl Choice for AtLimit {
    const WORDS: &'static [(&'static str, AtLimit)] = &[
        ("queue", AtLimit::Queue),
        ("reset", AtLimit::Reset),
        ("silent", AtLimit::Silent),
        ("displace", AtLimit::Displace),
    ];
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

impl Choice for LogLevel {
    const WORDS: &'static [(&'static str, LogLevel)] =
        &[("error", LogLevel::Error), ("warn", LogLevel::Warn), ("info", LogLevel::Info), ("debug", LogLevel::Debug)];
}

impl Default for Config {
    /// What runs without a file: the built-in web page on 127.0.0.1:8080, metrics on 127.0.0.1:9464.
    fn default() -> Config {
        Config {
            datapath: Datapath::Auto,
            bpf_hook: BpfHook::Auto,
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
            master_key_file: None,
            state_dir: None,
            bpf_pins: None,
            workers: None,
            pre_stop: Duration::ZERO,
            shutdown_deadline: Duration::from_secs(30),
            log: Log { format: LogFormat::Text, level: LogLevel::Info },
            control: ControlPath::Usual,
            access_log: AccessLogConfig { path: AccessLogPath::None, queue_lines: 8192 },
            listeners: vec![ListenerConfig::default()],
        }
    }
}

impl Default for ListenerConfig {
    fn default() -> ListenerConfig {
        let engine = ListenConfig::default();
        ListenerConfig {
            name: "default".to_owned(),
            bind: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            backend: Backend::Service(Service::Http),
            balance: Balance { policy: Policy::RoundRobin, tries: 3, checks: None },
            proxy_protocol: ProxyProtocol::default(),
            interfaces: Vec::new(),
            fail_closed: false,
            accept_queue: 4096,
            connections_max: 65_536,
            replies_per_prefix: engine.replies_per_prefix,
            window_scale: engine.window_scale,
            half_open: HalfOpen {
                max: engine.half_open_max,
                high_percent: engine.high_watermark_percent,
                low_percent: engine.low_watermark_percent,
                prefix_share_percent: engine.prefix_share_percent,
                synack_retries: engine.synack_retries,
            },
            cookies: Cookies { accept: engine.accept_cookies, bad_per_prefix: engine.bad_cookies_per_prefix },
            limits: Limits {
                new_per_second: None,
                per_prefix: None,
                allow_files: Vec::new(),
                deny_files: Vec::new(),
                at_limit: AtLimit::Queue,
                displace_idle: Duration::from_secs(10),
            },
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                first_byte: None,
                idle: Some(Duration::from_secs(600)),
                half_close: Some(Duration::from_secs(60)),
                drain_idle: Some(Duration::from_secs(5)),
                header: Duration::from_secs(10),
                user: None,
                keepalive: None,
            },
        }
    }
}

impl Config {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Every fault there is, each with its place in the text, its key and what would be legal.
    pub fn from_toml(text: &str) -> Result<Config, Diagnostics> {
        schema::read(text)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// As [`from_toml`](Config::from_toml), and where the bytes are no text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Config, Diagnostics> {
        let text = std::str::from_utf8(bytes).map_err(|error| Diagnostics::not_utf8(bytes, error))?;
        Config::from_toml(text)
    }
}

#[cfg(test)]
mod tests;
