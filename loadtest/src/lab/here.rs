//! Where a flood or a client starts that was called by hand: on loopback, or in the namespace of a lab.

use std::net::{IpAddr, SocketAddr};

use testnet::{Mac, Namespace};

use super::{Family, Plan, ROUTER};
use crate::flood::{ALIAS, FloodError, Place, check_way};

/// Why it cannot start here.
#[derive(Debug, thiserror::Error)]
#[error("--target {target}: {why}; legal are loopback, and the addresses of a lab from inside it (`loadtest lab`)")]
pub struct NotHere {
    target: SocketAddr,
    why: String,
}

/// Where a flood of this target starts from. Whether it may is asked again when it starts.
///
/// # Errors
/// When no cable of a lab is in this namespace.
pub fn place_here(target: SocketAddr, cores: Vec<usize>) -> Result<Place, NotHere> {
    permit_clients(target)?;
    let namespace = Namespace::current();
    if target.ip().is_loopback() {
        let sources = if target.is_ipv4() { "127.1.0.0/16" } else { "::1/128" };
        let sources = sources.parse().expect("a constant");
        let nobody = Mac([0; 6]);
        let interface = "lo".to_owned();
        return Ok(Place {
            namespace,
            interface,
            source_mac: nobody,
            gateway_mac: nobody,
            spoofed: sources,
            owned: sources,
            cores,
        });
    }
    let here = cable_here(&namespace, target)
        .ok_or_else(|| NotHere { target, why: "there is no cable of a lab here".to_owned() })?;
    let plan = Plan::of(if target.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 });
    Ok(Place {
        namespace,
        interface: here.0,
        source_mac: ROUTER,
        gateway_mac: here.1,
        spoofed: plan.spoofed.parse().expect("a prefix of the plan"),
        owned: plan.owned.parse().expect("a prefix of the plan"),
        cores,
    })
}

/// Whether frames of a flood come to anything on loopback here: by default the kernel takes those of IPv4 for strays and drops them.
///
/// # Errors
/// With what has to be set.
pub fn loopback_takes_frames(target: SocketAddr) -> Result<(), NotHere> {
    if !target.ip().is_loopback() || target.is_ipv6() {
        return Ok(());
    }
    let is_set = |key: &str, device: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{device}/{key}"));
        text.is_ok_and(|text| text.trim() != "0")
    };
    // The kernel takes what is set for all devices, or for this one.
    let missing =
        ["route_localnet", "accept_local"].into_iter().filter(|key| !is_set(key, "all") && !is_set(key, "lo"));
    let missing: Vec<String> = missing.map(|key| format!("net.ipv4.conf.lo.{key}=1")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let why =
        format!("the kernel would drop these frames unseen; it takes them after `sysctl -w {}`", missing.join(" "));
    Err(NotHere { target, why })
}

/// The interface with the lab's mark, and the link-layer address of its other end.
fn cable_here(namespace: &Namespace, target: SocketAddr) -> Option<(String, Mac)> {
    let links: serde_json::Value = serde_json::from_str(&namespace.output("ip", "-json link show")).ok()?;
    let ours = links.as_array()?.iter().find(|link| link["ifalias"] == ALIAS)?;
    let name = ours["ifname"].as_str()?.to_owned();
    let family = if target.is_ipv4() { "-4" } else { "-6" };
    let neighbours = namespace.output("ip", &format!("-json {family} neigh show dev {name} nud permanent"));
    let neighbours: serde_json::Value = serde_json::from_str(&neighbours).ok()?;
    let mac = neighbours.as_array()?.iter().find_map(|neighbour| neighbour["lladdr"].as_str()?.parse().ok())?;
    Some((name, mac))
}

/// Whether clients, too, may come to this target from here: nobody's server is tried by accident. Addresses of labs may be anybody's
/// outside of one, so the device that leads there has to be a lab's cable.
///
/// # Errors
/// When it is neither loopback nor an address of a lab that a cable of the lab leads to.
pub fn permit_clients(target: SocketAddr) -> Result<(), NotHere> {
    permit_address(target)?;
    if target.ip().is_loopback() {
        return Ok(());
    }
    check_way(&Namespace::current(), target.ip()).map_err(|error| {
        let why = match error {
            FloodError::Forbidden(why) => why,
            error => error.to_string(),
        };
        NotHere { target, why }
    })
}

fn permit_address(target: SocketAddr) -> Result<(), NotHere> {
    let in_labs = match target.ip() {
        IpAddr::V4(ip) => ip.octets()[0] == 198 && matches!(ip.octets()[1], 18 | 19),
        IpAddr::V6(ip) => ip.segments()[..2] == [0x2001, 0xdb8],
    };
    let legal = target.ip().is_loopback() || in_labs;
    if legal { Ok(()) } else { Err(NotHere { target, why: "neither on loopback nor in a lab".to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_labs_are_legal() {
        for legal in
            ["127.0.0.1:80", "127.9.9.9:1", "[::1]:80", "198.18.0.1:80", "198.19.255.255:80", "[2001:db8::1]:80"]
        {
            assert!(permit_address(legal.parse().unwrap()).is_ok(), "{legal}");
        }
        for foreign in
            ["192.0.2.1:80", "198.20.0.1:80", "198.17.0.1:80", "10.0.0.1:80", "[2001:db9::1]:80", "[fe80::1]:80"]
        {
            let error = permit_address(foreign.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(foreign), "{error}");
        }
    }
}
