//! The census: which of the kernel's sockets belong to which listener, by state.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use listener::TcpState;
use listener::io::sock_diag::SockDiag;
use metrics::Gauge;
use wire::{Endpoint, FourTuple};

use crate::listeners::state_series;
use crate::registry::Registry;
use crate::source::{KERNEL_TIER, Source};

/// Whatever can list the host's TCP sockets.
pub(crate) trait SocketTable: Send {
    /// Calls `each` with every socket whose local port is `port`. After an error, what `each` saw means nothing.
    fn dump(&mut self, port: u16, each: &mut dyn FnMut(FourTuple, TcpState)) -> io::Result<()>;
}

/// The kernel's table, by sock_diag, in the network namespace of the thread that made this.
pub(crate) struct KernelSockets {
    /// Kept open, for the day the process is out of descriptors.
    diag: Option<SockDiag>,
}

impl KernelSockets {
    /// Opens sock_diag; if that fails, each dump tries again.
    pub(crate) fn new() -> KernelSockets {
        KernelSockets { diag: SockDiag::open().ok() }
    }
}

impl SocketTable for KernelSockets {
    fn dump(&mut self, port: u16, each: &mut dyn FnMut(FourTuple, TcpState)) -> io::Result<()> {
        let diag = match &mut self.diag {
            Some(diag) => diag,
            none => none.insert(SockDiag::open()?),
        };
        diag.dump(port, each)
    }
}

/// Counts of a listener's sockets, indexed by state.
type Counts = [u64; TcpState::ALL.len()];

/// Counts the sockets of every listener.
pub(super) struct SocketCensus {
    table: Box<dyn SocketTable>,
    sources: Vec<Arc<dyn Source>>,
    gauges: Vec<[Gauge; TcpState::ALL.len()]>,
}

impl SocketCensus {
    pub(super) fn register(
        registry: &Registry,
        sources: &[Arc<dyn Source>],
        table: Box<dyn SocketTable>,
    ) -> SocketCensus {
        let states = |source: &Arc<dyn Source>| TcpState::ALL.map(|state| state_series(registry, source.name(), state));
        SocketCensus { table, gauges: sources.iter().map(states).collect(), sources: sources.to_vec() }
    }

    /// Counts, and sets the series only if every count is good.
    pub(super) fn collect(&mut self) -> io::Result<()> {
        let guarded: Vec<Vec<Endpoint>> = self.sources.iter().map(|source| guarded(&**source)).collect();
        let counts = count(&mut *self.table, &guarded)?;
        for ((source, gauges), counts) in self.sources.iter().zip(&self.gauges).zip(counts) {
            for state in TcpState::ALL {
                // Where we do the handshakes, the half-open queue is SYN-RECEIVED and the kernel knows nothing of it.
                if state != TcpState::SynReceived || source.tier() == KERNEL_TIER {
                    gauges[state as usize].set(counts[state as usize] as f64);
                }
            }
        }
        Ok(())
    }
}

fn guarded(source: &dyn Source) -> Vec<Endpoint> {
    source.endpoints().into_iter().map(Endpoint::from).collect()
}

fn count(table: &mut dyn SocketTable, guarded: &[Vec<Endpoint>]) -> io::Result<Vec<Counts>> {
    let ports: BTreeSet<u16> = guarded.iter().flatten().map(|endpoint| endpoint.port).collect();
    let mut sum = vec![Counts::default(); guarded.len()];
    for port in ports {
        let counts = count_port(table, guarded, port)?;
        for (sum, count) in sum.iter_mut().flatten().zip(counts.iter().flatten()) {
            *sum += count;
        }
    }
    Ok(sum)
}

/// Counts the sockets of one port, again if the kernel's table changed under the walk.
fn count_port(table: &mut dyn SocketTable, guarded: &[Vec<Endpoint>], port: u16) -> io::Result<Vec<Counts>> {
    let mut tries = 0;
    loop {
        let mut counts = vec![Counts::default(); guarded.len()];
        let outcome = table.dump(port, &mut |tuple, state| {
            if let Some(listener) = owner(guarded, tuple.local) {
                counts[listener][state as usize] += 1;
            }
        });
        tries += 1;
        match outcome {
            Ok(()) => return Ok(counts),
            Err(error) if error.kind() == io::ErrorKind::Interrupted && tries < TRIES_MAX => {}
            Err(error) => return Err(error),
        }
    }
}

/// Walks over a changing table before the old values are left to stand.
const TRIES_MAX: u32 = 3;

/// The index of the listener that guards `local`: the one that names the address, else the one with the wildcard of its family.
fn owner(guarded: &[Vec<Endpoint>], local: Endpoint) -> Option<usize> {
    let guards = |endpoint: Endpoint| guarded.iter().position(|endpoints| endpoints.contains(&endpoint));
    guards(local).or_else(|| guards(Endpoint { addr: wildcard_of(local.addr), port: local.port }))
}

fn wildcard_of(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    #[test]
    fn a_socket_belongs_to_the_listener_of_its_address_and_port() {
        let guarded = [vec![end("198.18.0.1:80"), end("[2001:db8::1]:80")], vec![end("198.18.0.2:80")]];
        assert_eq!(owner(&guarded, end("198.18.0.1:80")), Some(0));
        assert_eq!(owner(&guarded, end("[2001:db8::1]:80")), Some(0));
        assert_eq!(owner(&guarded, end("198.18.0.2:80")), Some(1));
        assert_eq!(owner(&guarded, end("198.18.0.2:81")), None);
        assert_eq!(owner(&guarded, end("198.18.0.3:80")), None);
    }

    #[test]
    fn a_wildcard_takes_what_no_listener_names_and_only_of_its_family() {
        let guarded = [vec![end("0.0.0.0:80")], vec![end("198.18.0.2:80")]];
        assert_eq!(owner(&guarded, end("198.18.0.1:80")), Some(0));
        assert_eq!(owner(&guarded, end("198.18.0.2:80")), Some(1));
        assert_eq!(owner(&guarded, end("0.0.0.0:80")), Some(0), "the kernel's listening socket itself");
        assert_eq!(owner(&guarded, end("[2001:db8::1]:80")), None);
    }

    /// Gives the outcomes in turn, one socket each time.
    struct Scripted(Vec<io::Result<()>>);

    impl SocketTable for Scripted {
        fn dump(&mut self, port: u16, each: &mut dyn FnMut(FourTuple, TcpState)) -> io::Result<()> {
            let peer = end("198.18.0.9:40000");
            each(FourTuple { local: Endpoint { port, ..end("198.18.0.1:0") }, peer }, TcpState::Established);
            self.0.remove(0)
        }
    }

    fn interrupted() -> io::Result<()> {
        Err(io::ErrorKind::Interrupted.into())
    }

    #[test]
    fn an_interrupted_walk_is_repeated_and_counts_nothing_twice() {
        let guarded = [vec![end("198.18.0.1:80")]];
        let counts = count(&mut Scripted(vec![interrupted(), interrupted(), Ok(())]), &guarded).unwrap();
        assert_eq!(counts[0][TcpState::Established as usize], 1);
    }

    #[test]
    fn a_walk_that_is_always_interrupted_is_given_up() {
        let mut table = Scripted(vec![interrupted(), interrupted(), interrupted(), Ok(())]);
        assert!(count(&mut table, &[vec![end("198.18.0.1:80")]]).is_err());
        assert_eq!(table.0.len(), 1, "tried exactly three times");
    }

    #[test]
    fn each_port_is_walked_once() {
        let guarded = [vec![end("198.18.0.1:80"), end("198.18.0.2:80")], vec![end("198.18.0.1:81")]];
        let mut table = Scripted(vec![Ok(()), Ok(())]);
        let counts = count(&mut table, &guarded).unwrap();
        assert!(table.0.is_empty());
        assert_eq!(counts[0][TcpState::Established as usize], 1);
        assert_eq!(counts[1][TcpState::Established as usize], 1);
    }
}
