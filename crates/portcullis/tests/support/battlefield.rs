//! A lab under attack.

use std::net::SocketAddr;

use testnet::{Flood, FloodKind, FloodSpec, Interface, Namespace, Sources, veth};

use super::Lab;

/// A lab with a second cable, from which the flood comes.
pub struct Battlefield {
    pub lab: Lab,
    near: Interface,
    far: Interface,
}

impl Battlefield {
    pub fn new() -> Battlefield {
        let lab = Lab::new();
        let attacker = Namespace::new();
        let (far, near) = veth(
            (&lab.server, "srv1", &["198.18.255.1/30", "2001:db8:ffff::1/64"]),
            (&attacker, "fld0", &["198.18.255.2/30", "2001:db8:ffff::2/64"]),
        );
        // The sources of the flood lie behind a router, as they would: no neighbour entry for each of them.
        lab.server.ip("route add 198.19.0.0/16 via 198.18.255.2");
        lab.server.ip("route add 2001:db8:bad::/48 via 2001:db8:ffff::2");
        Battlefield { lab, near, far }
    }

    /// Begins a flood of this kind.
    pub fn flood(&self, kind: FloodKind, target: SocketAddr, sources: Sources) -> Flood {
        Flood::start(&self.near, &self.far, FloodSpec { kind, target, sources, seed: 42 })
    }
}
