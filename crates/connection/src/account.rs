//! What one connection adds to the counters: its bytes as they pass, its end exactly once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::stats::{CloseReason, ConnectionStats};

/// Counts a connection as accepted when made and as closed when dropped.
#[derive(Debug)]
pub(crate) struct Account {
    stats: Arc<ConnectionStats>,
    /// [`OPEN`], or the reason found so far plus one.
    ending: AtomicU8,
}

const OPEN: u8 = 0;

impl Account {
    pub(crate) fn open(stats: Arc<ConnectionStats>) -> Account {
        stats.count_accepted();
        Account { stats, ending: AtomicU8::new(OPEN) }
    }

    /// Notes the outcome of a read into a buffer that was not empty.
    pub(crate) fn read(&self, outcome: &io::Result<usize>) {
        match outcome {
            Ok(0) => self.note(CloseReason::ClientFin),
            Ok(len) => self.stats.count_received(*len),
            Err(error) => self.failed(error),
        }
    }

    /// Notes the outcome of a write.
    pub(crate) fn wrote(&self, outcome: &io::Result<usize>) {
        match outcome {
            Ok(len) => self.stats.count_sent(*len),
            Err(error) => self.failed(error),
        }
    }

    /// Notes an error, unless it only means "not now".
    pub(crate) fn failed(&self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
            // Either we shut down writing ourselves, which is noted by then, or a RST came behind the client's FIN.
            io::ErrorKind::BrokenPipe if self.reason() == Some(CloseReason::LocalClose) => {}
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => self.note(CloseReason::ClientReset),
            _ => self.note(CloseReason::Error),
        }
    }

    /// Notes that the connection ends, and how. The first orderly reason stands until a disorderly one comes, which then stands.
    pub(crate) fn note(&self, reason: CloseReason) {
        let replace = |before| match decode(before) {
            None => Some(reason as u8 + 1),
            Some(before) => (is_orderly(before) && !is_orderly(reason)).then_some(reason as u8 + 1),
        };
        // Its error says that what stood already stands, which is no failure.
        let _ = self.ending.fetch_update(Relaxed, Relaxed, replace);
    }

    fn reason(&self) -> Option<CloseReason> {
        decode(self.ending.load(Relaxed))
    }
}

fn decode(ending: u8) -> Option<CloseReason> {
    CloseReason::ALL.get(usize::from(ending.checked_sub(1)?)).copied()
}

impl Drop for Account {
    /// Dropped without a word, a connection was closed by us.
    fn drop(&mut self) {
        self.stats.count_closed(self.reason().unwrap_or(CloseReason::LocalClose));
    }
}

fn is_orderly(reason: CloseReason) -> bool {
    match reason {
        CloseReason::ClientFin | CloseReason::LocalClose => true,
        CloseReason::ClientReset | CloseReason::Aborted | CloseReason::Error | CloseReason::HandedOver => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reason counted for a connection to which these things happened in this order.
    fn counted(notes: impl FnOnce(&Account)) -> CloseReason {
        let stats = Arc::new(ConnectionStats::default());
        let account = Account::open(Arc::clone(&stats));
        assert_eq!(stats.open(), 1);
        notes(&account);
        drop(account);
        assert_eq!((stats.accepted(), stats.open()), (1, 0));
        let mut found = CloseReason::ALL.into_iter().filter(|reason| stats.closed(*reason) == 1);
        let reason = found.next().unwrap();
        assert_eq!(found.next(), None, "counted twice");
        reason
    }

    fn error(kind: io::ErrorKind) -> io::Result<usize> {
        Err(kind.into())
    }

    #[test]
    fn who_closes_first_is_the_one_who_closed() {
        assert_eq!(counted(|_| {}), CloseReason::LocalClose);
        assert_eq!(counted(|account| account.read(&Ok(0))), CloseReason::ClientFin);
        let both = counted(|account| {
            account.note(CloseReason::LocalClose);
            account.read(&Ok(0));
        });
        assert_eq!(both, CloseReason::LocalClose);
    }

    #[test]
    fn a_reset_overrides_a_fin_and_is_not_overridden() {
        let reset = counted(|account| {
            account.read(&Ok(0));
            account.read(&error(io::ErrorKind::ConnectionReset));
            account.note(CloseReason::Aborted);
        });
        assert_eq!(reset, CloseReason::ClientReset);
    }

    #[test]
    fn a_broken_pipe_is_a_reset_unless_we_broke_it() {
        let theirs = counted(|account| account.wrote(&error(io::ErrorKind::BrokenPipe)));
        assert_eq!(theirs, CloseReason::ClientReset);
        let ours = counted(|account| {
            account.note(CloseReason::LocalClose);
            account.wrote(&error(io::ErrorKind::BrokenPipe));
        });
        assert_eq!(ours, CloseReason::LocalClose);
    }

    #[test]
    fn not_now_is_no_ending() {
        assert_eq!(counted(|account| account.read(&error(io::ErrorKind::WouldBlock))), CloseReason::LocalClose);
        assert_eq!(counted(|account| account.read(&error(io::ErrorKind::TimedOut))), CloseReason::Error);
    }
}
