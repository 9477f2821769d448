//! Classic BPF programs: what the tap lets up, and the one that lets nothing through.
//!
//! The tap must see SYNs, RSTs, the handshake's last segment and the data right behind it, and must not tax the bulk of
//! established connections. A classic filter keeps no state, so it judges by flags and size; `docs/performance.md` has
//! its price.

use std::io;
use std::net::{IpAddr, SocketAddr};

use libc::sock_filter;
use socket2::{SockFilter, Socket};

use super::classic::{
    ADD_X, AND, Assembler, JEQ, JGT, JSET, LD_ABS, LD_IMM, LD_IND, LD_LEN, LDB_ABS, LDB_IND, LDH_ABS, LDH_IND, LDX_IHL,
    LDX_MEM, MUL, RET, RET_A, RSH, ST, TAX, TXA, statement,
};

type Program = Assembler<&'static str>;

/// Packets up to the length of one segment always pass, PSH or not: pure ACKs, the requests that most clients begin with,
/// and the head of a larger one, which is what a client repeats when its last handshake segment was lost. `segment_max`
/// says how long one is here: the largest MTU of the host's links, from Ethernet's up to what is captured.
pub(super) const fn segment_max(largest_mtu: u32) -> u32 {
    let most = Share::Others.snap_len();
    if largest_mtu < 1500 {
        1500
    } else if largest_mtu > most {
        most
    } else {
        largest_mtu
    }
}

/// Which packets of the guarded ports a tap takes.
///
/// SYNs have one of their own, so that a flood of them pushes nobody's last handshake segment out of the ring, and a
/// worker that makes a connection need not wade through a flood to find its early data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Segments with SYN and without ACK.
    Syns,
    /// RSTs, FINs, SYN-ACKs, single segments, and larger packets with PSH as far as they can be captured: the end of a
    /// handshake and what comes right behind it. Left out is the bulk that the device or the peer has put together.
    Others,
}

impl Share {
    /// Bytes of a packet that reach user space, from its IP header on; longer ones pass only if they are SYNs.
    pub(super) const fn snap_len(self) -> u32 {
        match self {
            Share::Syns => 1936,
            Share::Others => 16256,
        }
    }
}

const FIN_SYN_RST: u32 = 0x07;
const SYN: u32 = 0x02;
const SYN_ACK: u32 = 0x12;
const PSH: u32 = 0x08;

/// Attaches a program, in place of the one that was there: in one step, with no packet in between judged by neither.
pub(super) fn attach(socket: &Socket, program: &[sock_filter]) -> io::Result<()> {
    let program: Vec<SockFilter> = program.iter().map(|op| SockFilter::new(op.code, op.jt, op.jf, op.k)).collect();
    socket.attach_filter(&program)
}

/// Drops everything: on a listening socket it silences the kernel, on a tap it keeps it shut until the rest stands.
pub(super) fn drop_all() -> [sock_filter; 1] {
    [statement(RET, 0)]
}

/// What the tap passes, for packets that begin at their IP header (a `SOCK_DGRAM` packet socket).
///
/// Fragments are left to the kernel. IPv6 packets whose first next-header is hop-by-hop, routing or destination options
/// pass with the others, whatever they are: the bounded walk happens in user space.
pub(super) fn tap(guarded: &[SocketAddr], share: Share, segment_max: u32) -> Vec<sock_filter> {
    let mut program = Program::default();
    // Version.
    program.op(LDB_ABS, 0);
    program.op(AND, 0xf0);
    program.branch(JEQ, 0x40, "v4", "not v4");
    program.label("not v4");
    program.branch(JEQ, 0x60, "v6", "drop");

    program.label("v4");
    program.op(LDB_ABS, 9);
    program.branch(JEQ, libc::IPPROTO_TCP as u32, "v4 tcp", "drop");
    program.label("v4 tcp");
    program.op(LDH_ABS, 6);
    program.branch(JSET, 0x3fff, "drop", "v4 whole");
    program.label("v4 whole");
    program.op(LDX_IHL, 0);
    program.op(LDH_IND, 2);
    match_ports(&mut program, guarded.iter().filter(|addr| addr.is_ipv4()), "v4 address");
    program.label("v4 address");
    match_address(&mut program, guarded.iter().filter(|addr| addr.is_ipv4()), "v4 guarded");
    program.label("v4 guarded");
    program.op(LDB_IND, 13);
    program.jump("flags");

    program.label("v6");
    program.op(LDB_ABS, 6);
    program.branch(JEQ, libc::IPPROTO_TCP as u32, "v6 tcp", "v6 extension 0");
    for (index, header) in [libc::IPPROTO_HOPOPTS, libc::IPPROTO_ROUTING, libc::IPPROTO_DSTOPTS].iter().enumerate() {
        let otherwise = ["v6 extension 1", "v6 extension 2", "drop"][index];
        program.label(["v6 extension 0", "v6 extension 1", "v6 extension 2"][index]);
        let here = if share == Share::Others { "pass" } else { "drop" };
        program.branch(JEQ, *header as u32, here, otherwise);
    }
    program.label("v6 tcp");
    program.op(LDH_ABS, 42);
    match_ports(&mut program, guarded.iter().filter(|addr| addr.is_ipv6()), "v6 guarded");
    program.label("v6 guarded");
    program.op(LDB_ABS, 53);

    program.label("flags");
    program.op(TAX, 0);
    program.op(AND, SYN_ACK);
    match share {
        Share::Syns => program.branch(JEQ, SYN, "pass", "drop"),
        Share::Others => judge_others(&mut program, segment_max, share.snap_len()),
    }
    program.label("pass");
    program.op(RET, share.snap_len());
    program.label("drop");
    program.op(RET, 0);
    program.assemble()
}

/// With SYN and ACK in A and all flags in X: goes to `pass` or `drop`.
fn judge_others(program: &mut Program, segment_max: u32, push_len: u32) {
    program.branch(JEQ, SYN, "drop", "no syn");
    program.label("no syn");
    program.op(TXA, 0);
    program.branch(JSET, FIN_SYN_RST, "pass", "size");
    program.label("size");
    program.op(LD_LEN, 0);
    program.branch(JGT, push_len, "drop", "not large");
    program.label("not large");
    program.branch(JGT, segment_max, "medium", "pass");
    program.label("medium");
    program.op(TXA, 0);
    program.branch(JSET, PSH, "pass", "drop");
}

/// Which tap of a group takes a packet: of `workers` taps for SYNs and as many for the others, in this order. All packets of a flow
/// go to the taps of one worker; which one it is, two secret numbers say, so that nobody can choose flows that overload one.
///
/// The kernel's own way of sharing out takes every packet of the host apart, down to its ports; and would for each kind of tap.
pub(super) fn share_out(workers: u32, secrets: [u32; 2]) -> Vec<sock_filter> {
    const OFFSET: u32 = 0;
    const HASH: u32 = 1;
    let [factor, last_factor] = secrets.map(|secret| secret | 1);
    let mut program = Program::default();
    // Of what we do not take somebody has to refuse it.
    program.op(LD_IMM, workers);
    program.op(ST, OFFSET);
    program.op(LDB_ABS, 0);
    program.op(AND, 0xf0);
    program.branch(JEQ, 0x40, "v4", "not v4");
    program.label("not v4");
    program.branch(JEQ, 0x60, "v6", "hashed");

    program.label("v4");
    program.op(LD_ABS, 12);
    program.op(MUL, factor);
    program.op(ST, HASH);
    program.op(LDX_IHL, 0);
    program.op(LDB_IND, 13);
    program.op(AND, SYN_ACK);
    program.branch(JEQ, SYN, "v4 syn", "v4 ports");
    program.label("v4 syn");
    program.op(LD_IMM, 0);
    program.op(ST, OFFSET);
    program.label("v4 ports");
    program.op(LD_IND, 0);
    program.jump("ports");

    program.label("v6");
    program.op(LD_ABS, 8);
    for word in [12, 16, 20] {
        program.op(MUL, factor);
        program.op(ST, HASH);
        program.op(LD_ABS, word);
        program.op(LDX_MEM, HASH);
        program.op(ADD_X, 0);
    }
    program.op(MUL, factor);
    program.op(ST, HASH);
    program.op(LDB_ABS, 6);
    program.branch(JEQ, libc::IPPROTO_TCP as u32, "v6 tcp", "v6 extended");
    program.label("v6 extended");
    program.op(LD_IMM, 0);
    program.jump("ports");
    program.label("v6 tcp");
    program.op(LDB_ABS, 53);
    program.op(AND, SYN_ACK);
    program.branch(JEQ, SYN, "v6 syn", "v6 ports");
    program.label("v6 syn");
    program.op(LD_IMM, 0);
    program.op(ST, OFFSET);
    program.label("v6 ports");
    program.op(LD_ABS, 40);

    program.label("ports");
    program.op(LDX_MEM, HASH);
    program.op(ADD_X, 0);
    program.label("hashed");
    // The upper half depends on all bits; it is scaled to the number of workers.
    program.op(MUL, last_factor);
    program.op(RSH, 16);
    program.op(MUL, workers);
    program.op(RSH, 16);
    program.op(LDX_MEM, OFFSET);
    program.op(ADD_X, 0);
    program.op(RET_A, 0);
    program.assemble()
}

/// With the port in A: goes to `hit` for a guarded one, else drops.
fn match_ports<'a>(program: &mut Program, guarded: impl Iterator<Item = &'a SocketAddr>, hit: &'static str) {
    let mut ports: Vec<u16> = guarded.map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        program.jump_if_equal(u32::from(port), hit);
    }
    program.jump("drop");
}

/// If every IPv4 guard names its address, packets to other addresses are none of ours, whatever their port.
fn match_address<'a>(program: &mut Program, guarded: impl Iterator<Item = &'a SocketAddr>, hit: &'static str) {
    let addresses: Vec<u32> = guarded
        .filter_map(|addr| match addr.ip() {
            IpAddr::V4(addr) => Some(addr.to_bits()),
            IpAddr::V6(_) => None,
        })
        .collect();
    if addresses.is_empty() || addresses.contains(&0) {
        return;
    }
    program.op(LD_ABS, 16);
    for address in addresses {
        program.jump_if_equal(address, hit);
    }
    program.jump("drop");
}

#[cfg(test)]
mod tests;
