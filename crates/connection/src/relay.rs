//! The relay: a client's connection and one to an upstream, joined.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use crate::accept_queue::reset_when_dropped;
use crate::account::Account;
use crate::connection::Connection;
use crate::stats::CloseReason;

/// What a relay holds per direction while the receiving side is slower than the sending one; while nothing waits, it holds nothing.
///
/// One buffer of this size per thread serves all relays on it: only what the receiver does not take at once is kept aside.
pub const RELAY_BUFFER_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; RELAY_BUFFER_BYTES].into_boxed_slice());
}

/// What passed through a relay, and why it ended.
#[derive(Debug)]
pub struct RelayOutcome {
    /// Bytes from the client that the upstream's socket took.
    pub to_upstream_bytes: u64,
    /// Bytes from the upstream that the client's socket took.
    pub to_client_bytes: u64,
    /// Why it ended.
    pub end: RelayEnd,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// Both sides sent FIN, and both FINs and all bytes before them were passed on.
    Complete,
    /// The client sent RST; so did we, to the upstream.
    ClientReset,
    /// The upstream sent RST; so did we, to the client.
    UpstreamReset,
    /// Nothing moved for the idle time. Both sides were sent RST.
    Idle,
    /// One side had sent FIN, and nothing moved for the half-close time. Both sides were sent RST.
    HalfClosed,
    /// The client's side failed otherwise. Both sides were sent RST.
    ClientFailed(io::Error),
    /// The upstream's side failed otherwise. Both sides were sent RST.
    UpstreamFailed(io::Error),
}

/// Copies both ways until both sides are done, and passes everything on: bytes, each FIN, and RST.
///
/// A FIN passes in its own direction alone; the other goes on for as long as its sender likes, or until nothing has moved
/// either way for `half_close`. Before the first FIN, `idle` is the limit for that. `None` sets no limit; with `half_close: None`
/// the idle limit holds on. A connection that is cut short ends with RST on both sides, so that neither takes what it
/// got for complete. A RST is passed on at once, also while bytes before it wait for a slow receiver.
///
/// Memory: nothing while nothing waits; at most [`RELAY_BUFFER_BYTES`] per direction for a slow receiver.
///
/// Dropping the future closes both sides.
pub async fn relay(
    client: Connection,
    upstream: TcpStream,
    idle: Option<Duration>,
    half_close: Option<Duration>,
) -> RelayOutcome {
    let meter = Meter::new();
    let end = {
        let client = End { side: Side::Client, stream: client.stream(), account: Some(client.account()) };
        let upstream = End { side: Side::Upstream, stream: &upstream, account: None };
        run(client, upstream, &meter, Limits { idle, half_close }).await
    };
    let end = end.err().unwrap_or(RelayEnd::Complete);
    if !matches!(end, RelayEnd::Complete) {
        reset_when_dropped(&SockRef::from(&upstream));
        client.abort();
    }
    RelayOutcome {
        to_upstream_bytes: meter.to_upstream.load(Relaxed),
        to_client_bytes: meter.to_client.load(Relaxed),
        end,
    }
}

#[derive(Clone, Copy)]
struct Limits {
    idle: Option<Duration>,
    half_close: Option<Duration>,
}

/// Both directions, side by side in one task.
async fn run(client: End<'_>, upstream: End<'_>, meter: &Meter, limits: Limits) -> Result<(), RelayEnd> {
    let mut up = pin!(pump(client, upstream, meter, &meter.to_upstream));
    let mut down = pin!(pump(upstream, client, meter, &meter.to_client));
    let (mut up_done, mut down_done) = (false, false);
    while !(up_done && down_done) {
        let half_closed = up_done || down_done;
        let limit = if half_closed { limits.half_close.or(limits.idle) } else { limits.idle };
        tokio::select! {
            passed = &mut up, if !up_done => { passed?; up_done = true; }
            passed = &mut down, if !down_done => { passed?; down_done = true; }
            // After its FIN a side is not read from, and a write to it may never come: its RST must be watched for.
            error = client.broken() => return Err(client.end_of(error)),
            error = upstream.broken() => return Err(upstream.end_of(error)),
            () = meter.stalled(limit) => return Err(if half_closed { RelayEnd::HalfClosed } else { RelayEnd::Idle }),
        }
    }
    Ok(())
}

/// Copies one way until FIN, and passes that on.
async fn pump(from: End<'_>, to: End<'_>, meter: &Meter, passed: &AtomicU64) -> Result<(), RelayEnd> {
    loop {
        consume_budget().await;
        let step = SCRATCH.with_borrow_mut(|scratch| pass_once(from, to, scratch))?;
        match step {
            Step::Nothing => from.wait(Interest::READABLE).await?,
            Step::Passed(len) => meter.moved(len, passed),
            Step::Kept { passed: len, rest } => {
                meter.moved(len, passed);
                drain(&rest, to, meter, passed).await?;
            }
            Step::Fin => {
                meter.moved(0, passed);
                return to.shutdown_write();
            }
        }
    }
}

/// What one look at the sender brought.
enum Step {
    Nothing,
    /// Bytes, all taken by the receiver.
    Passed(usize),
    /// Bytes, of which the receiver did not take all.
    Kept {
        passed: usize,
        rest: Vec<u8>,
    },
    Fin,
}

fn pass_once(from: End<'_>, to: End<'_>, scratch: &mut [u8]) -> Result<Step, RelayEnd> {
    let Some(len) = from.try_read(scratch)? else { return Ok(Step::Nothing) };
    if len == 0 {
        return Ok(Step::Fin);
    }
    match to.try_write(&scratch[..len])?.unwrap_or(0) {
        passed if passed == len => Ok(Step::Passed(len)),
        passed => Ok(Step::Kept { passed, rest: scratch[passed..len].to_vec() }),
    }
}

async fn drain(mut rest: &[u8], to: End<'_>, meter: &Meter, passed: &AtomicU64) -> Result<(), RelayEnd> {
    while !rest.is_empty() {
        to.wait(Interest::WRITABLE).await?;
        if let Some(len) = to.try_write(rest)? {
            meter.moved(len, passed);
            rest = &rest[len..];
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Upstream,
}

/// One side of the relay, read and written through a shared reference, since both directions use it.
#[derive(Clone, Copy)]
struct End<'a> {
    side: Side,
    stream: &'a TcpStream,
    /// The client's side is counted.
    account: Option<&'a Account>,
}

impl End<'_> {
    /// `None`: nothing there yet. `Some(0)`: FIN.
    fn try_read(self, buffer: &mut [u8]) -> Result<Option<usize>, RelayEnd> {
        let outcome = self.stream.try_read(buffer);
        if let Some(account) = self.account {
            account.read(&outcome);
        }
        self.unless_blocked(outcome)
    }

    /// `None`: no room yet.
    fn try_write(self, bytes: &[u8]) -> Result<Option<usize>, RelayEnd> {
        let outcome = self.stream.try_write(bytes);
        if let Some(account) = self.account {
            account.wrote(&outcome);
        }
        self.unless_blocked(outcome)
    }

    fn unless_blocked(self, outcome: io::Result<usize>) -> Result<Option<usize>, RelayEnd> {
        match outcome {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(self.end_of(error)),
        }
    }

    async fn wait(self, interest: Interest) -> Result<(), RelayEnd> {
        self.stream.ready(interest).await.map(|_| ()).map_err(|error| self.end_of(error))
    }

    /// Passes a FIN on. That the socket is not connected any more is left to the next read or write to tell.
    fn shutdown_write(self) -> Result<(), RelayEnd> {
        if let Some(account) = self.account {
            account.note(CloseReason::LocalClose);
        }
        match SockRef::from(self.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(self.end_of(error)),
            _ => Ok(()),
        }
    }

    /// Waits until the connection is broken, by a RST for example, and says how.
    async fn broken(self) -> io::Error {
        let error = match self.stream.ready(Interest::ERROR).await {
            // The pump may have taken the error in the meantime; then only that there was one is known.
            Ok(_) => self.stream.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
            Err(error) => error,
        };
        if let Some(account) = self.account {
            account.failed(&error);
        }
        error
    }

    fn end_of(self, error: io::Error) -> RelayEnd {
        let reset = matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe);
        match self.side {
            Side::Client if reset => RelayEnd::ClientReset,
            Side::Client => RelayEnd::ClientFailed(error),
            Side::Upstream if reset => RelayEnd::UpstreamReset,
            Side::Upstream => RelayEnd::UpstreamFailed(error),
        }
    }
}

/// Counts bytes, and knows when anything moved last. Atomic only so that the relay may move between a runtime's threads.
struct Meter {
    to_upstream: AtomicU64,
    to_client: AtomicU64,
    start: Instant,
    /// Microseconds from `start` to the last progress.
    last: AtomicU64,
}

impl Meter {
    fn new() -> Meter {
        let zero = AtomicU64::default;
        Meter { to_upstream: zero(), to_client: zero(), start: Instant::now(), last: zero() }
    }

    fn moved(&self, len: usize, passed: &AtomicU64) {
        passed.fetch_add(len as u64, Relaxed);
        self.last.store(self.start.elapsed().as_micros() as u64, Relaxed);
    }

    /// Waits until nothing has moved for `limit`; for ever without one. Progress costs no timer: the deadline is looked at when it is due.
    async fn stalled(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return pending().await };
        loop {
            // A limit so far off that the clock cannot express it is none.
            let deadline = self.start.checked_add(Duration::from_micros(self.last.load(Relaxed)).saturating_add(limit));
            let Some(deadline) = deadline else { return pending().await };
            if Instant::now() >= deadline {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}
