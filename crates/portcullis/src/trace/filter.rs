//! The classic BPF program in front of the tap: the kernel drops what no ladder shows before it is copied.
//!
//! Packets begin at their IP header. The ancillary loads are in `linux/filter.h`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use listener::io::classic::{
    ADD_X, AND, Assembler, JEQ, JGT, JSET, LD_ABS, LD_LEN, LDB_ABS, LDB_IND, LDH_ABS, LDH_IND, LDX_IHL, LDX_MEM, MUL,
    RET, RSH, ST, TAX,
};
use socket2::SockFilter;

type Program = Assembler<Label>;

/// Packets up to this length pass whatever their flags: ACKs, short requests and answers. The rest is bulk.
///
/// The datagram that every IPv4 host takes (RFC 791 §3.1); a segment of a longer transfer is larger on every link of today.
pub const SHORT_MAX: u32 = 576;

/// Which segments a tap takes: those that floods are made of have one of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// SYNs and SYN-ACKs.
    Handshakes,
    /// FINs, RSTs, and short segments.
    Others,
}

/// Which flows pass: one of `2^shift`, by a hash with these secrets. Both directions of a flow have the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub shift: u32,
    pub secrets: [u32; 3],
}

/// The program.
pub fn program(guarded: &[SocketAddr], peer: Option<IpNet>, share: Share, sample: Sample) -> Vec<SockFilter> {
    let mut asm = Program::default();
    refuse_duplicates(&mut asm);
    asm.op(LDB_ABS, 0);
    asm.op(AND, 0xf0);
    asm.branch(JEQ, 0x40, Label::V4, Label::NotV4);
    asm.label(Label::NotV4);
    asm.branch(JEQ, 0x60, Label::V6, Label::Drop);
    v4(&mut asm, guarded, peer, sample);
    v6(&mut asm, guarded, peer, sample);
    flags(&mut asm, share);
    asm.label(Label::Pass);
    asm.op(RET, u32::MAX);
    asm.label(Label::Drop);
    asm.op(RET, 0);
    asm.assemble().into_iter().map(|op| SockFilter::new(op.code, op.jt, op.jf, op.k)).collect()
}

/// Loopback shows each packet on its way out and again on its way in, and the parent of a VLAN's device shows that one's packets.
fn refuse_duplicates(asm: &mut Program) {
    asm.op(LD_ABS, ANCILLARY + IFINDEX);
    asm.branch(JEQ, LOOPBACK_IFINDEX, Label::Loopback, Label::Vlan);
    asm.label(Label::Loopback);
    asm.op(LD_ABS, ANCILLARY + PKTTYPE);
    asm.branch(JEQ, PACKET_OUTGOING, Label::Drop, Label::Vlan);
    asm.label(Label::Vlan);
    asm.op(LD_ABS, ANCILLARY + VLAN_TAG);
    asm.branch(JSET, 0x0fff, Label::Drop, Label::Version);
    asm.label(Label::Version);
}

fn v4(asm: &mut Program, guarded: &[SocketAddr], peer: Option<IpNet>, sample: Sample) {
    asm.label(Label::V4);
    asm.op(LDB_ABS, 9);
    asm.branch(JEQ, TCP, Label::V4Tcp, Label::Drop);
    asm.label(Label::V4Tcp);
    // Fragments are no segments.
    asm.op(LDH_ABS, 6);
    asm.branch(JSET, 0x3fff, Label::Drop, Label::V4Whole);
    asm.label(Label::V4Whole);
    match peer {
        None => {}
        Some(IpNet::V4(net)) => {
            for (offset, hit, miss) in [(12, Label::V4Peer, Label::V4Destination), (16, Label::V4Peer, Label::Drop)] {
                asm.op(LD_ABS, offset);
                asm.op(AND, net.netmask().to_bits());
                asm.branch(JEQ, net.network().to_bits(), hit, miss);
                asm.label(if offset == 12 { Label::V4Destination } else { Label::V4Peer });
            }
        }
        Some(IpNet::V6(_)) => asm.jump(Label::Drop),
    }
    // [::]:PORT guards IPv4 as well.
    let ports = ports(guarded.iter().filter(|addr| addr.is_ipv4() || addr.ip().is_unspecified()));
    asm.op(LDX_IHL, 0);
    asm.op(LDH_IND, 0);
    ports.iter().for_each(|port| asm.jump_if_equal(*port, Label::V4Guarded));
    asm.op(LDH_IND, 2);
    ports.iter().for_each(|port| asm.jump_if_equal(*port, Label::V4Guarded));
    asm.jump(Label::Drop);
    asm.label(Label::V4Guarded);
    if sample.shift > 0 {
        asm.op(LD_ABS, 12);
        asm.op(TAX, 0);
        asm.op(LD_ABS, 16);
        asm.op(ADD_X, 0);
        asm.op(MUL, sample.secrets[0] | 1);
        asm.op(ST, 0);
        asm.op(LDX_IHL, 0);
        asm.op(LDH_IND, 0);
        asm.op(ST, 1);
        asm.op(LDH_IND, 2);
        take_sample(asm, sample, Label::V4Sampled);
        asm.label(Label::V4Sampled);
        asm.op(LDX_IHL, 0);
    }
    asm.op(LDB_IND, 13);
    asm.jump(Label::Flags);
}

fn v6(asm: &mut Program, guarded: &[SocketAddr], peer: Option<IpNet>, sample: Sample) {
    asm.label(Label::V6);
    // Segments behind extension headers are rare, and not looked at.
    asm.op(LDB_ABS, 6);
    asm.branch(JEQ, TCP, Label::V6Tcp, Label::Drop);
    asm.label(Label::V6Tcp);
    match peer {
        None => {}
        Some(IpNet::V6(net)) => {
            let (network, mask) = (words(net.network().to_bits()), words(net.netmask().to_bits()));
            for (source, miss) in [(8, Label::V6Destination), (24, Label::Drop)] {
                for (index, (network, mask)) in network.iter().zip(mask).enumerate().filter(|(_, (_, mask))| *mask != 0)
                {
                    asm.op(LD_ABS, source + 4 * index as u32);
                    asm.op(AND, mask);
                    asm.jump_if_not_equal(*network, miss);
                }
                asm.jump(Label::V6Peer);
                asm.label(if source == 8 { Label::V6Destination } else { Label::V6Peer });
            }
        }
        Some(IpNet::V4(_)) => asm.jump(Label::Drop),
    }
    let ports = ports(guarded.iter().filter(|addr| addr.is_ipv6()));
    for offset in [40, 42] {
        asm.op(LDH_ABS, offset);
        ports.iter().for_each(|port| asm.jump_if_equal(*port, Label::V6Guarded));
    }
    asm.jump(Label::Drop);
    asm.label(Label::V6Guarded);
    if sample.shift > 0 {
        asm.op(LD_ABS, 8);
        for offset in (12..40).step_by(4) {
            asm.op(TAX, 0);
            asm.op(LD_ABS, offset);
            asm.op(ADD_X, 0);
        }
        asm.op(MUL, sample.secrets[0] | 1);
        asm.op(ST, 0);
        asm.op(LDH_ABS, 40);
        asm.op(ST, 1);
        asm.op(LDH_ABS, 42);
        take_sample(asm, sample, Label::V6Sampled);
        asm.label(Label::V6Sampled);
    }
    asm.op(LDB_ABS, 53);
    asm.jump(Label::Flags);
}

/// With the hash of the addresses in memory 0, one port in memory 1 and the other in A.
fn take_sample(asm: &mut Program, sample: Sample, taken: Label) {
    asm.op(LDX_MEM, 1);
    asm.op(ADD_X, 0);
    asm.op(MUL, sample.secrets[1] | 1);
    asm.op(LDX_MEM, 0);
    asm.op(ADD_X, 0);
    asm.op(MUL, sample.secrets[2] | 1);
    // The highest bits depend on all others.
    asm.op(RSH, 32 - sample.shift.min(31));
    asm.branch(JEQ, 0, taken, Label::Drop);
}

/// With the flags in A.
fn flags(asm: &mut Program, share: Share) {
    asm.label(Label::Flags);
    match share {
        Share::Handshakes => asm.branch(JSET, SYN, Label::Pass, Label::Drop),
        Share::Others => {
            asm.branch(JSET, SYN, Label::Drop, Label::NotSyn);
            asm.label(Label::NotSyn);
            asm.branch(JSET, FIN_RST, Label::Pass, Label::Size);
            asm.label(Label::Size);
            asm.op(LD_LEN, 0);
            asm.branch(JGT, SHORT_MAX, Label::Drop, Label::Pass);
        }
    }
}

fn ports<'a>(guarded: impl Iterator<Item = &'a SocketAddr>) -> Vec<u32> {
    let mut ports: Vec<u32> = guarded.map(|addr| u32::from(addr.port())).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn words(bits: u128) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
}

/// The prefix as the kernel's filter takes it: an IPv4-mapped one is IPv4.
pub fn canonical(net: IpNet) -> IpNet {
    match (net, net.addr().to_canonical()) {
        (IpNet::V6(v6), IpAddr::V4(addr)) if v6.prefix_len() >= 96 => {
            IpNet::new(addr.into(), v6.prefix_len() - 96).unwrap_or(net)
        }
        _ => net,
    }
}

/// Where a jump goes; all go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Loopback,
    Vlan,
    Version,
    NotV4,
    V4,
    V4Tcp,
    V4Whole,
    V4Destination,
    V4Peer,
    V4Guarded,
    V4Sampled,
    V6,
    V6Tcp,
    V6Destination,
    V6Peer,
    V6Guarded,
    V6Sampled,
    Flags,
    NotSyn,
    Size,
    Pass,
    Drop,
}

const TCP: u32 = 6;
const SYN: u32 = 0x02;
const FIN_RST: u32 = 0x05;

/// `SKF_AD_OFF`, and what may be loaded from there.
const ANCILLARY: u32 = 0xffff_f000;
const PKTTYPE: u32 = 4;
const IFINDEX: u32 = 8;
const VLAN_TAG: u32 = 44;
/// The same in every network namespace (`LOOPBACK_IFINDEX` of Linux).
const LOOPBACK_IFINDEX: u32 = 1;
const PACKET_OUTGOING: u32 = 4;
