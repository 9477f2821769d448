//! What is told of one connection, while it lives and when it is gone.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use listener::TcpState;
use tokio::time::Instant;

use crate::connection::Handshake;
use crate::stats::CloseReason;

/// What there is to say about a connection at its end, as for a line of an access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseSummary {
    /// [`ConnectionHandle::id`](crate::ConnectionHandle::id).
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address the client connected to.
    pub local: SocketAddr,
    /// Bytes the application read.
    pub received_bytes: u64,
    /// Bytes the application wrote. That they arrived is certain only after a [clean close](crate::CloseOutcome::Clean).
    pub sent_bytes: u64,
    /// From the moment the application was given the connection until it let go of it.
    pub duration: Duration,
    /// Why it ended.
    pub reason: CloseReason,
}

/// The facts of one connection. They outlive it for as long as somebody holds a handle; at most 256 bytes.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) handshake: Handshake,
    pub(crate) opened: Instant,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// [`OPEN`], or the reason found so far plus one.
    ending: AtomicU8,
    /// [`FIN_SENT`] and its like.
    fins: AtomicU8,
    /// The first errno that ended it, or 0.
    broken: AtomicI32,
    duration: OnceLock<Duration>,
    /// Whether handles may still use the socket; locked while one does.
    lent: Mutex<bool>,
}

const OPEN: u8 = 0;

// What happened of the two FINs.
const FIN_SENT: u8 = 1;
const FIN_RECEIVED: u8 = 2;
const FIN_RECEIVED_FIRST: u8 = 4;

/// Ids count up from 1 and are not used twice: at a million connections a second they last half a million years.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Record {
    pub(crate) fn new(local: SocketAddr, peer: SocketAddr, handshake: Handshake) -> Record {
        Record {
            id: NEXT_ID.fetch_add(1, Relaxed),
            local,
            peer,
            handshake,
            opened: Instant::now(),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            ending: AtomicU8::new(OPEN),
            fins: AtomicU8::new(0),
            broken: AtomicI32::new(0),
            duration: OnceLock::new(),
            lent: Mutex::new(true),
        }
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Relaxed)
    }

    /// See [`Account::note`](crate::account::Account::note).
    pub(crate) fn note(&self, reason: CloseReason) {
        match reason {
            // Of what is broken, no FIN goes out any more.
            CloseReason::LocalClose if self.broken().is_none() => drop(self.fins.fetch_or(FIN_SENT, Relaxed)),
            CloseReason::ClientFin if self.has_sent_fin() => drop(self.fins.fetch_or(FIN_RECEIVED, Relaxed)),
            CloseReason::ClientFin => drop(self.fins.fetch_or(FIN_RECEIVED | FIN_RECEIVED_FIRST, Relaxed)),
            _ => {}
        }
        let replace = |before| match decode(before) {
            None => Some(reason as u8 + 1),
            Some(before) => (is_orderly(before) && !is_orderly(reason)).then_some(reason as u8 + 1),
        };
        // Its error says that what stood already stands, which is no failure.
        let _ = self.ending.fetch_update(Relaxed, Relaxed, replace);
    }

    /// The reason found so far.
    pub(crate) fn reason(&self) -> Option<CloseReason> {
        decode(self.ending.load(Relaxed))
    }

    /// Whether we closed, or shut down writing.
    pub(crate) fn has_sent_fin(&self) -> bool {
        self.fins.load(Relaxed) & FIN_SENT != 0
    }

    /// The states that the connection has gone through, as far as this process has part in them: what it read and sent.
    pub(crate) fn states(&self) -> Vec<TcpState> {
        let fins = self.fins.load(Relaxed);
        let (sent, received) = (fins & FIN_SENT != 0, fins & FIN_RECEIVED != 0);
        let mut states = vec![TcpState::Established];
        states.extend(
            match (fins & FIN_RECEIVED_FIRST != 0, sent, received) {
                (true, false, _) => [Some(TcpState::CloseWait), None],
                (true, true, _) => [Some(TcpState::CloseWait), Some(TcpState::LastAck)],
                (false, true, true) => [Some(TcpState::FinWait1), Some(TcpState::TimeWait)],
                (false, true, false) => [Some(TcpState::FinWait1), None],
                (false, false, _) => [None, None],
            }
            .into_iter()
            .flatten(),
        );
        if self.reason().is_some_and(|reason| !is_orderly(reason)) && !(sent && received) {
            states.push(TcpState::Closed);
        }
        states
    }

    /// Notes what the kernel said when the connection broke. The first such error stands.
    pub(crate) fn broke(&self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        // Its error says that the connection was broken already.
        let _ = self.broken.compare_exchange(0, errno, Relaxed, Relaxed);
    }

    /// The error by which the connection broke, as errno.
    pub(crate) fn broken(&self) -> Option<i32> {
        Some(self.broken.load(Relaxed)).filter(|errno| *errno != 0)
    }

    /// The end: `unnoted` is the reason if none was noted. From here on the record stands still.
    pub(crate) fn end(&self, unnoted: CloseReason) {
        if self.reason().is_none() {
            self.note(unnoted);
        }
        self.duration.get_or_init(|| self.opened.elapsed());
    }

    /// From the beginning to the end, or to now.
    pub(crate) fn age(&self) -> Duration {
        self.duration.get().copied().unwrap_or_else(|| self.opened.elapsed())
    }

    /// `None` while the connection lives.
    pub(crate) fn summary(&self) -> Option<CloseSummary> {
        Some(CloseSummary {
            duration: *self.duration.get()?,
            reason: self.reason()?,
            id: self.id,
            peer: self.peer,
            local: self.local,
            received_bytes: self.received_bytes(),
            sent_bytes: self.sent_bytes(),
        })
    }

    /// Held by a handle while it uses the socket; see [`take_back`](Record::take_back).
    pub(crate) fn lent(&self) -> MutexGuard<'_, bool> {
        // The value is whole whatever happened to a holder of the lock.
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on no handle uses the socket.
    pub(crate) fn take_back(&self) {
        *self.lent() = false;
    }
}

fn decode(ending: u8) -> Option<CloseReason> {
    CloseReason::ALL.get(usize::from(ending.checked_sub(1)?)).copied()
}

fn is_orderly(reason: CloseReason) -> bool {
    match reason {
        CloseReason::ClientFin | CloseReason::LocalClose => true,
        CloseReason::ClientReset
        | CloseReason::Aborted
        | CloseReason::Error
        | CloseReason::HandedOver
        | CloseReason::FirstByteTimeout
        | CloseReason::IdleTimeout
        | CloseReason::HalfCloseTimeout
        | CloseReason::UserTimeout
        | CloseReason::Deadline
        | CloseReason::Drained
        | CloseReason::Refused
        | CloseReason::Overload => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_are_those_of_who_closed_first() {
        use CloseReason::{Aborted, ClientFin, ClientReset, Drained, LocalClose};
        let addr: SocketAddr = "198.18.0.1:80".parse().unwrap();
        let handshake = Handshake { via: listener::Via::Kernel, options: None, duration: None };
        for (notes, expected) in [
            (&[][..], "ESTABLISHED"),
            (&[ClientFin, LocalClose][..], "ESTABLISHED CLOSE-WAIT LAST-ACK"),
            (&[LocalClose, ClientFin][..], "ESTABLISHED FIN-WAIT-1 TIME-WAIT"),
            (&[Drained, LocalClose, ClientFin][..], "ESTABLISHED FIN-WAIT-1 TIME-WAIT"),
            (&[ClientFin, ClientReset][..], "ESTABLISHED CLOSE-WAIT CLOSED"),
            (&[LocalClose][..], "ESTABLISHED FIN-WAIT-1"),
            (&[Aborted][..], "ESTABLISHED CLOSED"),
        ] {
            let record = Record::new(addr, addr, handshake);
            notes.iter().for_each(|reason| record.note(*reason));
            let names: Vec<_> = record.states().iter().map(ToString::to_string).collect();
            assert_eq!(names.join(" "), expected, "{notes:?}");
        }
    }

    #[test]
    fn record_is_as_small_as_its_doc_says() {
        assert!(size_of::<Record>() <= 256, "{}", size_of::<Record>());
    }
}
