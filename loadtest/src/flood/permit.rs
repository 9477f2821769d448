//! Where floods may go: to loopback, or through a cable that the lab laid to addresses that exist in labs alone.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use testnet::Namespace;

use super::FloodError;
use super::prefix::Prefix;
use super::spec::Place;

/// What the lab calls its devices (`ip link set dev X alias portcullis-lab`).
pub const ALIAS: &str = "portcullis-lab";
/// RFC 2544 §C.2.2 and RFC 3849: no network routes these.
const LAB: [&str; 2] = ["198.18.0.0/15", "2001:db8::/32"];
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// Refuses a flood that could leave the lab.
pub fn check(target: SocketAddr, place: &Place) -> Result<(), FloodError> {
    let sources = [place.spoofed, place.owned];
    judge(target.ip(), &sources, &Surroundings::of(&place.namespace, &place.interface)?).map_err(FloodError::Forbidden)
}

/// Refuses a target that a socket of this namespace would not reach by loopback or by the lab's cable: what the kernel's own routes
/// decide is asked of them, not of the address, which any network may have given itself.
pub fn check_way(namespace: &Namespace, target: IpAddr) -> Result<(), FloodError> {
    let ways: Vec<Way> = ip(namespace, &["-json", "route", "get", &target.to_string()])?;
    let device = ways.into_iter().next().and_then(|way| way.dev);
    let device = device.ok_or_else(|| FloodError::Forbidden(format!("no device leads to {target}")))?;
    judge(target, &[], &Surroundings::of(namespace, &device)?).map_err(FloodError::Forbidden)
}

/// The device and its namespace, as the kernel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Surroundings {
    device: Device,
    has_default_route: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Device {
    Loopback,
    LabVeth,
    Other,
}

fn judge(target: IpAddr, sources: &[Prefix], around: &Surroundings) -> Result<(), String> {
    if sources.iter().any(|source| source.network().is_ipv4() != target.is_ipv4()) {
        return Err(format!("sources of another family than {target}"));
    }
    let (allowed, device) = if target.is_loopback() { (LOOPBACK, Device::Loopback) } else { (LAB, Device::LabVeth) };
    let inside = |prefix: &Prefix| allowed.iter().any(|text| text.parse::<Prefix>().is_ok_and(|a| a.covers(prefix)));
    if !inside(&Prefix::of(target, u32::MAX)) {
        return Err(format!("{target} is neither loopback nor in {}", LAB.join(" or ")));
    }
    if let Some(source) = sources.iter().find(|source| !inside(source)) {
        return Err(format!("sources in {source}, which is not in {}", allowed.join(" or ")));
    }
    if around.device != device {
        return Err(match device {
            Device::Loopback => "loopback is flooded through `lo`".to_owned(),
            Device::LabVeth | Device::Other => format!("the device is no veth with the alias `{ALIAS}`"),
        });
    }
    if device == Device::LabVeth && around.has_default_route {
        return Err("the namespace has a default route".to_owned());
    }
    Ok(())
}

impl Surroundings {
    fn of(namespace: &Namespace, interface: &str) -> Result<Surroundings, FloodError> {
        let show = ["-details", "-json", "link", "show", "dev", interface];
        let links: Vec<Link> = ip(namespace, &show)?;
        let mut has_default_route = false;
        for family in ["-4", "-6"] {
            let routes: Vec<Route> = ip(namespace, &[family, "-json", "route", "show", "table", "all"])?;
            has_default_route |= routes.iter().any(Route::leads_anywhere);
        }
        Ok(Surroundings { device: links.first().map_or(Device::Other, Link::device), has_default_route })
    }
}

#[derive(Debug, Deserialize)]
struct Way {
    dev: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Link {
    link_type: String,
    ifalias: Option<String>,
    linkinfo: Option<LinkInfo>,
}

#[derive(Debug, Deserialize)]
struct LinkInfo {
    info_kind: Option<String>,
}

impl Link {
    fn device(&self) -> Device {
        let kind = self.linkinfo.as_ref().and_then(|info| info.info_kind.as_deref());
        match (self.link_type.as_str(), kind, self.ifalias.as_deref()) {
            ("loopback", ..) => Device::Loopback,
            (_, Some("veth"), Some(ALIAS)) => Device::LabVeth,
            _ => Device::Other,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Route {
    dst: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Route {
    fn leads_anywhere(&self) -> bool {
        let everything = self.dst.as_deref().is_some_and(|dst| matches!(dst, "default" | "0.0.0.0/0" | "::/0"));
        everything && !matches!(self.kind.as_deref(), Some("unreachable" | "blackhole" | "prohibit"))
    }
}

fn ip<T: for<'a> Deserialize<'a> + Default>(namespace: &Namespace, arguments: &[&str]) -> Result<T, FloodError> {
    let output = namespace.command("ip").args(arguments).output().map_err(FloodError::io("run `ip`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(FloodError::Forbidden(format!("`ip {}` says: {said}", arguments.join(" "))));
    }
    if output.stdout.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| FloodError::Forbidden(format!("`ip` says: {error}")))
}

#[cfg(test)]
mod tests {
    use testnet::{isolated, veth};

    use super::*;

    const CABLE: Surroundings = Surroundings { device: Device::LabVeth, has_default_route: false };

    fn judged(target: &str, source: &str, around: &Surroundings) -> Result<(), String> {
        judge(target.parse().unwrap(), &[source.parse().unwrap()], around)
    }

    #[test]
    fn lab_addresses_by_a_lab_cable_are_fine() {
        assert_eq!(judged("198.18.0.1", "198.18.128.0/17", &CABLE), Ok(()));
        assert_eq!(judged("2001:db8::1", "2001:db8:ffff::/64", &CABLE), Ok(()));
    }

    #[test]
    fn loopback_is_flooded_from_loopback() {
        let lo = Surroundings { device: Device::Loopback, has_default_route: true };
        assert_eq!(judged("127.0.0.1", "127.1.0.0/16", &lo), Ok(()));
        assert!(judged("127.0.0.1", "198.18.128.0/17", &lo).is_err());
        assert!(judged("127.0.0.1", "127.1.0.0/16", &CABLE).is_err());
        assert!(judged("198.18.0.1", "198.18.128.0/17", &lo).is_err());
    }

    #[test]
    fn nothing_else_is_flooded() {
        for target in ["192.0.2.1", "10.0.0.1", "198.20.0.1", "8.8.8.8"] {
            assert!(judged(target, "198.18.128.0/17", &CABLE).is_err(), "{target}");
        }
        for target in ["2001:db9::1", "fe80::1", "::ffff:198.18.0.1"] {
            assert!(judged(target, "2001:db8::/64", &CABLE).is_err(), "{target}");
        }
        for source in ["198.0.0.0/8", "0.0.0.0/0", "192.0.2.0/24", "2001:db8::/64"] {
            assert!(judged("198.18.0.1", source, &CABLE).is_err(), "{source}");
        }
    }

    #[test]
    fn other_devices_and_ways_out_are_refused() {
        let other = Surroundings { device: Device::Other, ..CABLE };
        assert!(judged("198.18.0.1", "198.18.128.0/17", &other).is_err());
        let way_out = Surroundings { has_default_route: true, ..CABLE };
        assert!(judged("198.18.0.1", "198.18.128.0/17", &way_out).is_err());
    }

    #[test]
    fn the_kernel_is_asked() {
        isolated!(|| {
            let (server, client) = (Namespace::new(), Namespace::new());
            veth((&server, "srv0", &["198.18.0.1/24"]), (&client, "fld0", &["198.18.0.2/24"]));
            let around = |interface| Surroundings::of(&client, interface).unwrap();
            assert_eq!(around("lo").device, Device::Loopback);
            assert_eq!(around("fld0"), Surroundings { device: Device::Other, has_default_route: false });
            client.ip("link set dev fld0 alias portcullis-lab");
            assert_eq!(around("fld0"), CABLE);
            client.ip("route add unreachable default metric 4000");
            assert_eq!(around("fld0"), CABLE);
            client.ip("route add default via 198.18.0.1");
            assert!(around("fld0").has_default_route);
            assert!(matches!(Surroundings::of(&client, "nosuch0"), Err(FloodError::Forbidden(_))));
        });
    }

    #[test]
    fn the_route_decides_by_which_device_sockets_go() {
        isolated!(|| {
            let (server, client) = (Namespace::new(), Namespace::new());
            veth((&server, "srv0", &["198.18.0.1/24"]), (&client, "fld0", &["198.18.0.2/24"]));
            let other = Namespace::new();
            veth((&other, "oth0", &["198.18.9.1/24"]), (&client, "fld1", &["198.18.9.2/24"]));
            client.ip("link set dev fld0 alias portcullis-lab");
            let way = |target: &str| check_way(&client, target.parse().unwrap());
            assert!(way("198.18.0.1").is_ok() && way("127.0.0.1").is_ok());
            // A device without the alias, an address of our own, and no route at all.
            for foreign in ["198.18.9.1", "198.18.9.2", "198.19.0.1", "192.0.2.1"] {
                assert!(matches!(way(foreign), Err(FloodError::Forbidden(_))), "{foreign}");
            }
            client.ip("route add default via 198.18.0.1");
            assert!(matches!(way("198.18.0.1"), Err(FloodError::Forbidden(_))));
        });
    }
}
