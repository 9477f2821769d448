//! This host, as the core asks about it: its addresses and the sockets its kernel holds.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wire::FourTuple;

use super::interfaces::{Interfaces, Link};
use super::sieve::Settled;
use super::sock_diag::SockDiag;
use crate::admission::{Arrival, LocalAddresses};
use crate::held::KernelSockets;

/// The host's interfaces as last read, for all workers of an engine.
#[derive(Debug)]
pub(super) struct SharedInterfaces {
    current: Mutex<Arc<Interfaces>>,
    version: AtomicU64,
}

impl SharedInterfaces {
    pub(super) fn read() -> io::Result<SharedInterfaces> {
        let current = Mutex::new(Arc::new(Interfaces::read()?));
        Ok(SharedInterfaces { current, version: AtomicU64::new(1) })
    }

    pub(super) fn get(&self) -> Arc<Interfaces> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads them again.
    pub(super) fn refresh(&self) -> io::Result<()> {
        let fresh = Arc::new(Interfaces::read()?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}

/// One worker's view of the host.
pub(super) struct Host {
    shared: Arc<SharedInterfaces>,
    interfaces: Arc<Interfaces>,
    version: u64,
    /// Names of the interfaces to listen on; empty: all.
    only: Vec<String>,
    diag: SockDiag,
    /// Told what the kernel holds, where the tap has a filter with a memory.
    settled: Option<Settled>,
    /// The interface of the segment that is being judged: a link-local address means nothing without one.
    scope: u32,
}

/// Where a frame came in, and how an answer gets there.
pub(super) struct Origin {
    pub arrival: Arrival,
    pub routed: bool,
}

impl Host {
    pub(super) fn new(shared: Arc<SharedInterfaces>, only: Vec<String>, settled: Option<Settled>) -> io::Result<Host> {
        let version = shared.version();
        Ok(Host { interfaces: shared.get(), version, shared, only, diag: SockDiag::open()?, settled, scope: 0 })
    }

    /// A socket stands for this connection: the tap need not show its packets any more.
    pub(super) fn settle(&mut self, tuple: &FourTuple) {
        if let Some(settled) = &mut self.settled {
            settled.settle(tuple);
        }
    }

    fn unsettle(&mut self, tuple: &FourTuple) {
        if let Some(settled) = &mut self.settled {
            settled.unsettle(tuple);
        }
    }

    /// Takes over the interfaces if they have changed.
    pub(super) fn update(&mut self) {
        let version = self.shared.version();
        if version != self.version {
            self.interfaces = self.shared.get();
            self.version = version;
        }
    }

    /// What is known of the interface a frame came from.
    ///
    /// A device below a bridge, a bond or a team shows frames that come once more on the device above, and so does one
    /// with a VLAN's tag, if the VLAN has a device; only there they count. Without such a device the kernel takes no frame
    /// of that VLAN. A priority tag names none.
    ///
    /// A link-local client on this host itself is heard on loopback; what its address means, the link says that has ours.
    pub(super) fn origin(
        &mut self,
        interface: u32,
        vlan_id: Option<u16>,
        to_us: bool,
        tuple: Option<&FourTuple>,
    ) -> Option<Origin> {
        let link = self.interfaces.by_index(interface)?;
        let listening = self.only.is_empty() || self.only.contains(&link.name);
        let above = link.master.is_some() || vlan_id.is_some_and(|id| id != 0);
        let home = tuple.filter(|_| link.loopback).map_or(0, |tuple| self.scope_of(tuple));
        let interface = if home == 0 { interface } else { home };
        self.scope = interface;
        let arrival =
            Arrival { to_us: to_us && listening && !above, loopback: link.loopback, interface, mtu: link.mtu };
        Some(Origin { arrival, routed: link.loopback })
    }

    /// The interface to reach a link-local peer by, from our address on that link; 0 for any other peer.
    pub(super) fn scope_of(&self, tuple: &FourTuple) -> u32 {
        let has = |link: &&Link| link.addresses.iter().any(|address| address.addr == tuple.local.addr);
        let interface = || self.interfaces.links().find(has).map_or(0, |link| link.index);
        match tuple.peer.addr {
            IpAddr::V6(addr) if addr.is_unicast_link_local() => interface(),
            _ => 0,
        }
    }
}

impl LocalAddresses for Host {
    fn is_local(&self, addr: IpAddr) -> bool {
        self.interfaces.is_local(addr)
    }

    fn is_broadcast(&self, addr: Ipv4Addr) -> bool {
        self.interfaces.is_broadcast(addr)
    }

    fn mtu_of(&self, addr: IpAddr) -> Option<u32> {
        // An address that loopback lends to the whole host is reached over some other link.
        let has = |link: &&Link| !link.loopback && link.addresses.iter().any(|address| address.addr == addr);
        let loopback = |link: &&Link| addr.is_loopback() && link.loopback;
        self.interfaces.links().find(|link| has(link) || loopback(link)).map(|link| link.mtu)
    }
}

impl KernelSockets for Host {
    /// A kernel that does not answer counts as one that holds nothing: at worst a SYN is answered twice.
    fn holds(&mut self, tuple: &FourTuple) -> bool {
        let holds = matches!(self.diag.lookup_on(tuple, scope(tuple, self.scope)), Ok(Some(_)));
        if holds {
            self.settle(tuple);
        } else {
            self.unsettle(tuple);
        }
        holds
    }

    fn destroy(&mut self, tuple: &FourTuple) -> bool {
        match self.diag.lookup_on(tuple, scope(tuple, self.scope)) {
            Ok(Some(found)) => self.diag.destroy(&found).is_ok(),
            _ => false,
        }
    }
}

fn scope(tuple: &FourTuple, interface: u32) -> u32 {
    match tuple.peer.addr {
        IpAddr::V6(addr) if addr.is_unicast_link_local() => interface,
        _ => 0,
    }
}
