//! The lab: two namespaces, one cable, and who works on which core.
//!
//! ```text
//!   outside                                       server
//!   flood ────┐                                   threads of the cable's reception,
//!   clients ──┴─► to-server ═════════ to-outside ─► the target, at 198.18.0.1 and 2001:db8::1
//! ```
//!
//! Flood and clients share one cable and one queue into the server, as they do behind one uplink: what the flood makes overflow the
//! clients lose too. Nothing here has a route out. Both namespaces are nobody's but this process's, and are gone with it, however
//! it ends.

mod cores;
mod here;
mod limits;
mod reception;
mod seclusion;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::unistd::Pid;
use testnet::{Interface, Mac, Namespace, veth};

use crate::flood::{ALIAS, InDriver, Place, take_xdp_answers};
use crate::target::Alternative;

pub use cores::{Cores, bind_to};
pub use here::{loopback_takes_frames, permit_clients, place_here};
pub use limits::raise_descriptors;
pub use seclusion::{SCRATCH, seclude};

/// The guarded port.
pub const PORT: u16 = 8080;
/// Where the flood's frames say they come from: a router that does not exist, so that what goes back to it is dropped first thing.
const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

/// The address families of the flood and the clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// 198.18.0.0/15.
    #[default]
    Ipv4,
    /// 2001:db8::/32.
    Ipv6,
}

/// The addresses of a family, as the lab lays them out.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where the target listens.
    pub server: SocketAddr,
    /// Sources that nobody answers for.
    pub spoofed: &'static str,
    /// Sources of the floods that are connections.
    pub owned: &'static str,
    /// Where the clients' addresses are.
    clients: &'static str,
}

/// How many addresses the clients come from.
const CLIENT_ADDRESSES: u32 = 4096;

impl Plan {
    /// Of a family.
    pub fn of(family: Family) -> Plan {
        match family {
            Family::Ipv4 => Plan {
                server: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), PORT),
                spoofed: "198.18.128.0/17",
                owned: "198.18.64.0/18",
                clients: "198.18.32.0/19",
            },
            Family::Ipv6 => Plan {
                server: SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), PORT),
                spoofed: "2001:db8:8000::/33",
                owned: "2001:db8:64::/48",
                clients: "2001:db8:32::/48",
            },
        }
    }

    /// The address from which a client with this number comes.
    pub fn client(&self, number: u64) -> IpAddr {
        let number = u32::try_from(number % u64::from(CLIENT_ADDRESSES)).expect("below a small number");
        match self.server {
            // By turns out of 32 prefixes of /24, or 256 of /64, so that none has more than its share of anything.
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(0xc612_2001 + (number % 32) * 256 + (number / 32) % 250)),
            SocketAddr::V6(_) => {
                let (prefix, host) = (number % 256, number / 256 + 1);
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x32, prefix as u16, 0, 0, 0, host as u16))
            }
        }
    }
}

/// Two namespaces and the cable between them.
#[derive(Debug)]
pub struct Lab {
    /// Where flood and clients are.
    pub outside: Namespace,
    /// Where the target is.
    pub server: Namespace,
    /// The outside's end of the cable.
    pub near: Interface,
    /// The server's end.
    pub far: Interface,
    /// Who works where.
    pub cores: Cores,
    /// Whether the reception of the server's frames runs on the target's cores, and not on those of whoever sends.
    pub receives_apart: bool,
    /// The kernel's threads that receive them, if so.
    pub reception_threads: Vec<Pid>,
    /// Why it does not, if so.
    pub not_apart_because: Option<String>,
    /// Whether frames wait in a queue of the server's end.
    queued: bool,
}

impl Lab {
    /// Lays it out. The process must be in a namespace of its own ([`testnet::enter_namespaces`]).
    pub fn new(cores: Cores) -> Lab {
        let (server, outside) = (Namespace::new(), Namespace::new());
        let (far, near) = veth(
            (&server, "to-outside", &["198.18.1.1/24", "2001:db8:1::1/64"]),
            (&outside, "to-server", &["198.18.1.2/24", "2001:db8:1::2/64"]),
        );
        let mut lab = Lab {
            outside,
            server,
            near,
            far,
            cores,
            receives_apart: false,
            reception_threads: Vec::new(),
            not_apart_because: None,
            queued: false,
        };
        lab.lay_routes();
        lab.tune();
        lab.near.namespace().ip(&format!("link set {} alias {ALIAS}", lab.near.name()));
        let reception = reception::give_to(&lab.far, &lab.near, &lab.cores.target);
        lab.queued = reception.queued;
        lab.receives_apart = reception.apart.is_ok();
        match reception.apart {
            Ok(threads) => lab.reception_threads = threads,
            Err(error) => lab.not_apart_because = Some(error.to_string()),
        }
        lab
    }

    /// Has the outside's end receive on the clients' cores: what the target sends is then not taken in at the target's expense.
    ///
    /// # Errors
    /// When there are no rights to it.
    pub fn receive_answers_outside(&self) -> io::Result<()> {
        reception::steer_to(&self.near, &self.cores.clients)
    }

    /// Bytes that the server's end did not count of so many frames, of which a program made some: see [`reception::bytes_left_out`].
    /// A target in the driver has a queue of its own.
    pub fn bytes_left_out(&self, alternative: Alternative, frames: u64, by_program: u64) -> u64 {
        reception::bytes_left_out(self.queued || alternative.hook() == Some("xdp"), frames, by_program)
    }

    /// The outside's own address, where an upstream of the target can be.
    pub fn outside_address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(198, 18, 1, 2))
    }

    /// Where floods start from.
    pub fn place(&self, plan: &Plan) -> Place {
        Place {
            namespace: self.outside.clone(),
            interface: self.near.name().to_owned(),
            source_mac: ROUTER,
            gateway_mac: self.far.mac(),
            spoofed: plan.spoofed.parse().expect("a prefix of the plan"),
            owned: plan.owned.parse().expect("a prefix of the plan"),
            cores: self.cores.flood.clone(),
        }
    }

    /// Readies the outside for a target that answers in its driver, until the result is dropped. Nobody but a replay wants to see the
    /// answers to the flood.
    ///
    /// # Errors
    /// When eBPF is not to be had.
    pub fn take_answers_of(&self, alternative: Alternative, replays: bool) -> io::Result<Option<InDriver>> {
        let nobody = (!replays).then_some(ROUTER);
        let in_driver = alternative.hook() == Some("xdp");
        in_driver.then(|| take_xdp_answers(&self.outside, self.near.name(), nobody)).transpose()
    }

    fn lay_routes(&self) {
        let (server, outside) = (&self.server, &self.outside);
        for (family, address, gateway, peer, router) in [
            (Family::Ipv4, "198.18.0.1/32", "198.18.1.1", "198.18.1.2", "198.18.1.3"),
            (Family::Ipv6, "2001:db8::1/128", "2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3"),
        ] {
            let plan = Plan::of(family);
            let flag = if family == Family::Ipv4 { "-4" } else { "-6" };
            server.ip(&format!("addr add {address} dev lo"));
            outside.ip(&format!("{flag} route add {address} via {gateway}"));
            for ours in [plan.owned, plan.clients] {
                outside.ip(&format!("{flag} route add local {ours} dev lo"));
                server.ip(&format!("{flag} route add {ours} via {peer}"));
            }
            server.neighbour(router.parse().expect("an address of the plan"), ROUTER, self.far.name());
            server.ip(&format!("{flag} route add {} via {router}", plan.spoofed));
        }
    }

    fn tune(&self) {
        // Many clients, many ports; and what they leave behind in TIME-WAIT is theirs.
        self.outside.sysctl("net.ipv4.ip_local_port_range", "1024 65535");
        self.outside.sysctl("net.ipv6.ip_nonlocal_bind", "1");
        for namespace in [&self.outside, &self.server] {
            namespace.sysctl("net.core.somaxconn", "65535");
        }
    }
}
