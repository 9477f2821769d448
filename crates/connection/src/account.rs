//! What one connection adds to the counters: its bytes as they pass, its end exactly once.

use std::io;
use std::sync::Arc;

use crate::record::Record;
use crate::stats::{CloseReason, ConnectionStats};

/// Counts a connection as accepted when made and as closed when dropped; its record tells the same of this one connection.
#[derive(Debug)]
pub(crate) struct Account {
    stats: Arc<ConnectionStats>,
    record: Arc<Record>,
}

impl Account {
    pub(crate) fn open(stats: Arc<ConnectionStats>, record: Record) -> Account {
        stats.count_accepted();
        Account { stats, record: Arc::new(record) }
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Notes the outcome of a read into something that had room.
    pub(crate) fn read(&self, outcome: Result<usize, &io::Error>) {
        match outcome {
            Ok(0) => self.note(CloseReason::ClientFin),
            Ok(len) => {
                self.stats.count_received(len);
                self.record.count_received(len);
            }
            Err(error) => self.failed(error),
        }
    }

    /// Notes the outcome of a write.
    pub(crate) fn wrote(&self, outcome: Result<usize, &io::Error>) {
        match outcome {
            Ok(len) => {
                self.stats.count_sent(len);
                self.record.count_sent(len);
            }
            Err(error) => self.failed(error),
        }
    }

    /// Notes an error, unless it only means "not now".
    pub(crate) fn failed(&self, error: &io::Error) {
        if self.record.broken().is_some() {
            return; // What follows the first error follows from it.
        }
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return,
            // Either we shut down writing ourselves, which is noted by then, or a RST came behind the client's FIN.
            io::ErrorKind::BrokenPipe if self.record.has_sent_fin() => return,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => self.note(CloseReason::ClientReset),
            _ if error.raw_os_error() == Some(libc::ETIMEDOUT) => self.note(CloseReason::UserTimeout),
            _ => self.note(CloseReason::Error),
        }
        self.record.broke(error);
    }

    /// Notes that the connection ends, and how. The first orderly reason stands until a disorderly one comes, which then stands.
    pub(crate) fn note(&self, reason: CloseReason) {
        self.record.note(reason);
    }
}

impl Drop for Account {
    /// Dropped without a word, a connection was closed by us.
    fn drop(&mut self) {
        self.record.end(CloseReason::LocalClose);
        self.stats.count_closed(self.record.reason().unwrap_or(CloseReason::LocalClose), self.record.age());
    }
}
#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use listener::Via;

    use super::*;
    use crate::connection::Handshake;

    fn record() -> Record {
        let nobody = (Ipv4Addr::LOCALHOST, 0).into();
        Record::new(nobody, nobody, Handshake { via: Via::Kernel, options: None, duration: None })
    }

    /// The reason counted for a connection to which these things happened in this order.
    fn counted(notes: impl FnOnce(&Account)) -> CloseReason {
        let stats = Arc::new(ConnectionStats::default());
        let account = Account::open(Arc::clone(&stats), record());
        assert_eq!(stats.open(), 1);
        notes(&account);
        drop(account);
        assert_eq!((stats.accepted(), stats.open()), (1, 0));
        assert_eq!(stats.durations().counts.iter().sum::<u64>(), 1, "each that is closed was open for some time");
        let mut found = CloseReason::ALL.into_iter().filter(|reason| stats.closed(*reason) == 1);
        let reason = found.next().unwrap();
        assert_eq!(found.next(), None, "counted twice");
        reason
    }

    fn error(kind: io::ErrorKind) -> io::Error {
        kind.into()
    }

    #[test]
    fn who_closes_first_is_the_one_who_closed() {
        assert_eq!(counted(|_| {}), CloseReason::LocalClose);
        assert_eq!(counted(|account| account.read(Ok(0))), CloseReason::ClientFin);
        let both = counted(|account| {
            account.note(CloseReason::LocalClose);
            account.read(Ok(0));
        });
        assert_eq!(both, CloseReason::LocalClose);
    }

    #[test]
    fn a_reset_overrides_a_fin_and_is_not_overridden() {
        let reset = counted(|account| {
            account.read(Ok(0));
            account.read(Err(&error(io::ErrorKind::ConnectionReset)));
            account.note(CloseReason::Aborted);
        });
        assert_eq!(reset, CloseReason::ClientReset);
    }

    #[test]
    fn a_broken_pipe_is_a_reset_unless_we_broke_it() {
        let theirs = counted(|account| account.wrote(Err(&error(io::ErrorKind::BrokenPipe))));
        assert_eq!(theirs, CloseReason::ClientReset);
        let ours = counted(|account| {
            account.note(CloseReason::LocalClose);
            account.wrote(Err(&error(io::ErrorKind::BrokenPipe)));
        });
        assert_eq!(ours, CloseReason::LocalClose);
    }

    #[test]
    fn what_cut_a_connection_short_stands_whatever_else_comes_of_it() {
        for cut in [CloseReason::IdleTimeout, CloseReason::Drained, CloseReason::Deadline] {
            let reason = counted(|account| {
                account.read(Ok(0));
                account.note(cut);
                account.note(CloseReason::Aborted);
                account.wrote(Err(&error(io::ErrorKind::ConnectionReset)));
            });
            assert_eq!(reason, cut);
        }
    }

    #[test]
    fn the_kernel_giving_up_is_a_user_timeout() {
        let given_up = io::Error::from_raw_os_error(libc::ETIMEDOUT);
        assert_eq!(counted(|account| account.read(Err(&given_up))), CloseReason::UserTimeout);
    }

    #[test]
    fn record_outlives_the_account_and_stands_still() {
        let account = Account::open(Arc::default(), record());
        let record = Arc::clone(account.record());
        account.read(Ok(7));
        account.wrote(Ok(5));
        assert_eq!(record.summary(), None);
        drop(account);
        let summary = record.summary().unwrap();
        assert_eq!((summary.received_bytes, summary.sent_bytes), (7, 5));
        assert_eq!(summary.reason, CloseReason::LocalClose);
        assert_eq!(record.summary(), Some(summary));
    }

    #[test]
    fn not_now_is_no_ending() {
        assert_eq!(counted(|account| account.read(Err(&error(io::ErrorKind::WouldBlock)))), CloseReason::LocalClose);
        assert_eq!(counted(|account| account.read(Err(&error(io::ErrorKind::TimedOut)))), CloseReason::Error);
    }
}
