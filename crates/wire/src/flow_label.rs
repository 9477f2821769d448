//! IPv6 flow labels.

use core::net::Ipv6Addr;

/// A label for the packets of one connection, from 1 to 2^20 - 1: the same each time, and spread evenly over all values, so
/// that routers may balance by it (RFC 6437 §3).
///
/// No secret goes in: the label says nothing that the addresses and ports beside it do not.
#[inline]
pub(crate) fn flow_label(source: Ipv6Addr, destination: Ipv6Addr, ports: u32) -> u32 {
    let [s0, s1] = halves(source);
    let [d0, d1] = halves(destination);
    // A multilinear hash: independent products, so they overlap in the pipeline; the top bits depend on every bit below.
    let hash = s0
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(s1.wrapping_mul(0xbf58_476d_1ce4_e5b9))
        .wrapping_add(d0.wrapping_mul(0x94d0_49bb_1331_11eb))
        .wrapping_add(d1.wrapping_mul(0xd6e8_feb8_6659_fd93))
        .wrapping_add(u64::from(ports).wrapping_mul(0xa076_1d64_78bd_642f));
    ((hash >> 44) as u32).max(1)
}

#[inline]
fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    #[test]
    fn label_is_stable_and_fits_twenty_bits() {
        let label = flow_label(SERVER, CLIENT, 80 << 16 | 40000);
        assert_eq!(label, flow_label(SERVER, CLIENT, 80 << 16 | 40000));
        assert!((1..1 << 20).contains(&label));
    }

    #[test]
    fn neighbouring_ports_spread_over_all_values() {
        let mut buckets = [0u32; 16];
        for port in 0..16_000 {
            buckets[flow_label(SERVER, CLIENT, 80 << 16 | port) as usize >> 16] += 1;
        }
        assert!(buckets.iter().all(|count| (700..1300).contains(count)), "{buckets:?}");
    }
}
