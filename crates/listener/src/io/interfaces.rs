//! The host's links and addresses, read by rtnetlink from the network namespace we live in.
//!
//! See [rtnetlink(7)](https://man7.org/linux/man-pages/man7/rtnetlink.7.html). `/sys` would not do: it may show another namespace.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags, SockProtocol};

use super::netlink::{Attributes, Expect, Netlink, open_for_events, read_u16, read_u32};

/// How often a dump is repeated that was overtaken by a change.
const DUMP_ATTEMPTS_MAX: usize = 8;

/// A snapshot of links and addresses.
#[derive(Clone, Debug, Default)]
pub struct Interfaces {
    links: HashMap<u32, Link>,
    /// Addresses of links that are up.
    local: HashSet<IpAddr>,
    /// Networks of which every address is local, because a loopback link has an address in them: 127/8 as a rule.
    local_networks: Vec<Network>,
    broadcast: HashSet<Ipv4Addr>,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, never 0.
    pub index: u32,
    /// For example `eth0`.
    pub name: String,
    /// The largest IP packet it sends, in bytes.
    pub mtu: u32,
    /// Switched on by the administrator (`IFF_UP`); says nothing about a cable.
    pub up: bool,
    /// Whether it is a loopback device (`IFF_LOOPBACK`).
    pub loopback: bool,
    /// Hardware type, one of `ARPHRD_*`.
    pub hardware_type: u16,
    /// Its link-layer address, for devices that have one of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Whether there is a device below it, as on a bus: not with veth, bridges and the like. Known since Linux 5.14.
    pub has_hardware: bool,
    /// The bridge, bond, team or VRF it belongs to, by index.
    pub master: Option<u32>,
    /// For a VLAN device: whose frames it takes, and which.
    pub vlan: Option<Vlan>,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<Address>,
}

/// What makes a link an 802.1Q device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Index of the link that carries the tagged frames; `None` when that one lives in another namespace.
    pub parent: Option<u32>,
    /// VLAN identifier, 0 to 4095.
    pub id: u16,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address itself; on a point-to-point link, our end.
    pub addr: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix_len: u8,
    /// The broadcast address that was configured along with it, IPv4 only.
    pub broadcast: Option<Ipv4Addr>,
}

impl Link {
    /// Whether its frames begin with an Ethernet header. Loopback's do, with zeros for addresses; a tun device's do not.
    pub fn has_link_header(&self) -> bool {
        matches!(self.hardware_type, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK)
    }
}

impl Interfaces {
    /// Reads links and addresses from the kernel, in the network namespace of the calling thread. Needs no capability.
    ///
    /// # Errors
    ///
    /// The kernel's errno; `Interrupted` when the configuration kept changing during all of several attempts.
    pub fn read() -> io::Result<Interfaces> {
        let mut netlink = Netlink::open(SockProtocol::NetlinkRoute)?;
        let mut outcome = read_once(&mut netlink);
        for _ in 1..DUMP_ATTEMPTS_MAX {
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => outcome = read_once(&mut netlink),
                _ => break,
            }
        }
        outcome
    }

    /// The link with this index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// The link with this name.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The largest MTU in bytes of a link that is not loopback; 0 if there is none.
    pub fn largest_mtu(&self) -> u32 {
        self.links().filter(|link| !link.loopback).map(|link| link.mtu).max().unwrap_or(0)
    }

    /// All links, in no particular order.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Whether packets for this address are for this host: the address of a link that is up, or any of 127/8 when `lo` has it.
    ///
    /// Addresses made local by a route alone (`ip route add local`) are not known here.
    pub fn is_local(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(v4) => {
                self.local.contains(&addr)
                    || (self.local_networks.iter().any(|network| network.contains(v4)) && !self.is_broadcast(v4))
            }
            IpAddr::V6(_) => self.local.contains(&addr),
        }
    }

    /// The broadcast addresses of our networks.
    pub fn broadcasts(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.broadcast.iter().copied()
    }

    /// Whether this is 255.255.255.255 or the broadcast address of one of our networks.
    pub fn is_broadcast(&self, addr: Ipv4Addr) -> bool {
        addr.is_broadcast() || self.broadcast.contains(&addr)
    }

    fn of(links: Vec<Link>, addresses: Vec<(u32, Address)>) -> Interfaces {
        let mut interfaces =
            Interfaces { links: links.into_iter().map(|link| (link.index, link)).collect(), ..Interfaces::default() };
        for (index, address) in addresses {
            interfaces.add(index, address);
        }
        interfaces
    }

    /// Files an address, as `fib_add_ifaddr` in the kernel makes routes of it.
    fn add(&mut self, index: u32, address: Address) {
        let Some(link) = self.links.get_mut(&index) else {
            return; // The link appeared after we asked for links; the change wakes a `Watch`.
        };
        link.addresses.push(address);
        if !link.up {
            return;
        }
        self.local.insert(address.addr);
        let IpAddr::V4(addr) = address.addr else { return };
        let network = Network::of(addr, address.prefix_len);
        if link.loopback {
            self.local_networks.push(network);
        }
        self.broadcast.extend(network.broadcast());
        self.broadcast.extend(address.broadcast);
    }
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug)]
struct Network {
    prefix: u32,
    mask: u32,
}

impl Network {
    fn of(addr: Ipv4Addr, prefix_len: u8) -> Network {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0);
        Network { prefix: addr.to_bits() & mask, mask }
    }

    fn contains(self, addr: Ipv4Addr) -> bool {
        addr.to_bits() & self.mask == self.prefix
    }

    /// A /31 and a /32 have none (RFC 3021 §2.1).
    fn broadcast(self) -> Option<Ipv4Addr> {
        (self.mask.count_ones() < 31).then(|| Ipv4Addr::from_bits(self.prefix | !self.mask))
    }
}

/// Tells when the links or addresses of the namespace have changed, so that [`Interfaces::read`] is due again.
#[derive(Debug)]
pub struct Watch {
    fd: OwnedFd,
}

impl Watch {
    /// Starts watching. Open the watch before reading the snapshot it belongs to, and no change falls between the two.
    pub fn open() -> io::Result<Watch> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        Ok(Watch { fd: open_for_events(SockProtocol::NetlinkRoute, groups as u32)? })
    }

    /// Whether anything changed since the last call. Never blocks; the descriptor is readable exactly when this is true.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        loop {
            // What it says does not matter, that it says something does: a buffer this short cuts every message off.
            match socket::recv(self.fd.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT) {
                Ok(_) => changed = true,
                Err(Errno::EINTR) => {}
                // The kernel had more news than the socket holds: some were lost, so something changed.
                Err(Errno::ENOBUFS) => changed = true,
                Err(_) => return changed,
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn read_once(netlink: &mut Netlink) -> io::Result<Interfaces> {
    let (mut links, mut addresses) = (Vec::new(), Vec::new());
    netlink.request(libc::RTM_GETLINK, Expect::Dump, &link_request(), |kind, body| {
        if kind == libc::RTM_NEWLINK {
            links.extend(read_link(body));
        }
    })?;
    // `struct ifaddrmsg`, all zero: every family, every link.
    netlink.request(libc::RTM_GETADDR, Expect::Dump, &[0; IFADDRMSG_LEN], |kind, body| {
        if kind == libc::RTM_NEWADDR {
            addresses.extend(read_address(body));
        }
    })?;
    Ok(Interfaces::of(links, addresses))
}

/// Length of `struct ifinfomsg`: family, pad, hardware type, index, flags, change mask.
const IFINFOMSG_LEN: usize = 16;
/// Length of `struct ifaddrmsg`: family, prefix length, flags, scope, index.
const IFADDRMSG_LEN: usize = 8;

/// Every link, without its statistics, which make up most of an answer.
fn link_request() -> [u8; IFINFOMSG_LEN + 8] {
    const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
    let mut request = [0; IFINFOMSG_LEN + 8];
    request[16..18].copy_from_slice(&8u16.to_ne_bytes());
    request[18..20].copy_from_slice(&libc::IFLA_EXT_MASK.to_ne_bytes());
    request[20..24].copy_from_slice(&RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    request
}

/// The name of the device below an interface, in `linux/if_link.h`.
const IFLA_PARENT_DEV_NAME: u16 = 56;

fn read_link(body: &[u8]) -> Option<Link> {
    let attributes = body.get(IFINFOMSG_LEN..)?;
    let flags = read_u32(body, 8)?;
    let mut link = Link {
        index: read_u32(body, 4)?,
        name: String::new(),
        mtu: 0,
        up: flags & libc::IFF_UP as u32 != 0,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        hardware_type: read_u16(body, 2)?,
        mac: None,
        has_hardware: false,
        master: None,
        vlan: None,
        addresses: Vec::new(),
    };
    let mut parent = None;
    let mut parent_is_elsewhere = false;
    let mut vlan_id = None;
    for (kind, value) in Attributes(attributes) {
        match kind {
            libc::IFLA_IFNAME => link.name = read_name(value),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            libc::IFLA_MTU => link.mtu = read_u32(value, 0)?,
            IFLA_PARENT_DEV_NAME => link.has_hardware = true,
            libc::IFLA_MASTER => link.master = read_u32(value, 0),
            libc::IFLA_LINK => parent = read_u32(value, 0),
            libc::IFLA_LINK_NETNSID => parent_is_elsewhere = true,
            libc::IFLA_LINKINFO => vlan_id = read_vlan_id(value),
            _ => {}
        }
    }
    link.vlan = vlan_id.map(|id| Vlan { parent: parent.filter(|_| !parent_is_elsewhere), id });
    Some(link)
}

/// Interface names are bytes to the kernel; what is not UTF-8 is replaced, for it is only shown and compared.
fn read_name(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

fn read_vlan_id(link_info: &[u8]) -> Option<u16> {
    const IFLA_VLAN_ID: u16 = 1;
    let attribute = |wanted| Attributes(link_info).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    if attribute(libc::IFLA_INFO_KIND)? != b"vlan\0" {
        return None;
    }
    let (_, id) = Attributes(attribute(libc::IFLA_INFO_DATA)?).find(|(kind, _)| *kind == IFLA_VLAN_ID)?;
    read_u16(id, 0)
}

fn read_address(body: &[u8]) -> Option<(u32, Address)> {
    let attributes = body.get(IFADDRMSG_LEN..)?;
    let (mut local, mut address, mut broadcast) = (None, None, None);
    for (kind, value) in Attributes(attributes) {
        match kind {
            libc::IFA_LOCAL => local = read_ip(value),
            libc::IFA_ADDRESS => address = read_ip(value),
            libc::IFA_BROADCAST => broadcast = read_ip(value),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end and IFA_LOCAL ours; elsewhere IPv6 has no IFA_LOCAL.
    let addr = local.or(address)?;
    let broadcast = broadcast.and_then(|addr| if let IpAddr::V4(addr) = addr { Some(addr) } else { None });
    Some((read_u32(body, 4)?, Address { addr, prefix_len: body[1], broadcast }))
}

fn read_ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into()),
        16 => <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
