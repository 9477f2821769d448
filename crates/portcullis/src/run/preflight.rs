//! What can be found out before the first client is answered: a start that fails should take nobody with it.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use connection::upstream::Server;
use listener::io::{EngineError, check_reservable};
use portcullis::guard::expand_wildcards;

use crate::config::{Backend, Config, Datapath, ListenerConfig};
use crate::failure::Failure;
use crate::rights;
use crate::takeover::Predecessor;

/// Checks what only this host can tell. What a predecessor has is as good as free.
///
/// # Errors
/// An address that is taken, or an upstream that is Portcullis itself.
pub fn check(config: &Config, predecessor: Option<&Predecessor>) -> Result<(), Failure> {
    for listener in &config.listeners {
        no_circle(config, listener)?;
    }
    match config.datapath {
        Datapath::Kernel => warn_of_settings_without_effect(config),
        Datapath::Auto | Datapath::Bpf | Datapath::Raw => {
            config.listeners.iter().flat_map(|listener| &listener.interfaces).for_each(|name| warn_of_master(name));
            for listener in &config.listeners {
                let named = |error| Failure::Runtime(format!("listener \"{}\": {error}", listener.name));
                let mut addrs = expand_wildcards(&listener.bind);
                addrs.retain(|addr| !predecessor.is_some_and(|predecessor| predecessor.guards(*addr)));
                let in_use = |error: &EngineError| match error {
                    EngineError::Reserve { source, .. } => source.kind() == ErrorKind::AddrInUse,
                    _ => false,
                };
                once_free(config, in_use, || check_reservable(&addrs)).map_err(named)?;
            }
        }
    }
    let free = |admin: &SocketAddr| !predecessor.is_some_and(|predecessor| predecessor.has_admin(*admin));
    let Some(admin) = config.admin.filter(free) else { return Ok(()) };
    let bind = || TcpListener::bind(admin).map(drop);
    once_free(config, |error: &io::Error| error.kind() == ErrorKind::AddrInUse, bind).map_err(|error| {
        let runtime = || Failure::runtime(format!("cannot listen on {admin} (--admin)"), &error);
        rights::low_port(admin, &error).unwrap_or_else(runtime)
    })
}

/// A predecessor that has handed its pinned programs on lets go of its ports within moments.
fn once_free<E>(
    config: &Config,
    in_use: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let begin = Instant::now();
    loop {
        match attempt() {
            Err(error) if config.bpf_pins.is_some() && in_use(&error) && begin.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

/// Refuses an upstream whose connections we would answer ourselves, and pass on to it again, and so on.
pub fn no_circle(config: &Config, listener: &ListenerConfig) -> Result<(), Failure> {
    let Backend::Upstreams(servers) = &listener.backend else { return Ok(()) };
    for server in servers {
        let Server::Tcp(upstream) = *server else { continue };
        let guards = |other: &&ListenerConfig| {
            let guarded = expand_wildcards(&other.bind);
            guarded.iter().any(|guard| reaches(guard, upstream))
        };
        if let Some(other) = config.listeners.iter().find(guards) {
            return Err(Failure::Usage(format!(
                "listener \"{}\": the upstream {upstream} is guarded by listener \"{}\" of this very program; \
                 legal: a server of its own",
                listener.name, other.name
            )));
        }
    }
    Ok(())
}

/// Whether a connection to `target` from here would meet the guard.
fn reaches(guard: &SocketAddr, target: SocketAddr) -> bool {
    let same_port = guard.port() == target.port() && guard.is_ipv4() == target.is_ipv4();
    same_port && (guard.ip() == target.ip() || (guard.ip().is_unspecified() && is_local(target)))
}

/// Only an address of this host can be bound.
fn is_local(addr: SocketAddr) -> bool {
    addr.ip().is_unspecified() || UdpSocket::bind((addr.ip(), 0)).is_ok()
}

/// What comes in over a part of a bridge or bond belongs to the whole, and is answered there.
fn warn_of_master(interface: &str) {
    if let Some(master) = interface_master(Path::new("/sys/class/net"), interface) {
        tracing::warn!(
            "interface {interface} is a part of {master}, to which its packets and addresses belong: \
             nobody is answered over it. Name {master} instead"
        );
    }
}

/// The bridge, bond, team or VRF that an interface is a part of.
fn interface_master(interfaces: &Path, name: &str) -> Option<String> {
    let master = interfaces.join(name).join("master").read_link().ok()?;
    Some(master.file_name()?.to_str()?.to_owned())
}

fn warn_of_settings_without_effect(config: &Config) {
    let ignored = ignored_by_kernel(config);
    if !ignored.is_empty() {
        tracing::warn!(
            "datapath kernel ignores {}: the kernel makes the handshakes, with limits and cookies of its own",
            ignored.join(", ")
        );
    }
}

/// The settings that were given, by their names in the file, and are those of a handshake that the kernel makes.
fn ignored_by_kernel(config: &Config) -> Vec<&'static str> {
    let default = ListenerConfig::default();
    let changed = |differs: fn(&ListenerConfig, &ListenerConfig) -> bool| {
        config.listeners.iter().any(|listener| differs(listener, &default))
    };
    let settings = [
        ("half_open", changed(|own, default| own.half_open != default.half_open)),
        ("cookies", changed(|own, default| own.cookies != default.cookies)),
        ("master_key_file", config.master_key_file.is_some()),
        ("state_dir", config.state_dir.is_some()),
        ("bpf_pins", config.bpf_pins.is_some()),
        ("interfaces", changed(|own, default| own.interfaces != default.interfaces)),
        ("fail_closed", changed(|own, default| own.fail_closed != default.fail_closed)),
        ("workers", config.workers.is_some()),
        ("accept_queue", changed(|own, default| own.accept_queue != default.accept_queue)),
        ("replies_per_prefix", changed(|own, default| own.replies_per_prefix != default.replies_per_prefix)),
        ("window_scale", changed(|own, default| own.window_scale != default.window_scale)),
    ];
    settings.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::HalfOpen;

    #[test]
    fn the_master_of_an_interface_is_where_its_link_leads() {
        let interfaces = std::env::temp_dir().join(format!("portcullis-sys-{:016x}", getrandom::u64().unwrap()));
        for name in ["port0", "alone0"] {
            fs::create_dir_all(interfaces.join(name)).unwrap();
        }
        symlink("../br0", interfaces.join("port0/master")).unwrap();
        assert_eq!(interface_master(&interfaces, "port0").as_deref(), Some("br0"));
        assert_eq!(interface_master(&interfaces, "alone0"), None);
        assert_eq!(interface_master(&interfaces, "absent0"), None);
        fs::remove_dir_all(interfaces).unwrap();
    }

    #[test]
    fn each_setting_that_the_kernel_ignores_is_named_once() {
        assert_eq!(ignored_by_kernel(&Config::default()), [""; 0]);
        let half_open = HalfOpen { max: 7, ..ListenerConfig::default().half_open };
        let listener = ListenerConfig { half_open, fail_closed: true, connections_max: 3, ..ListenerConfig::default() };
        let listeners = vec![listener.clone(), listener];
        let config = Config { listeners, master_key_file: Some("k".into()), ..Config::default() };
        assert_eq!(ignored_by_kernel(&config), ["half_open", "master_key_file", "fail_closed"]);
    }

    #[test]
    fn a_guard_is_reached_by_its_own_address_and_a_wildcard_by_any_local_one() {
        for (guard, target, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "192.0.2.1:80", false),
            ("[::]:80", "127.0.0.1:80", false),
        ] {
            assert_eq!(reaches(&guard.parse().unwrap(), target.parse().unwrap()), expected, "{guard} {target}");
        }
    }
}
