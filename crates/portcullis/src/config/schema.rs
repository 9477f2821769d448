//! Every key of the file: its name, its legal range, and where its value goes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use connection::upstream::{HealthConfig, SERVERS_MAX};
use portcullis::Keepalive;
use portcullis::guard::{expand_wildcards, overlap};
use toml::de::DeTable;

use super::parse::{
    admin_address, guarded_address, interface_name, listener_name, prefix, socket_path, upstream_address,
    upstream_server,
};
use super::reader::{Choice, Located, Section};
use super::report::{Diagnostics, Report};
use super::{
    AccessLogConfig, AccessLogPath, Backend, Balance, BpfHook, Config, ControlPath, Cookies, Datapath, HalfOpen,
    Limits, ListenerConfig, Log, ProxyProtocol, Service, Timeouts,
};

const ADDRESS: &str = "\"ADDRESS:PORT\", IPv6 in brackets, port 1 to 65535";
const UPSTREAM: &str = "the ADDRESS:PORT of one server; `upstreams` takes several";
const ADMIN: &str = "\"ADDRESS:PORT\" or \"none\"";
const SERVER: &str = "\"ADDRESS:PORT\" or \"unix:/PATH\"";
const PREFIX: &str = "an address or a prefix in CIDR notation";
const PATH: &str = "a path, not empty";
const SOCKET: &str = "a path of at most 107 bytes, or \"none\"";
const ACCESS_LOG: &str = "a path, \"stderr\" or \"none\"";
const NAME: &str = "1 to 64 letters, digits, '_', '-' and '.'";
const INTERFACE: &str = "the name of a network interface";

const DAY_SECONDS: u64 = 86_400;

/// A listener and the places its faults point to.
struct Read {
    config: ListenerConfig,
    name_span: Range<usize>,
    binds: Vec<Located<SocketAddr>>,
}

pub(super) fn read(text: &str) -> Result<Config, Diagnostics> {
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    let report = Report::new(text, &syntax_errors);
    let config = read_root(Section::root(&report, &document));
    report.finish().map(|()| config)
}

fn read_root(mut root: Section<'_, '_>) -> Config {
    let default = Config::default();
    let datapath = root.choice("datapath").map_or(default.datapath, |found| found.value);
    let bpf_hook = root.choice("bpf_hook").map_or(default.bpf_hook, |found| found.value);
    if let Err(why) = check_hook(bpf_hook, datapath) {
        root.fault(root.span_of("bpf_hook"), "bpf_hook", format!("\"{}\" {why}", bpf_hook.word()));
    }
    let admin = root.string("admin", ADMIN, admin_address);
    let workers = root.integer("workers", 0..=64, "threads; 0: one for each core", 0);
    let config = Config {
        datapath,
        bpf_hook,
        bpf_pins: root.string("bpf_pins", PATH, path).map(|found| found.value),
        admin: admin.as_ref().map_or(default.admin, |found| found.value),
        master_key_file: root.string("master_key_file", PATH, path).map(|found| found.value),
        state_dir: root.string("state_dir", PATH, path).map(|found| found.value),
        workers: usize::try_from(workers).ok().and_then(NonZeroUsize::new),
        pre_stop: seconds(&mut root, "pre_stop_seconds", 0, default.pre_stop),
        shutdown_deadline: seconds(&mut root, "shutdown_deadline_seconds", 0, default.shutdown_deadline),
        log: read_log(root.table("log"), default.log),
        control: root.string("control", SOCKET, control_path).map_or(default.control, |found| found.value),
        access_log: read_access_log(root.table("access_log"), default.access_log),
        listeners: Vec::new(),
    };
    if root.is_empty_list("listener") {
        let message = "[] (array) is not legal: nothing would be guarded; legal: one [[listener]] table or more, or no key \
                       listener at all for one listener with the defaults";
        root.fault(root.span_of("listener"), "listener", message);
    }
    let mut listeners: Vec<_> = root.tables("listener").into_iter().map(read_listener).collect();
    check_names(&root, &listeners);
    check_binds(&root, &listeners, admin.as_ref());
    root.close();
    if listeners.is_empty() {
        return Config { listeners: default.listeners, ..config };
    }
    Config { listeners: listeners.drain(..).map(|read| read.config).collect(), ..config }
}

fn read_log(mut section: Section<'_, '_>, default: Log) -> Log {
    let log = Log {
        format: section.choice("format").map_or(default.format, |found| found.value),
        level: section.choice("level").map_or(default.level, |found| found.value),
    };
    section.close();
    log
}

fn read_access_log(mut section: Section<'_, '_>, default: AccessLogConfig) -> AccessLogConfig {
    let access_log = AccessLogConfig {
        path: section.string("path", ACCESS_LOG, access_log_path).map_or(default.path, |found| found.value),
        queue_lines: count(&mut section, "queue_lines", 1..=1_048_576, "lines", default.queue_lines),
    };
    section.close();
    access_log
}

fn read_listener(mut section: Section<'_, '_>) -> Read {
    let default = ListenerConfig::default();
    let name = section.string("name", NAME, listener_name);
    let name_span = name.as_ref().map_or(section.span(), |found| found.span.clone());
    let binds = read_binds(&mut section);
    let config = ListenerConfig {
        name: name.map_or(default.name, |found| found.value),
        bind: binds.iter().map(|found| found.value).collect(),
        backend: read_backend(&mut section, default.backend),
        balance: read_balance(section.table("balance"), default.balance),
        proxy_protocol: read_proxy_protocol(section.table("proxy_protocol")),
        interfaces: values(section.strings("interfaces", INTERFACE, interface_name)),
        fail_closed: section.boolean("fail_closed", default.fail_closed),
        accept_queue: count(&mut section, "accept_queue", 1..=1_048_576, "connections", default.accept_queue),
        connections_max: count(&mut section, "connections_max", 1..=16_777_216, "connections", default.connections_max),
        replies_per_prefix: budget(
            &mut section,
            "replies_per_prefix",
            "segments per second",
            default.replies_per_prefix,
        ),
        window_scale: section.integer("window_scale", 0..=14, "bits, RFC 7323", default.window_scale.into()) as u8,
        half_open: read_half_open(section.table("half_open"), default.half_open),
        cookies: read_cookies(section.table("cookies"), default.cookies),
        limits: read_limits(section.table("limits"), default.limits),
        timeouts: read_timeouts(section.table("timeouts"), default.timeouts),
    };
    section.close();
    Read { config, name_span, binds }
}

fn read_binds(section: &mut Section<'_, '_>) -> Vec<Located<SocketAddr>> {
    let binds = section.strings("bind", ADDRESS, guarded_address);
    if !section.has("bind") {
        section.missing("bind", &format!("a list, each item {ADDRESS}"));
    } else if section.is_empty_list("bind") {
        section.fault(section.span_of("bind"), "bind", format!("the list is empty; legal: one or more of {ADDRESS}"));
    }
    binds.unwrap_or_default()
}

fn read_backend(section: &mut Section<'_, '_>, default: Backend) -> Backend {
    let service = section.choice::<Service>("service");
    let upstream = section.string("upstream", UPSTREAM, upstream_address);
    let upstreams = section.strings("upstreams", SERVER, upstream_server);
    let named: Vec<_> = ["service", "upstream", "upstreams"].into_iter().filter(|key| section.has(key)).collect();
    if let [.., before, last] = named[..] {
        let message = format!("{before} and {last} exclude each other; legal: one of service, upstream, upstreams");
        section.fault(section.span_of(last), last, message);
    }
    if let Some(found) = upstreams {
        let servers = values(Some(found));
        if !section.is_empty_list("upstreams") && servers.len() <= SERVERS_MAX {
            return Backend::Upstreams(servers);
        }
        let message = format!("{} servers are not legal; legal: 1 to {SERVERS_MAX}", servers.len());
        section.fault(section.span_of("upstreams"), "upstreams", message);
    }
    match (service, upstream) {
        (Some(service), _) => Backend::Service(service.value),
        (None, Some(upstream)) => Backend::Upstreams(vec![upstream.value.into()]),
        (None, None) => default,
    }
}

fn read_balance(mut section: Section<'_, '_>, default: Balance) -> Balance {
    let checks = HealthConfig::default();
    let interval = section.integer("check_seconds", 0..=DAY_SECONDS, "seconds; 0: no checks", 0);
    let checks = HealthConfig {
        interval: Duration::from_secs(interval),
        timeout: seconds(&mut section, "check_timeout_seconds", 1, checks.timeout),
        rise: section.integer("check_rise", 1..=1000, "checks", checks.rise.into()) as u32,
        fall: section.integer("check_fall", 1..=1000, "checks", checks.fall.into()) as u32,
    };
    let balance = Balance {
        policy: section.choice("policy").map_or(default.policy, |found| found.value),
        tries: section.integer("tries", 1..=SERVERS_MAX as u64, "upstreams", default.tries.into()) as u32,
        checks: (interval > 0).then_some(checks),
    };
    section.close();
    balance
}

fn read_proxy_protocol(mut section: Section<'_, '_>) -> ProxyProtocol {
    let proxy_protocol = ProxyProtocol {
        send: section.choice("send").and_then(|found| found.value),
        accept_from: values(section.strings("accept_from", PREFIX, prefix)).into_iter().collect(),
    };
    section.close();
    proxy_protocol
}

fn read_half_open(mut section: Section<'_, '_>, default: HalfOpen) -> HalfOpen {
    let percent = |section: &mut Section<'_, '_>, key, least, default: u8| {
        section.integer(key, least..=100, "percent of max", default.into()) as u8
    };
    let half_open = HalfOpen {
        max: count(&mut section, "max", 1..=4_194_304, "entries", default.max),
        high_percent: percent(&mut section, "high_percent", 1, default.high_percent),
        low_percent: percent(&mut section, "low_percent", 0, default.low_percent),
        prefix_share_percent: percent(&mut section, "prefix_share_percent", 1, default.prefix_share_percent),
        synack_retries: section.integer("synack_retries", 0..=5, "segments", default.synack_retries.into()) as u8,
    };
    if half_open.low_percent >= half_open.high_percent {
        let message = format!(
            "{} is not below high_percent; legal: an integer from 0 to {} (percent of max)",
            half_open.low_percent,
            half_open.high_percent - 1
        );
        section.fault(section.span_of("low_percent"), "low_percent", message);
    }
    section.close();
    half_open
}

fn read_cookies(mut section: Section<'_, '_>, default: Cookies) -> Cookies {
    let cookies = Cookies {
        accept: section.choice("accept").map_or(default.accept, |found| found.value),
        bad_per_prefix: budget(&mut section, "bad_per_prefix", "cookies per second", default.bad_per_prefix),
    };
    section.close();
    cookies
}

fn read_limits(mut section: Section<'_, '_>, default: Limits) -> Limits {
    let limits = Limits {
        new_per_second: limit(&mut section, "new_per_second", 1_000_000, "connections in a second"),
        per_prefix: limit(&mut section, "per_prefix", 16_777_216, "connections"),
        allow_files: values(section.strings("allow_files", PATH, path)),
        deny_files: values(section.strings("deny_files", PATH, path)),
        at_limit: section.choice("at_limit").map_or(default.at_limit, |found| found.value),
        displace_idle: seconds(&mut section, "displace_idle_seconds", 1, default.displace_idle),
    };
    section.close();
    limits
}

fn read_timeouts(mut section: Section<'_, '_>, default: Timeouts) -> Timeouts {
    let timeouts = Timeouts {
        connect: seconds(&mut section, "connect_seconds", 1, default.connect),
        first_byte: seconds_or_never(&mut section, "first_byte_seconds", default.first_byte),
        idle: seconds_or_never(&mut section, "idle_seconds", default.idle),
        half_close: seconds_or_never(&mut section, "half_close_seconds", default.half_close),
        drain_idle: seconds_or_never(&mut section, "drain_idle_seconds", default.drain_idle),
        header: seconds(&mut section, "header_seconds", 1, default.header),
        user: seconds_or_never(&mut section, "user_timeout_seconds", default.user),
        keepalive: read_keepalive(&mut section),
    };
    section.close();
    timeouts
}

fn read_keepalive(section: &mut Section<'_, '_>) -> Option<Keepalive> {
    const KERNEL_MAX: u64 = 32_767;
    let idle = section.integer("keepalive_seconds", 0..=KERNEL_MAX, "seconds; 0: no probes", 0);
    let interval = section.integer("keepalive_interval_seconds", 1..=KERNEL_MAX, "seconds", 15);
    let count = section.integer("keepalive_probes", 1..=127, "probes", 4) as u32;
    let [idle, interval] = [idle, interval].map(Duration::from_secs);
    (!idle.is_zero()).then_some(Keepalive { idle, interval, count })
}

/// Names become labels of metrics: two listeners of one name would be one series.
fn check_names(root: &Section<'_, '_>, listeners: &[Read]) {
    let mut seen = HashMap::new();
    for read in listeners {
        if seen.insert(read.config.name.as_str(), ()).is_some() {
            let message = format!("\"{}\" names another listener already; legal: a name of its own", read.config.name);
            root.fault(read.name_span.clone(), "listener.name", message);
        }
    }
}

/// No packet may belong to two listeners, nor to a listener and the admin server.
/// Whether that datapath has programs that could answer at the hook; else why it is not legal, and what is.
pub(super) fn check_hook(hook: BpfHook, datapath: Datapath) -> Result<(), String> {
    match datapath {
        Datapath::Auto | Datapath::Bpf => Ok(()),
        Datapath::Raw | Datapath::Kernel if hook == BpfHook::Auto => Ok(()),
        Datapath::Raw | Datapath::Kernel => {
            let datapath = datapath.word();
            Err(format!(
                "is not legal beside datapath {datapath}, which has no eBPF programs; legal: auto, or datapath bpf or auto"
            ))
        }
    }
}

fn check_binds(root: &Section<'_, '_>, listeners: &[Read], admin: Option<&Located<Option<SocketAddr>>>) {
    let mut taken: Vec<SocketAddr> = Vec::new();
    for read in listeners {
        let own: Vec<_> = read.binds.iter().map(|found| found.value).collect();
        for bind in &read.binds {
            // What the wildcard of IPv6 guards beside IPv6 depends on the listener's other addresses.
            let guards = expand_wildcards(&own).into_iter().filter(|addr| addr.port() == bind.value.port());
            let guards: Vec<_> = guards.filter(|addr| *addr == bind.value || !own.contains(addr)).collect();
            if let Some(other) = taken.iter().find(|other| guards.iter().any(|addr| overlap(addr, other))) {
                let message =
                    format!("\"{}\" overlaps with {other}; legal: an address and port of its own", bind.value);
                root.fault(bind.span.clone(), "listener.bind", message);
            } else {
                taken.extend(guards);
            }
        }
    }
    let Some(Located { value: Some(addr), span }) = admin else { return };
    if let Some(other) = taken.iter().find(|other| overlap(addr, other)) {
        root.fault(span.clone(), "admin", format!("\"{addr}\" overlaps with the guarded {other}; legal: another port"));
    }
}

fn count(
    section: &mut Section<'_, '_>,
    key: &'static str,
    legal: std::ops::RangeInclusive<u64>,
    unit: &str,
    default: usize,
) -> usize {
    section.integer(key, legal, unit, default as u64) as usize
}

fn limit(section: &mut Section<'_, '_>, key: &'static str, most: u64, unit: &str) -> Option<NonZeroU32> {
    NonZeroU32::new(section.integer(key, 0..=most, &format!("{unit}; 0: no limit"), 0) as u32)
}

fn budget(section: &mut Section<'_, '_>, key: &'static str, unit: &str, default: u32) -> u32 {
    section.integer(key, 10..=327_670, unit, default.into()) as u32
}

fn seconds(section: &mut Section<'_, '_>, key: &'static str, least: u64, default: Duration) -> Duration {
    Duration::from_secs(section.integer(key, least..=DAY_SECONDS, "seconds", default.as_secs()))
}

fn seconds_or_never(section: &mut Section<'_, '_>, key: &'static str, default: Option<Duration>) -> Option<Duration> {
    let default = default.map_or(0, |time| time.as_secs());
    let seconds = section.integer(key, 0..=DAY_SECONDS, "seconds; 0: no limit", default);
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn path(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() { Err("it is empty") } else { Ok(PathBuf::from(text)) }
}

fn control_path(text: &str) -> Result<ControlPath, String> {
    if text == "none" { Ok(ControlPath::None) } else { socket_path(text).map(ControlPath::At) }
}

fn access_log_path(text: &str) -> Result<AccessLogPath, &'static str> {
    match text {
        "none" => Ok(AccessLogPath::None),
        "stderr" => Ok(AccessLogPath::Stderr),
        text => path(text).map(AccessLogPath::File),
    }
}

fn values<T>(found: Option<Vec<Located<T>>>) -> Vec<T> {
    found.into_iter().flatten().map(|found| found.value).collect()
}
