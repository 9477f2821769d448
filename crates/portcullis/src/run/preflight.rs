//! What can be found out before the first client is answered: a start that fails should take nobody with it.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use listener::io::check_reservable;
use portcullis::guard::expand_wildcards;

use crate::config::{Backend, Config, Datapath, ListenerConfig};
use crate::failure::Failure;

/// Checks what only this host can tell.
///
/// # Errors
/// An address that is taken, or an upstream that is Portcullis itself.
pub fn check(config: &Config) -> Result<(), Failure> {
    for listener in &config.listeners {
        no_circle(config, listener)?;
    }
    match config.datapath {
        Datapath::Kernel => warn_of_settings_without_effect(config),
        Datapath::Auto | Datapath::Raw => {
            for listener in &config.listeners {
                let named = |error| Failure::Runtime(format!("listener \"{}\": {error}", listener.name));
                check_reservable(&expand_wildcards(&listener.bind)).map_err(named)?;
            }
        }
    }
    match config.admin {
        Some(admin) => TcpListener::bind(admin)
            .map(drop)
            .map_err(|error| Failure::runtime(format!("cannot listen on {admin} (--admin)"), error)),
        None => Ok(()),
    }
}

/// Refuses an upstream whose connections we would answer ourselves, and pass on to it again, and so on.
fn no_circle(config: &Config, listener: &ListenerConfig) -> Result<(), Failure> {
    let Backend::Upstream(upstream) = listener.backend else { return Ok(()) };
    let guards = |other: &&ListenerConfig| {
        let guarded = expand_wildcards(&other.bind);
        guarded.iter().any(|guard| reaches(guard, upstream))
    };
    match config.listeners.iter().find(guards) {
        None => Ok(()),
        Some(other) => Err(Failure::Usage(format!(
            "listener \"{}\": the upstream {upstream} is guarded by listener \"{}\" of this very program; \
             legal: a server of its own",
            listener.name, other.name
        ))),
    }
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

fn warn_of_settings_without_effect(config: &Config) {
    for listener in &config.listeners {
        if listener.fail_closed || !listener.interfaces.is_empty() {
            tracing::warn!(listener = listener.name, "interfaces and fail_closed do nothing with datapath kernel");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
