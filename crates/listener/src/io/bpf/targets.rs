//! The table in which the programs find what they guard: every address and port has one of two places.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::layout::Target;
use crate::io::interfaces::{Interfaces, Link};

/// Where each target stands; at most half of the table is used.
pub(super) struct Placement {
    pub factors: [u64; 2],
    pub bits: u32,
}

/// Attempts with other factors before a larger table is tried.
const ATTEMPTS: usize = 16;

/// The largest table: 65,536 places, 18 MB of the kernel's memory.
const BITS_MAX: u32 = 16;

impl Placement {
    /// Room for `count` targets and as many again, with factors that nobody can know.
    pub(super) fn for_count(count: usize) -> io::Result<Placement> {
        let bits = (4 * count.max(16)).next_power_of_two().trailing_zeros().min(BITS_MAX);
        Ok(Placement { factors: random_factors()?, bits })
    }

    /// Puts each target into one of its places (cuckoo hashing); `None` if there is no way.
    pub(super) fn place<'a>(&self, targets: &'a [Target]) -> Option<Vec<Option<&'a Target>>> {
        let mut table: Vec<Option<&Target>> = vec![None; 1 << self.bits];
        for target in targets {
            let mut wandering = target;
            let mut at = wandering.places(self.factors, self.bits)[0];
            let mut steps = 0;
            while let Some(displaced) = table[at].replace(wandering) {
                steps += 1;
                if steps > targets.len() + ATTEMPTS {
                    return None;
                }
                let [first, second] = displaced.places(self.factors, self.bits);
                wandering = displaced;
                at = if at == first { second } else { first };
            }
        }
        Some(table)
    }
}

/// Two odd random numbers.
pub(super) fn random_factors() -> io::Result<[u64; 2]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let word = |half: &[u8]| u64::from_ne_bytes(half.try_into().unwrap_or_default()) | 1;
    Ok([word(&bytes[..8]), word(&bytes[8..])])
}

/// The targets of these guarded addresses on this host: a wildcard stands for every local address of its family. And, with
/// port 0, the sources that no packet off the wire can have: this host's addresses and its subnets' broadcasts.
pub(super) fn targets_of(guarded: &[SocketAddr], interfaces: &Interfaces, listener: u8) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    let local = || {
        interfaces.links().filter(|link| link.up).flat_map(|link| link.addresses.iter().map(move |a| (link, a.addr)))
    };
    for guard in guarded {
        let wanted =
            |addr: IpAddr| addr.is_ipv4() == guard.is_ipv4() && (guard.ip().is_unspecified() || guard.ip() == addr);
        for (link, addr) in local().filter(|(_, addr)| wanted(*addr)) {
            let local = SocketAddr::new(addr, guard.port());
            if !targets.iter().any(|target| target.local == local) {
                targets.push(Target { local, mss: mss(link, addr), listener });
            }
        }
    }
    let ours = local().filter(|(link, _)| !link.loopback).map(|(_, addr)| addr);
    let martians: HashSet<IpAddr> = ours.chain(interfaces.broadcasts().map(IpAddr::from)).collect();
    targets.extend(martians.into_iter().map(|addr| Target { local: SocketAddr::new(addr, 0), mss: 0, listener }));
    targets
}

/// RFC 9293 §3.7.1: the MTU less the fixed headers. An address that loopback lends to the host is reached by Ethernet.
fn mss(link: &Link, addr: IpAddr) -> u16 {
    let mtu = if link.loopback && !addr.is_loopback() { 1500 } else { link.mtu };
    let (headers, least) = if addr.is_ipv4() { (40, 536) } else { (60, 1220) };
    u16::try_from(mtu.saturating_sub(headers).max(least)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn many(count: u32) -> Vec<Target> {
        let v4 = |n: u32| SocketAddr::new(IpAddr::from((0xc612_0000 + n / 4).to_be_bytes()), 80 + (n % 4) as u16);
        let v6 = |n: u32| SocketAddr::new(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16]), 443);
        (0..count).map(|n| Target { local: if n % 3 == 0 { v6(n) } else { v4(n) }, mss: 1460, listener: 0 }).collect()
    }

    #[test]
    fn every_target_stands_where_the_programs_look() {
        for count in [0, 1, 2, 30, 500, 3000] {
            let targets = many(count);
            let placement = Placement::for_count(targets.len()).unwrap();
            let table = placement.place(&targets).unwrap();
            assert_eq!(table.iter().flatten().count(), targets.len());
            for (index, target) in table.iter().enumerate() {
                if let Some(target) = target {
                    assert!(target.places(placement.factors, placement.bits).contains(&index));
                }
            }
        }
    }

    #[test]
    fn a_table_without_room_is_no_way() {
        let targets = many(100);
        assert!(Placement { factors: [3, 5], bits: 4 }.place(&targets).is_none());
    }
}
