//! The timers that run while somebody waits.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::Timeouts;
use crate::record::Record;
use crate::stats::CloseReason;

/// The limit that a client exceeded, and how long that is: what is inside the [`io::Error`] of kind
/// [`TimedOut`](io::ErrorKind::TimedOut) by which a read or write fails.
///
/// The ETIMEDOUT of the kernel, which is of the same kind, has nothing inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// [`Timeouts::first_byte`](crate::Timeouts::first_byte).
    FirstByte(Duration),
    /// [`Timeouts::idle`](crate::Timeouts::idle).
    Idle(Duration),
    /// [`Timeouts::half_close`](crate::Timeouts::half_close).
    HalfClose(Duration),
}

impl Expired {
    fn reason(self) -> CloseReason {
        match self {
            Expired::FirstByte(_) => CloseReason::FirstByteTimeout,
            Expired::Idle(_) => CloseReason::IdleTimeout,
            Expired::HalfClose(_) => CloseReason::HalfCloseTimeout,
        }
    }
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expired::FirstByte(limit) => write!(f, "the client's first byte did not come within {limit:?}"),
            Expired::Idle(limit) => write!(f, "no byte moved for {limit:?}"),
            Expired::HalfClose(limit) => write!(f, "half-closed, and no byte moved for {limit:?}"),
        }
    }
}

impl Error for Expired {}

impl From<Expired> for io::Error {
    fn from(expired: Expired) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, expired)
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// How far a connection has come; both directions' watches look at it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Microseconds from the connection's beginning to the last byte that moved, or the last FIN.
    last: AtomicU64,
    half_closed: AtomicBool,
    /// Who waits, reading and writing, under a limit that the first FIN of either side replaces.
    waiting: Mutex<[Option<Waker>; 2]>,
}

impl Progress {
    fn moved(&self, record: &Record) {
        // Behind half a million years it would be cut off.
        self.last.store(record.opened.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    /// One side has sent FIN, the first or the second.
    pub(crate) fn half_closed(&self, record: &Record) {
        self.moved(record);
        if !self.half_closed.swap(true, Ordering::SeqCst) {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().flatten().for_each(Waker::wake);
        }
    }

    fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::SeqCst)
    }

    /// Has the first FIN wake this task.
    fn wake_at_half_close(&self, direction: Direction, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut waiting[direction as usize] {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

/// What watches over one direction. Without limits it costs nothing, and does nothing.
#[derive(Debug)]
pub(crate) struct Watch {
    direction: Direction,
    limits: Option<Box<Limits>>,
}

/// The limits of one direction, and its timer: made at the first wait, and not touched by progress, only looked at when it goes off.
#[derive(Debug)]
struct Limits {
    first_byte: Option<Duration>,
    idle: Option<Duration>,
    half_close: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    pub(crate) fn without_limits(direction: Direction) -> Watch {
        Watch { direction, limits: None }
    }

    /// With these limits; the count begins now, that to the first byte with the connection.
    pub(crate) fn with_limits(
        direction: Direction,
        timeouts: &Timeouts,
        progress: &Progress,
        record: &Record,
    ) -> Watch {
        let Timeouts { first_byte, idle, half_close, user_timeout: _, keepalive: _ } = *timeouts;
        if (first_byte, idle, half_close) == (None, None, None) {
            return Watch::without_limits(direction);
        }
        progress.moved(record);
        let first_byte = first_byte.filter(|_| direction == Direction::Read);
        Watch { direction, limits: Some(Box::new(Limits { first_byte, idle, half_close, timer: None })) }
    }

    /// Looks at the clock after an operation: progress begins the count anew, a wait that is over its limit becomes an error.
    pub(crate) fn judge<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        progress: &Progress,
        record: &Record,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        let Some(limits) = &mut self.limits else { return polled };
        if polled.is_ready() {
            progress.moved(record);
            return polled;
        }
        if limits.half_close.is_some() && !progress.is_half_closed() {
            // Before the limits are looked at: a FIN in between wakes us.
            progress.wake_at_half_close(self.direction, cx.waker());
        }
        let expired = ready!(limits.wait(progress, record, cx));
        record.note(expired.reason());
        Poll::Ready(Err(expired.into()))
    }
}

impl Limits {
    fn wait(&mut self, progress: &Progress, record: &Record, cx: &mut Context<'_>) -> Poll<Expired> {
        loop {
            let Some((deadline, expired)) = self.deadline(progress, record) else { return Poll::Pending };
            if deadline <= Instant::now() {
                return Poll::Ready(expired);
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            // A timer that goes off too early is looked at again then; that is cheaper than setting it at each byte.
            if timer.is_elapsed() || timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }

    /// The earliest deadline, and what it is the deadline of.
    fn deadline(&self, progress: &Progress, record: &Record) -> Option<(Instant, Expired)> {
        let half_close = self.half_close.filter(|_| progress.is_half_closed());
        let quiet = half_close.map(Expired::HalfClose).or(self.idle.map(Expired::Idle));
        let last = Duration::from_micros(progress.last.load(Ordering::Relaxed));
        let quiet = quiet.and_then(|expired| deadline(record, last, expired));
        let silent = self.first_byte.filter(|_| record.received_bytes() == 0).map(Expired::FirstByte);
        let silent = silent.and_then(|expired| deadline(record, Duration::ZERO, expired));
        silent.into_iter().chain(quiet).min_by_key(|(deadline, _)| *deadline)
    }
}

/// A limit so far off that the clock cannot express it is none.
fn deadline(record: &Record, since: Duration, expired: Expired) -> Option<(Instant, Expired)> {
    let (Expired::FirstByte(limit) | Expired::Idle(limit) | Expired::HalfClose(limit)) = expired;
    Some((record.opened.checked_add(since.saturating_add(limit))?, expired))
}
