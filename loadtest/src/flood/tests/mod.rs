//! Floods as an outsider sees them.

mod cable;
mod connections;
mod frames;
mod tshark;

use testnet::{Interface, Mac, Namespace, veth};

use super::*;

const FRAME_KINDS: [FloodKind; 8] = [
    FloodKind::Syn,
    FloodKind::Ack,
    FloodKind::Rst,
    FloodKind::Fin,
    FloodKind::Null,
    FloodKind::Xmas,
    FloodKind::SynData,
    FloodKind::HalfOpen,
];
const MIXES: [OptionMix; 6] =
    [OptionMix::Linux, OptionMix::Windows, OptionMix::Macos, OptionMix::Freebsd, OptionMix::None, OptionMix::Mixed];
const ALL_SOURCES: [Sources; 4] = [Sources::Random, Sources::One, Sources::Prefix, Sources::Tuple];
/// Target, spoofed prefix, and owned prefix of each family.
const FAMILIES: [[&str; 3]; 2] = [
    ["198.18.0.1:80", "198.18.128.0/17", "198.18.64.0/18"],
    ["[2001:db8::1]:80", "2001:db8:ff00::/40", "2001:db8:1::/64"],
];

fn spec(kind: FloodKind, target: &str) -> FloodSpec {
    FloodSpec {
        kind,
        sources: Sources::Random,
        options: OptionMix::Linux,
        engine: Engine::TxRing,
        rate: None,
        seed: 7,
        target: target.parse().unwrap(),
    }
}

/// A place for frames that go nowhere.
fn nowhere(spoofed: &str) -> Place {
    Place {
        namespace: Namespace::current(),
        interface: "none".to_owned(),
        source_mac: Mac([2, 0, 0, 0, 0, 1]),
        gateway_mac: Mac([2, 0, 0, 0, 0, 2]),
        spoofed: spoofed.parse().unwrap(),
        owned: spoofed.parse().unwrap(),
        cores: Vec::new(),
    }
}

/// A server and a flood at the two ends of a cable, in one family.
struct Lab {
    server: Namespace,
    far: Interface,
    place: Place,
    target: &'static str,
}

impl Lab {
    fn new([target, spoofed, owned]: [&'static str; 3]) -> Lab {
        let (server, attacker) = (Namespace::new(), Namespace::new());
        let (far, near) = veth(
            (&server, "srv0", &["198.18.0.1/24", "2001:db8::1/64"]),
            (&attacker, "fld0", &["198.18.0.2/24", "2001:db8::2/64"]),
        );
        attacker.ip("link set dev fld0 alias portcullis-lab");
        attacker.ip(&format!("route add local {owned} dev lo"));
        // What the kernel says of its own accord would be counted too.
        attacker.output("nft", "add table ip6 quiet");
        attacker.output("nft", "add chain ip6 quiet out { type filter hook output priority 0 ; }");
        attacker.output("nft", "add rule ip6 quiet out meta l4proto icmpv6 drop");
        // Answers find their way, to nobody in the one case.
        let gateway = if spoofed.contains(':') { "2001:db8::2" } else { "198.18.0.2" };
        for prefix in [spoofed, owned] {
            server.ip(&format!("route add {prefix} via {gateway} dev srv0"));
        }
        let place = Place {
            namespace: attacker,
            interface: near.name().to_owned(),
            source_mac: near.mac(),
            gateway_mac: far.mac(),
            spoofed: spoofed.parse().unwrap(),
            owned: owned.parse().unwrap(),
            cores: Vec::new(),
        };
        Lab { server, far, place, target }
    }

    /// Frames that the server's end received.
    fn received(&self) -> u64 {
        received(&self.server, self.far.name())
    }
}

/// Frames that an interface received.
fn received(namespace: &Namespace, interface: &str) -> u64 {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let line = text.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':')).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn two_in_a_hundred_are_forgiven() {
    assert!(!fell_behind(0, 0));
    assert!(!fell_behind(100_000, 98_000));
    assert!(fell_behind(100_000, 97_999));
    assert!(!fell_behind(60, 0), "a moment's worth");
}
