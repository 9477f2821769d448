//! Who may be answered at all: the sanity checks that the IP layer would have done, and then some.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use wire::{Endpoint, FourTuple};

use crate::stats::DropReason;

/// Where a segment came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Whether the link layer addressed the frame to this host alone.
    pub to_us: bool,
    /// Whether it came over the loopback device.
    pub loopback: bool,
    /// Interface index, for link-local peers.
    pub interface: u32,
    /// Largest IP packet of the interface, in bytes.
    pub mtu: u32,
}

/// What the core needs to know of this host's addresses.
pub trait LocalAddresses {
    /// Whether packets to `addr` are for this host.
    fn is_local(&self, addr: IpAddr) -> bool;
    /// Whether `addr` is the broadcast address of one of this host's subnets.
    fn is_broadcast(&self, addr: Ipv4Addr) -> bool;
    /// Largest IP packet, in bytes, of the interface that has this local address; `None` if none has.
    fn mtu_of(&self, addr: IpAddr) -> Option<u32>;
}

/// The guarded addresses and the rules for sources and destinations.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    guarded: Vec<Endpoint>,
}

impl Admission {
    /// Guards these addresses; an unspecified address (`0.0.0.0`, `::`) means all local ones of its family.
    pub(crate) fn new(bind: &[SocketAddr]) -> Admission {
        Admission { guarded: bind.iter().map(|addr| Endpoint { addr: addr.ip(), port: addr.port() }).collect() }
    }

    /// Whether a segment of this tuple may be looked at.
    ///
    /// # Errors
    /// The first rule it breaks. Each costs nothing but the look: no reply, no memory (RFC 9293 §3.9.2.3, MUST-57 and
    /// MUST-63; RFC 1122 §3.2.1.3).
    pub(crate) fn check(
        &self,
        tuple: &FourTuple,
        arrival: &Arrival,
        local: &impl LocalAddresses,
    ) -> Result<(), DropReason> {
        if !arrival.to_us {
            return Err(DropReason::NotOurFrame);
        }
        if tuple.local.port == 0 || tuple.peer.port == 0 {
            return Err(DropReason::PortZero);
        }
        if !self.guards(tuple.local, local) {
            return Err(DropReason::NotGuarded);
        }
        if tuple.local == tuple.peer {
            return Err(DropReason::Land);
        }
        if is_martian(tuple.peer.addr, arrival, local) {
            return Err(DropReason::Martian);
        }
        if is_loopback(tuple.local.addr) && !arrival.loopback {
            return Err(DropReason::Martian);
        }
        Ok(())
    }

    fn guards(&self, end: Endpoint, local: &impl LocalAddresses) -> bool {
        let matches = |guard: &Endpoint| {
            guard.port == end.port
                && (guard.addr == end.addr
                    || (guard.addr.is_unspecified() && guard.addr.is_ipv4() == end.addr.is_ipv4()))
        };
        // A guarded address can be taken off the host while we run, so even a specific one must be local now.
        self.guarded.iter().any(matches) && local.is_local(end.addr) && !is_multi(end.addr, local)
    }
}

/// Broadcast or multicast: never the source or destination of a connection.
fn is_multi(addr: IpAddr, local: &impl LocalAddresses) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_multicast() || addr.is_broadcast() || local.is_broadcast(addr),
        IpAddr::V6(addr) => addr.is_multicast(),
    }
}

/// A source that cannot be: RFC 1122 §3.2.1.3, RFC 6890, and this host's own addresses off the wire.
fn is_martian(source: IpAddr, arrival: &Arrival, local: &impl LocalAddresses) -> bool {
    if is_multi(source, local) || source.is_unspecified() {
        return true;
    }
    let impossible = match source {
        IpAddr::V4(addr) => addr.octets()[0] == 0 || addr.octets()[0] >= 240,
        IpAddr::V6(addr) => addr.to_ipv4_mapped().is_some(),
    };
    // Over loopback a source is this host by definition; off the wire it must not claim to be.
    impossible || (!arrival.loopback && (is_loopback(source) || local.is_local(source)))
}

fn is_loopback(addr: IpAddr) -> bool {
    addr.is_loopback()
}
