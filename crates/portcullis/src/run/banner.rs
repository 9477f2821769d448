//! What is said at the start.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use portcullis::Listener;

use super::logging::Stderr;
use crate::config::{Backend, Choice, Config, ListenerConfig, LogFormat, Service};
use crate::rights::shell_quoted;

/// A few lines for people: what runs, where, and what to try next.
pub fn lines(
    config: &Config,
    listeners: &[Listener],
    admin: Option<SocketAddr>,
    control: Option<&Path>,
) -> Vec<String> {
    let mut lines = vec![format!("portcullis {}", env!("CARGO_PKG_VERSION"))];
    for (config, listener) in config.listeners.iter().zip(listeners) {
        lines.push(describe(config, listener.local_addrs(), listener.tier()));
    }
    match admin {
        Some(addr) => lines.extend([
            format!("  metrics    http://{addr}/metrics   (also /healthz, /readyz)"),
            format!("  page       http://{addr}/   (in a browser: what happens now)"),
        ]),
        None => lines.push("  metrics    none (--admin ADDR:PORT shows them)".to_owned()),
    }
    if let Some(path) = control {
        lines.push(format!("  control    portcullis ctl --socket {} status", shell_quoted(path)));
    }
    if let (Some(first), Some(listener)) = (config.listeners.first(), listeners.first())
        && let Some(addr) = listener.local_addrs().first()
    {
        lines.push(format!("  try        {}", try_next(&first.backend, *addr)));
        lines.push(format!("  stop       Ctrl-C, or: kill {}", std::process::id()));
    }
    lines
}

/// Writes the lines to standard error: for people as they are, for machines as log lines.
pub fn show(lines: &[String], format: LogFormat) {
    for line in lines {
        match format {
            LogFormat::Text => {
                let _ = writeln!(Stderr, "{line}");
            }
            LogFormat::Json => tracing::info!("{}", line.trim_start()),
        }
    }
}

fn describe(config: &ListenerConfig, addrs: &[SocketAddr], tier: &str) -> String {
    let addrs: Vec<_> = addrs.iter().map(SocketAddr::to_string).collect();
    let behind = match &config.backend {
        Backend::Service(service) => format!("the {} service", word(*service)),
        Backend::Upstreams(servers) => {
            format!("upstream {}", servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
    };
    let door = match tier {
        "kernel" => "datapath kernel: the kernel answers SYNs, without our protection".to_owned(),
        tier => format!("datapath {tier}, at most {} half-open", config.half_open.max),
    };
    format!("  guarding   {} ({}) for {behind}; {door}", addrs.join(", "), config.name)
}

fn try_next(backend: &Backend, addr: SocketAddr) -> String {
    let addr = reachable(addr);
    match backend {
        Backend::Service(Service::Http) => format!("curl http://{addr}/"),
        _ => format!("nc {} {}", addr.ip(), addr.port()),
    }
}

/// An address to connect to from this host.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), addr.port()),
        _ => addr,
    }
}

fn word(service: Service) -> &'static str {
    Service::WORDS.iter().find(|(_, value)| *value == service).map_or("", |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_described_in_one_line() {
        let config = ListenerConfig::default();
        let line = describe(&config, &config.bind, "raw");
        assert!(line.contains("127.0.0.1:8080") && line.contains("http") && line.contains("4096 half-open"), "{line}");
        let line = describe(&config, &config.bind, "kernel");
        assert!(line.contains("without our protection") && !line.contains("half-open"), "{line}");
    }

    #[test]
    fn what_to_try_can_be_connected_to() {
        let http = Backend::Service(Service::Http);
        assert_eq!(try_next(&http, "0.0.0.0:80".parse().unwrap()), "curl http://127.0.0.1:80/");
        assert_eq!(try_next(&http, "[::]:80".parse().unwrap()), "curl http://[::1]:80/");
        assert_eq!(try_next(&Backend::Service(Service::Echo), "[::1]:7".parse().unwrap()), "nc ::1 7");
    }
}
