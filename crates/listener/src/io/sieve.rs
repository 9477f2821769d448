//! The tap's filter with a memory: an eBPF program that lets no packet of a settled connection up to user space.
//!
//! A flow is settled from the moment the kernel holds a socket for it; then the tap shows of it RSTs, FINs and one packet in
//! a second, by which user space sees whether the kernel still has it. Before a SYN of it is answered it is unsettled. See
//! `bpf/tap.bpf.c`.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use aya::programs::SocketFilter;
use aya::{Ebpf, EbpfError, EbpfLoader};
use nix::time::{ClockId, clock_gettime};
use socket2::Socket;
use wire::FourTuple;

use super::filter::Share;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/objects/tap.o"));

/// The loaded program and its maps, about 8 MiB of kernel memory: for one engine.
pub(super) struct Sieve {
    ebpf: Ebpf,
    settled: MapData,
}

impl Sieve {
    /// Loads the program for these guarded addresses.
    ///
    /// # Errors
    /// Where the kernel is older than 5.11, or without CAP_BPF and CAP_NET_ADMIN (CAP_SYS_ADMIN before 5.8) in the initial
    /// user namespace.
    pub(super) fn load(guarded: &[SocketAddr]) -> io::Result<Sieve> {
        let [snap_len, syn_snap_len] = [Share::Others, Share::Syns].map(Share::snap_len);
        let mut loader = EbpfLoader::new();
        let mut ebpf = loader
            .override_global("snap_len", &snap_len, true)
            .override_global("syn_snap_len", &syn_snap_len, true)
            .load(OBJECT)
            .map_err(in_full)?;
        fill(&mut ebpf, guarded).map_err(in_full)?;
        for share in [Share::Syns, Share::Others] {
            program(&mut ebpf, share)?.load().map_err(in_full)?;
        }
        let Some(Map::LruHashMap(settled)) = ebpf.take_map("settled") else { return Err(absent("settled")) };
        Ok(Sieve { ebpf, settled })
    }

    /// Makes it the filter of a tap for this share, in one step.
    pub(super) fn attach(&mut self, socket: &Socket, share: Share) -> io::Result<()> {
        program(&mut self.ebpf, share)?.attach(socket).map_err(io::Error::other)
    }

    /// A worker's handle on the settled flows.
    pub(super) fn settled(&self) -> io::Result<Settled> {
        let fd = self.settled.fd().as_fd().try_clone_to_owned()?;
        let map = Map::LruHashMap(MapData::from_fd(fd).map_err(io::Error::other)?);
        Ok(Settled(HashMap::try_from(map).map_err(io::Error::other)?))
    }
}

/// The flows whose packets the tap need not show.
pub(super) struct Settled(HashMap<MapData, FlowKey, i64>);

impl Settled {
    /// The kernel holds this flow. A full map forgets the flow heard of least lately.
    pub(super) fn settle(&mut self, tuple: &FourTuple) {
        // Where it fails, the tap shows more than it need.
        let _ = self.0.insert(flow_key(tuple), now_ns(), 0);
    }

    /// The kernel does not hold this flow.
    pub(super) fn unsettle(&mut self, tuple: &FourTuple) {
        let _ = self.0.remove(&flow_key(tuple)); // Most were not there.
    }
}

/// `struct flow` of the program.
type FlowKey = [u8; 36];

fn flow_key(tuple: &FourTuple) -> FlowKey {
    let mut key = [0; 36];
    key[..16].copy_from_slice(&octets(tuple.peer.addr));
    key[16..32].copy_from_slice(&octets(tuple.local.addr));
    key[32..34].copy_from_slice(&tuple.peer.port.to_be_bytes());
    key[34..].copy_from_slice(&tuple.local.port.to_be_bytes());
    key
}

/// `struct guard` of the program.
fn guard_key(guard: &SocketAddr) -> [u8; 18] {
    let mut key = [0; 18];
    key[..16].copy_from_slice(&octets(guard.ip()));
    key[16..].copy_from_slice(&guard.port().to_be_bytes());
    key
}

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

fn fill(ebpf: &mut Ebpf, guarded: &[SocketAddr]) -> Result<(), EbpfError> {
    let mut guards: HashMap<_, [u8; 18], u8> = HashMap::try_from(map(ebpf, "guards")?)?;
    for guard in guarded.iter().filter(|guard| !guard.ip().is_unspecified()) {
        guards.insert(guard_key(guard), 1, 0)?;
    }
    // `struct ports` of the program: ports of any IPv4 address, of any IPv6 address, of named ones of each.
    let mut ports: Array<_, [u64; 4]> = Array::try_from(map(ebpf, "ports")?)?;
    for guard in guarded {
        let (index, bit) = (u32::from(guard.port() / 64), 1 << (guard.port() % 64));
        let named = !guard.ip().is_unspecified();
        let mut word = ports.get(&index, 0)?;
        word[usize::from(named) * 2 + usize::from(guard.is_ipv6())] |= bit;
        ports.set(index, word, 0)?;
    }
    Ok(())
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map, EbpfError> {
    ebpf.map_mut(name).ok_or_else(|| MapError::InvalidName { name: name.into() }.into())
}

fn program(ebpf: &mut Ebpf, share: Share) -> io::Result<&mut SocketFilter> {
    let name = match share {
        Share::Syns => "tap_syns",
        Share::Others => "tap_others",
    };
    let program = ebpf.program_mut(name).ok_or_else(|| absent(name))?;
    program.try_into().map_err(io::Error::other)
}

/// The loader tells the cause apart from what it was doing; a log line needs both. The kind is that of the system call's error.
/// Of what the kernel's verifier has to say, which may be thousands of lines, the end stays: there is the reason.
pub(super) fn in_full(error: impl Error + 'static) -> io::Error {
    let first: &(dyn Error + 'static) = &error;
    let mut kind = io::ErrorKind::Other;
    let mut text = String::new();
    for cause in std::iter::successors(Some(first), |&cause| cause.source()) {
        let separator = if text.is_empty() { "" } else { ": " };
        text = format!("{text}{separator}{}", last_of_verifier(&cause.to_string()));
        kind = cause.downcast_ref::<io::Error>().map_or(kind, io::Error::kind);
    }
    io::Error::new(kind, text)
}

/// How the loader begins to quote the kernel's verifier.
pub(super) const VERIFIER: &str = "Verifier output:";

fn last_of_verifier(text: &str) -> String {
    let Some((before, log)) = text.split_once(VERIFIER) else { return text.to_owned() };
    let statistics = ["processed ", "stack depth ", "verification time "];
    let said = |line: &&str| !line.trim().is_empty() && !statistics.iter().any(|begin| line.starts_with(begin));
    let reason = log.lines().rfind(said).unwrap_or_default();
    format!("{before}{VERIFIER} ... {reason}")
}

fn absent(name: &str) -> io::Error {
    io::Error::other(format!("the eBPF object has no {name}"))
}

/// The clock of the program.
fn now_ns() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |now| now.tv_sec() * 1_000_000_000 + now.tv_nsec())
}

#[cfg(test)]
mod tests;
