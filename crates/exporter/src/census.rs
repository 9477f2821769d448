//! The census: how many of the kernel's sockets each listener has in each state.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use listener::TcpState;
use listener::io::sock_diag::SockDiag;
use wire::{Endpoint, FourTuple};

use crate::source::{KERNEL_TIER, Source};

/// How old a count may be: a walk over the kernel's sockets is dear, and any number of people may ask.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(1);

/// Counts of a listener's sockets, indexed by state: `counts[TcpState::Established as usize]`.
///
/// Where we do the handshakes, the half-open queue is SYN-RECEIVED, and the kernel knows nothing of it.
pub type StateCounts = [u64; TcpState::ALL.len()];

/// Counts the sockets of every listener, at most once a second, however many ask: the exporter, and whoever else shares this.
pub struct Census {
    sources: Vec<Arc<dyn Source>>,
    walk: Mutex<Walk>,
}

struct Walk {
    table: Box<dyn SocketTable>,
    /// When the last one ended, and what it found or what became of it.
    last: Option<(Instant, Result<Vec<StateCounts>, Failed>)>,
}

/// An error that can be told several times.
#[derive(Clone)]
struct Failed(io::ErrorKind, String);

impl Census {
    /// Of these listeners' sockets in the network namespace of the calling thread. Holds a descriptor.
    pub fn new(sources: Vec<Arc<dyn Source>>) -> Arc<Census> {
        Census::of(sources, Box::new(KernelSockets::new()))
    }

    pub(crate) fn of(sources: Vec<Arc<dyn Source>>, table: Box<dyn SocketTable>) -> Arc<Census> {
        Arc::new(Census { sources, walk: Mutex::new(Walk { table, last: None }) })
    }

    /// The counts of each listener, in their order; up to a second old. Blocks for system calls: not for a runtime's worker thread.
    ///
    /// # Errors
    /// When the kernel's table could not be walked, which is tried again a second later.
    pub fn counts(&self) -> io::Result<Vec<StateCounts>> {
        let mut walk = self.walk();
        let fresh = walk.last.as_ref().filter(|(then, _)| then.elapsed() < AGE_MAX);
        let found = match fresh {
            Some((_, found)) => found.clone(),
            None => {
                let found = self.count(&mut *walk.table);
                // From its end: a walk that takes longer than AGE_MAX must not make the next one start at once.
                walk.last = Some((Instant::now(), found.clone()));
                found
            }
        };
        found.map_err(|Failed(kind, message)| io::Error::new(kind, message))
    }

    fn count(&self, table: &mut dyn SocketTable) -> Result<Vec<StateCounts>, Failed> {
        let guarded: Vec<Vec<Endpoint>> = self.sources.iter().map(|source| guarded(&**source)).collect();
        let mut counts = count(table, &guarded).map_err(|error| Failed(error.kind(), error.to_string()))?;
        for (source, counts) in self.sources.iter().zip(&mut counts) {
            if source.tier() != KERNEL_TIER {
                counts[TcpState::SynReceived as usize] = source.half_open();
            }
        }
        Ok(counts)
    }

    fn walk(&self) -> MutexGuard<'_, Walk> {
        // A walk that panicked has found nothing, and the next one begins anew.
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the last walk older.
    #[cfg(test)]
    pub(crate) fn age(&self, by: Duration) {
        if let Some((then, _)) = &mut self.walk().last {
            *then = then.checked_sub(by).expect("the machine has been up for a second");
        }
    }
}

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

fn guarded(source: &dyn Source) -> Vec<Endpoint> {
    source.endpoints().into_iter().map(Endpoint::from).collect()
}

fn count(table: &mut dyn SocketTable, guarded: &[Vec<Endpoint>]) -> io::Result<Vec<StateCounts>> {
    let ports: BTreeSet<u16> = guarded.iter().flatten().map(|endpoint| endpoint.port).collect();
    let mut sum = vec![StateCounts::default(); guarded.len()];
    for port in ports {
        let counts = count_port(table, guarded, port)?;
        for (sum, count) in sum.iter_mut().flatten().zip(counts.iter().flatten()) {
            *sum += count;
        }
    }
    Ok(sum)
}

/// Counts the sockets of one port, again if the kernel's table changed under the walk.
fn count_port(table: &mut dyn SocketTable, guarded: &[Vec<Endpoint>], port: u16) -> io::Result<Vec<StateCounts>> {
    let mut tries = 0;
    loop {
        let mut counts = vec![StateCounts::default(); guarded.len()];
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
