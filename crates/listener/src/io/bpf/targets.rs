//! The table in which the programs find what they guard: every address and port has one of two places.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::layout::Target;
use crate::cookie::Family;
use crate::io::interfaces::{Interfaces, Link};
use crate::replies;

/// Where each target stands; at most half of the table is used.
pub(super) struct Placement {
    pub factors: [u64; 2],
    pub bits: u32,
}

/// Steps of a displaced target, besides one for each other target, before it is given up.
const STEPS_MORE: usize = 16;

/// The smallest table: room for some hundred containers' addresses to come, 1.1 MB of the kernel's memory.
const BITS_MIN: u32 = 12;

/// The largest table: 65,536 places, 18 MB of the kernel's memory.
const BITS_MAX: u32 = 16;

impl Placement {
    /// Room for `count` targets and as many again, with factors that nobody can know.
    pub(super) fn for_count(count: usize) -> io::Result<Placement> {
        let bits = (4 * count).next_power_of_two().trailing_zeros().clamp(BITS_MIN, BITS_MAX);
        Ok(Placement { factors: random_factors()?, bits })
    }

    /// An empty table.
    pub(super) fn table(&self) -> Table {
        vec![None; 1 << self.bits]
    }

    /// The table with these targets instead: who stands stays where it stands, as far as that can be (cuckoo hashing). `None` if
    /// there is no way.
    pub(super) fn place(&self, standing: &Table, targets: &[Target]) -> Option<Table> {
        let wanted = |known: &Target| targets.iter().any(|target| target == known);
        let mut table: Table = standing.iter().map(|known| known.clone().filter(wanted)).collect();
        let stands: HashSet<Target> = table.iter().flatten().cloned().collect();
        for target in targets.iter().filter(|target| !stands.contains(target)) {
            let places = target.places(self.factors, self.bits);
            let mut at = places.into_iter().find(|&place| table[place].is_none()).unwrap_or(places[0]);
            let mut wandering = target.clone();
            let mut steps = 0;
            while let Some(displaced) = table[at].replace(wandering) {
                steps += 1;
                if steps > targets.len() + STEPS_MORE {
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

/// What stands in each place.
pub(super) type Table = Vec<Option<Target>>;

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

/// An address that loopback lends to the host is reached by Ethernet.
fn mss(link: &Link, addr: IpAddr) -> u16 {
    let mtu = if link.loopback && !addr.is_loopback() { 1500 } else { link.mtu };
    replies::mss_for(mtu, Family::of(addr))
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
            let table = placement.place(&placement.table(), &targets).unwrap();
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
        let placement = Placement { factors: [3, 5], bits: 4 };
        assert!(placement.place(&placement.table(), &targets).is_none());
    }

    #[test]
    fn who_stands_stays_when_others_come_and_go() {
        let targets = many(600);
        let placement = Placement::for_count(targets.len()).unwrap();
        let first = placement.place(&placement.table(), &targets[..500]).unwrap();
        let second = placement.place(&first, &targets[50..]).unwrap();
        assert_eq!(second.iter().flatten().count(), 550);
        let moved = first.iter().zip(&second).filter(|(old, new)| old != new && old.is_some() && new.is_some()).count();
        assert!(moved < 50, "{moved} of 450 were moved");
    }
}
