//! The relay: a client's connection and one to an upstream, joined.

mod end;
mod inq;
mod meter;
mod pipe;
mod rarely;
mod sys;

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use socket2::SockRef;
use tokio::task::coop::consume_budget;

use self::end::{End, Got, Side, Socket};
use self::meter::Meter;
use self::pipe::Pipe;
pub use self::rarely::{Rarely, rarely};
use crate::accept_queue::reset_when_dropped;
use crate::connection::Connection;
use crate::stats::CloseReason;
use crate::upstream::{Stream, Upstream};

/// What a relay holds per direction while the receiving side is slower than the sending one; while nothing waits, it holds nothing.
///
/// One buffer of this size per thread serves all relays on it: only what the receiver does not take at once is kept aside.
pub const RELAY_BUFFER_BYTES: usize = 64 * 1024;

/// A direction that has passed this much may splice: below, no pipe is worth making.
const BULK_BYTES: u64 = 256 * 1024;
/// And does once it finds so much at a time; what comes in small pieces is copied, however long it lasts.
const SPLICE_FROM_BYTES: usize = 32 * 1024;
/// A pipe that gets less is not worth its calls. Frames of 1448 bytes fill its 16 places with 23 KB, and that still is.
const COPY_BELOW_BYTES: usize = 16 * 1024;

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
    /// The upstream sent RST; so did we, to the client. Over a Unix socket: it closed without having read everything; what it had
    /// written before was handed to the client's socket first, and what of that was still unsent is lost by the RST.
    UpstreamReset,
    /// The upstream, over a Unix socket, stopped reading before the client had sent all, and finished its answer. That and both FINs
    /// were passed on, what the client sent beyond was thrown away.
    UpstreamRefused,
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
/// The upstream is one of a [`Pool`](crate::upstream::Pool), which counts it until the relay is over, or any `TcpStream` or `UnixStream`.
/// Unix sockets know FIN but no RST: one that is cut short reads as ended, or as reset if it had sent something that had not been passed on.
///
/// Memory: nothing while nothing waits; at most [`RELAY_BUFFER_BYTES`] per direction for a slow receiver. Where much moves, it moves by
/// splice(2) through a pipe. One pipe per thread serves all relays on it; besides, each direction of which a slow receiver has not taken all
/// has one, but all together no more than one for every 64 descriptors that the process may have, and 1024. Beyond that, bytes are copied.
///
/// Dropping the future closes both sides.
pub async fn relay(
    client: Connection,
    upstream: impl Into<Upstream>,
    idle: Option<Duration>,
    half_close: Option<Duration>,
) -> RelayOutcome {
    let upstream = upstream.into();
    let meter = Meter::new();
    let end = {
        let stream: &Stream = &upstream;
        // One call, which saves one for each message. Connections that the kernel made have it from their listener.
        Socket::from(stream).tell_when_empty();
        if client.handshake().options.is_some() {
            Socket::Tcp(client.stream()).tell_when_empty();
        }
        let client = End { side: Side::Client, socket: Socket::Tcp(client.stream()), account: Some(client.account()) };
        let upstream = End { side: Side::Upstream, socket: stream.into(), account: None };
        run(&client, &upstream, &meter, Limits { idle, half_close }).await
    };
    let end = end.unwrap_or_else(|end| end);
    if !matches!(end, RelayEnd::Complete | RelayEnd::UpstreamRefused) {
        reset_when_dropped(&SockRef::from(&*upstream));
        match end {
            RelayEnd::Idle => client.note_close(CloseReason::IdleTimeout),
            RelayEnd::HalfClosed => client.note_close(CloseReason::HalfCloseTimeout),
            _ => {}
        }
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
async fn run(client: &End<'_>, upstream: &End<'_>, meter: &Meter, limits: Limits) -> Result<RelayEnd, RelayEnd> {
    let mut up = pin!(pump_or_discard(client, upstream, meter, &meter.to_upstream));
    let mut down = pin!(pump(upstream, client, meter, &meter.to_client));
    let (mut up_end, mut down_done) = (None, false);
    loop {
        let (limit, stalled) = match up_end.is_some() || down_done {
            true => (limits.half_close.or(limits.idle), RelayEnd::HalfClosed),
            false => (limits.idle, RelayEnd::Idle),
        };
        tokio::select! {
            end = &mut up, if up_end.is_none() => up_end = Some(end?),
            passed = &mut down, if !down_done => { passed?; down_done = true; }
            // Not polled again with each message.
            cut = rarely(cut_short(client, upstream, meter, limit)) => return Err(cut.unwrap_or(stalled)),
        }
        if down_done && let Some(end) = up_end.take() {
            return Ok(end);
        }
    }
}

/// Returns when the relay must not go on: how it ends, or `None` if nothing has moved for the limit.
///
/// After its FIN a side is not read from, and a write to it may never come: its RST must be watched for.
async fn cut_short(client: &End<'_>, upstream: &End<'_>, meter: &Meter, limit: Option<Duration>) -> Option<RelayEnd> {
    tokio::select! {
        error = client.broken() => Some(client.end_of(error)),
        error = upstream.broken() => Some(upstream.end_of(error)),
        () = meter.stalled(limit) => None,
    }
}

/// As [`pump`], except that a receiver which takes nothing more, and whose answer can be read all the same, does not end
/// the relay: what is sent to it from then on is read and thrown away. Returns how the relay ends when the answer has been passed on.
async fn pump_or_discard(
    from: &End<'_>,
    to: &End<'_>,
    meter: &Meter,
    passed: &AtomicU64,
) -> Result<RelayEnd, RelayEnd> {
    match pump(from, to, meter, passed).await {
        Ok(()) => Ok(RelayEnd::Complete),
        Err(end @ (RelayEnd::UpstreamRefused | RelayEnd::UpstreamReset)) if to.outlives_its_peer() => {
            Box::pin(discard(from)).await?;
            Ok(end)
        }
        Err(end) => Err(end),
    }
}

/// Copies one way until FIN, and passes that on.
async fn pump(from: &End<'_>, to: &End<'_>, meter: &Meter, passed: &AtomicU64) -> Result<(), RelayEnd> {
    let (mut way, mut messages) = (Way::Copy, 0_u32);
    loop {
        consume_budget().await;
        let step = SCRATCH.with_borrow_mut(|scratch| pass_once(from, to, way, messages, scratch))?;
        match step {
            Step::Nothing => from.readable().await?,
            Step::Passed(len) => {
                meter.moved(len, passed);
                (way, messages) = (Way::after(way, len, passed), messages.saturating_add(1));
            }
            Step::Kept { passed: len, rest } => {
                meter.moved(len, passed);
                (way, messages) = (Way::after(way, len + rest.len(), passed), messages.saturating_add(1));
                to.send_at_once();
                // On the heap: most relays never wait for a slow receiver, and need not have room for it.
                Box::pin(drain(rest, to, meter, passed)).await?;
            }
            Step::Fin => {
                meter.moved(0, passed);
                return to.pass_fin(meter.ends_last());
            }
        }
    }
}

/// How bytes are moved. Bulk goes through a pipe, which for less costs more calls than it saves copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Copy,
    Splice,
}

impl Way {
    /// The way for what comes next, after a step that found this much.
    fn after(way: Way, len: usize, passed: &AtomicU64) -> Way {
        match way {
            Way::Copy if len >= SPLICE_FROM_BYTES && passed.load(Relaxed) >= BULK_BYTES => Way::Splice,
            Way::Splice if len < COPY_BELOW_BYTES => Way::Copy,
            same => same,
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
        rest: Rest,
    },
    Fin,
}

/// What a slow receiver has yet to take.
enum Rest {
    Copied(Vec<u8>),
    InPipe(Pipe),
}

impl Rest {
    fn len(&self) -> usize {
        match self {
            Rest::Copied(bytes) => bytes.len(),
            Rest::InPipe(pipe) => pipe.len(),
        }
    }
}

fn pass_once(from: &End<'_>, to: &End<'_>, way: Way, messages: u32, scratch: &mut [u8]) -> Result<Step, RelayEnd> {
    let pipe = match way {
        Way::Copy => None,
        Way::Splice => Pipe::take(),
    };
    let Some(mut pipe) = pipe else {
        let got = from.try_read(scratch)?;
        return write_once(got, to, messages, scratch);
    };
    let got = from.try_splice(&mut pipe, scratch)?;
    if let Got::Spliced(len) = got {
        return empty_once(len, to, pipe);
    }
    pipe.give_back();
    write_once(got, to, messages, scratch)
}

/// Writes what was read, as far as the receiver has room.
fn write_once(got: Got, to: &End<'_>, messages: u32, scratch: &[u8]) -> Result<Step, RelayEnd> {
    let len = match got {
        Got::Read(len) => len,
        Got::Fin => return Ok(Step::Fin),
        Got::Nothing | Got::Spliced(_) => return Ok(Step::Nothing),
    };
    if messages == 1 {
        to.send_at_once();
    }
    match to.try_write(&scratch[..len])?.unwrap_or(0) {
        passed if passed == len => Ok(Step::Passed(len)),
        passed => Ok(Step::Kept { passed, rest: Rest::Copied(scratch[passed..len].to_vec()) }),
    }
}

/// Passes on what is in the pipe, as far as the receiver has room.
fn empty_once(len: usize, to: &End<'_>, mut pipe: Pipe) -> Result<Step, RelayEnd> {
    let passed = to.try_empty(&mut pipe)?.unwrap_or(0);
    if passed < len {
        return Ok(Step::Kept { passed, rest: Rest::InPipe(pipe) });
    }
    pipe.give_back();
    Ok(Step::Passed(len))
}

async fn drain(rest: Rest, to: &End<'_>, meter: &Meter, passed: &AtomicU64) -> Result<(), RelayEnd> {
    match rest {
        Rest::Copied(bytes) => drain_copied(&bytes, to, meter, passed).await,
        Rest::InPipe(pipe) => drain_pipe(pipe, to, meter, passed).await,
    }
}

async fn drain_copied(mut rest: &[u8], to: &End<'_>, meter: &Meter, passed: &AtomicU64) -> Result<(), RelayEnd> {
    while !rest.is_empty() {
        to.writable().await?;
        if let Some(len) = to.try_write(rest)? {
            meter.moved(len, passed);
            rest = &rest[len..];
        }
    }
    Ok(())
}

async fn drain_pipe(mut pipe: Pipe, to: &End<'_>, meter: &Meter, passed: &AtomicU64) -> Result<(), RelayEnd> {
    while pipe.len() > 0 {
        to.writable().await?;
        if let Some(len) = to.try_empty(&mut pipe)? {
            meter.moved(len, passed);
        }
    }
    pipe.give_back();
    Ok(())
}

/// Reads until FIN, for nobody. It is no progress: the limits hold on.
async fn discard(from: &End<'_>) -> Result<(), RelayEnd> {
    loop {
        consume_budget().await;
        match SCRATCH.with_borrow_mut(|scratch| from.try_read(scratch))? {
            Got::Nothing => from.readable().await?,
            Got::Read(_) | Got::Spliced(_) => {}
            Got::Fin => return Ok(()),
        }
    }
}
