//! The clients: one thread that keeps some connections busy, for a while unobserved and then for a while measured.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

use super::cost::CostClock;
use super::peer::{Bulk, Purpose, REQUEST_LEN};
use super::upstream::Upstream;
use crate::clients::quantiles;
use crate::results::{Quantiles, RelayPart};

/// How long a relay may take for one connection while nothing is measured.
const PATIENCE: Duration = Duration::from_secs(10);
/// A request or connection that takes longer is counted as this long, and is a failure all the same.
const LONGEST_US: u64 = 60_000_000;
/// How long the end of a measurement may be overrun, in milliseconds.
const NOTICE_MS: u8 = 20;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub part: RelayPart,
    pub target: SocketAddr,
    pub connections: usize,
    /// Before anything is measured.
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What was seen in the time measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub seconds: f64,
    pub done: u64,
    pub failed: u64,
    pub latency_us: Quantiles,
    pub cpu: Duration,
}

/// Runs a load to its end, on the calling thread, in the namespace it is in.
///
/// # Errors
/// When the relay does not take the first connections.
pub fn run(load: Load, upstream: &Upstream, cost: &CostClock) -> io::Result<Seen> {
    let mut clients = Clients::start(load)?;
    let begin = Instant::now() + load.warm_up;
    while Instant::now() < begin {
        clients.turn()?;
    }
    clients.latencies.reset();
    let total = |clients: &Clients| match load.part {
        // What has arrived, not what has been sent.
        RelayPart::Upload => upstream.sunk_bytes(),
        _ => clients.done,
    };
    let (begin, done, failed, cpu) = (Instant::now(), total(&clients), clients.failed, cost.now());
    while begin.elapsed() < load.measured {
        clients.turn()?;
    }
    Ok(Seen {
        seconds: begin.elapsed().as_secs_f64(),
        done: total(&clients) - done,
        failed: clients.failed - failed,
        latency_us: quantiles(&clients.latencies),
        cpu: cost.now().saturating_sub(cpu),
    })
}

/// Opens connections, each of which asks once, and holds them.
///
/// # Errors
/// When one is refused or not answered.
pub fn hold(target: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&REQUEST)?;
            stream.read_exact(&mut [0; REQUEST_LEN])?;
            Ok(stream)
        })
        .collect()
}

const REQUEST: [u8; REQUEST_LEN] = [Purpose::Echo as u8; REQUEST_LEN];

struct Clients {
    load: Load,
    epoll: Epoll,
    slots: Vec<Slot>,
    bulk: Bulk,
    done: u64,
    failed: u64,
    latencies: Histogram<u64>,
}

/// A place for one connection at a time.
struct Slot {
    stream: TcpStream,
    /// When the request, or the connection, began.
    began: Instant,
    /// Bytes of the answer so far; `None`: not asked yet, because not connected.
    answered: Option<usize>,
}

impl Clients {
    fn start(load: Load) -> io::Result<Clients> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let latencies = Histogram::new_with_max(LONGEST_US, 3).expect("legal bounds");
        let mut clients = Clients { load, epoll, slots: Vec::new(), bulk: Bulk::new()?, done: 0, failed: 0, latencies };
        for index in 0..load.connections {
            let slot = clients.open(index as u64)?;
            clients.slots.push(slot);
        }
        Ok(clients)
    }

    /// Readiness of bulk is told for as long as there is some; what is small is told once.
    fn open(&self, index: u64) -> io::Result<Slot> {
        let (began, once) = (Instant::now(), EpollFlags::EPOLLET);
        let slot = |stream, answered| Slot { stream, began, answered };
        let (slot, flags) = match self.load.part {
            RelayPart::Connects => (slot(begin_to_connect(self.load.target)?, None), once | IN | OUT),
            RelayPart::Upload => (slot(connected(self.load.target)?, None), OUT),
            RelayPart::Download => {
                let stream = connected(self.load.target)?;
                (&stream).write_all(&[Purpose::Source as u8])?;
                (slot(stream, None), IN)
            }
            RelayPart::Requests | RelayPart::PingPong | RelayPart::Idle => {
                let stream = connected(self.load.target)?;
                (&stream).write_all(&REQUEST)?;
                (slot(stream, Some(0)), once | IN)
            }
        };
        self.epoll.add(&slot.stream, EpollEvent::new(flags, index))?;
        Ok(slot)
    }

    /// Does what can be done now.
    fn turn(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 256];
        let ready = match self.epoll.wait(&mut events, EpollTimeout::from(NOTICE_MS)) {
            Err(Errno::EINTR) => 0,
            ready => ready?,
        };
        for event in &events[..ready] {
            let index = event.data();
            let outcome = match self.load.part {
                RelayPart::Upload => self.upload(index as usize),
                RelayPart::Download => self.download(index as usize),
                _ => self.ask(index as usize),
            };
            let renew = outcome.unwrap_or_else(|_broken| {
                self.failed += 1;
                true
            });
            if renew {
                // Assigned, the old one is closed: with FIN, which ends it on the relay's other side too.
                self.slots[index as usize] = self.open(index)?;
            }
        }
        Ok(())
    }

    /// Whether the connection is over; so for the next two.
    fn upload(&mut self, index: usize) -> io::Result<bool> {
        self.bulk.send(&self.slots[index].stream).map(|_| false)
    }

    fn download(&mut self, index: usize) -> io::Result<bool> {
        let len = self.bulk.discard(&self.slots[index].stream)?;
        self.done += len.unwrap_or(0) as u64;
        Ok(len == Some(0))
    }

    fn ask(&mut self, index: usize) -> io::Result<bool> {
        let slot = &mut self.slots[index];
        let Some(answered) = slot.answered else {
            slot.stream.write_all(&REQUEST)?;
            slot.answered = Some(0);
            return Ok(false);
        };
        let len = match slot.stream.read(&mut [0; REQUEST_LEN]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            len => len?,
        };
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if answered + len < REQUEST_LEN {
            slot.answered = Some(answered + len);
            return Ok(false);
        }
        self.done += 1;
        let taken = u64::try_from(slot.began.elapsed().as_micros()).unwrap_or(LONGEST_US);
        self.latencies.saturating_record(taken);
        if self.load.part == RelayPart::Connects {
            return Ok(true);
        }
        (slot.began, slot.answered) = (Instant::now(), Some(0));
        slot.stream.write_all(&REQUEST)?;
        Ok(false)
    }
}

const IN: EpollFlags = EpollFlags::EPOLLIN;
const OUT: EpollFlags = EpollFlags::EPOLLOUT;

fn connected(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn begin_to_connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

#[cfg(test)]
mod tests {
    use testnet::Namespace;

    use super::*;

    fn seen(part: RelayPart, connections: usize) -> Seen {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let upstream = Upstream::start(&Namespace::current(), address, &[]).unwrap();
        let (warm_up, measured) = (Duration::from_millis(50), Duration::from_millis(200));
        let load = Load { part, target: address, connections, warm_up, measured };
        run(load, &upstream, &CostClock::new(std::process::id(), &[])).unwrap()
    }

    #[test]
    fn each_load_without_a_relay_between_does_something_and_breaks_nothing() {
        for part in
            [RelayPart::Upload, RelayPart::Download, RelayPart::Requests, RelayPart::PingPong, RelayPart::Connects]
        {
            let seen = seen(part, 3);
            assert!(seen.done > 0 && seen.failed == 0 && seen.cpu > Duration::ZERO, "{part:?}: {seen:?}");
            let bulk = matches!(part, RelayPart::Upload | RelayPart::Download);
            assert_eq!(seen.latency_us.count, if bulk { 0 } else { seen.done }, "{part:?}");
        }
    }

    #[test]
    fn held_connections_have_been_answered() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _upstream = Upstream::start(&Namespace::current(), address, &[]).unwrap();
        assert_eq!(hold(address, 20).unwrap().len(), 20);
    }
}
