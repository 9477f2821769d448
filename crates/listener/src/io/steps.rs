//! The steps of the kernel's sockets from one state to the next, counted by an eBPF program at the tracepoint `sock:inet_sock_set_state`.
//!
//! There is one program for all listeners of the process; it goes with the last of them. See `bpf/steps.bpf.c`.

mod program;

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::transition::TransitionCounts;
use program::Program;

/// Counts the steps of a listener's sockets in the kernel.
///
/// A socket belongs to the listener that [guards](TransitionCounter::guard) its local address, whoever has it open: in the time of a
/// takeover, those of the other process too.
///
/// What it cannot see, because the kernel tells nobody:
/// - how an entry in TIME-WAIT ends, and how a connection leaves FIN-WAIT-2 whose socket was closed before the peer's FIN came:
///   the kernel keeps an entry in place of the socket there, too;
/// - that there was no room for an entry in TIME-WAIT (`net.ipv4.tcp_max_tw_buckets`): the step is counted, and the kernel's
///   `TCPTimeWaitOverflow` besides;
/// - a step that an interrupt takes in the few hundred nanoseconds in which the program is at work on the same core: the kernel does
///   not run it inside itself (`recursion_misses` of the program).
pub struct TransitionCounter {
    program: Arc<Program>,
    slot: u32,
    netns: u32,
    /// What was read last, for when the kernel cannot be asked: counts never go back.
    last: Mutex<TransitionCounts>,
}

/// Who takes a connection from LISTEN to ESTABLISHED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshakes {
    /// We do, and count: the steps from LISTEN and SYN-RECEIVED stay 0 here.
    Ours,
    /// The kernel. Its sockets come into being with the third segment: their LISTEN to SYN-RECEIVED and SYN-RECEIVED to ESTABLISHED are
    /// counted then, and handshakes that stay half-open not at all.
    Kernels,
}

impl TransitionCounter {
    /// Loads the program, which takes some tens of milliseconds, or joins the one that this process has.
    ///
    /// Counts sockets in the network namespace of the calling thread, from the moment at which [`guard`](TransitionCounter::guard) says which.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_BPF and CAP_PERFMON in the initial user namespace; where the kernel has no BTF or is older than 5.9;
    /// `OutOfMemory` for a 65th listener of one process.
    pub fn open() -> io::Result<TransitionCounter> {
        let netns = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let netns = u32::try_from(netns).map_err(io::Error::other)?;
        let program = Program::of_process()?;
        let slot = program.take_slot()?;
        Ok(TransitionCounter { program, slot, netns, last: Mutex::default() })
    }

    /// Counts the steps of sockets at these addresses from now on. A wildcard stands for the addresses of its own family that no listener
    /// names. Who comes last has an address that two claim.
    ///
    /// # Errors
    /// Of bpf(2): for more than 4096 addresses in one process. Then none of these is counted.
    pub fn guard(&self, guarded: &[SocketAddr], handshakes: Handshakes) -> io::Result<()> {
        let keys: Vec<_> = guarded.iter().map(|addr| guard_key(addr, self.netns)).collect();
        self.program.guard(self.slot, &keys, handshakes == Handshakes::Kernels)
    }

    /// The steps so far. One system call.
    pub fn counts(&self) -> TransitionCounts {
        // Nothing under the lock leaves it half done.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(counts) = self.program.counts(self.slot) {
            *last = counts;
        }
        *last
    }
}

impl Drop for TransitionCounter {
    fn drop(&mut self) {
        self.program.give_back(self.slot);
    }
}

impl fmt::Debug for TransitionCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransitionCounter").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// `struct guard` of the program.
type GuardKey = [u8; 24];

fn guard_key(guard: &SocketAddr, netns: u32) -> GuardKey {
    let addr = match guard.ip() {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    };
    let mut key = [0; 24];
    key[..16].copy_from_slice(&addr.octets());
    key[16..20].copy_from_slice(&netns.to_ne_bytes());
    key[20..22].copy_from_slice(&guard.port().to_be_bytes());
    key
}

/// The port in a key.
fn port_of(key: &GuardKey) -> u16 {
    u16::from_be_bytes([key[20], key[21]])
}

#[cfg(test)]
mod tests;
