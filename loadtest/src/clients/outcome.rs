//! What becomes of a client.

use std::io::{Error, ErrorKind};

/// What became of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every byte came back, then the end.
    Ok,
    /// RST in answer to its SYN.
    Refused,
    /// No connection by the deadline.
    ConnectTimeout,
    /// A connection, but not all of its bytes by the deadline.
    Timeout,
    /// RST in the middle.
    Reset,
    /// Other bytes than it had sent, or more, or an end before the last one.
    WrongData,
    /// It could not even begin: too many are under way, or no port or descriptor is left.
    NotStarted,
    /// Anything else.
    Other,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 8] = [
        Outcome::Ok,
        Outcome::Refused,
        Outcome::ConnectTimeout,
        Outcome::Timeout,
        Outcome::Reset,
        Outcome::WrongData,
        Outcome::NotStarted,
        Outcome::Other,
    ];

    /// As results name it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Refused => "refused",
            Outcome::ConnectTimeout => "connect-timeout",
            Outcome::Timeout => "timeout",
            Outcome::Reset => "reset",
            Outcome::WrongData => "wrong-data",
            Outcome::NotStarted => "not-started",
            Outcome::Other => "other",
        }
    }

    /// Of an error that `connect` gave.
    pub fn of_connect(error: &Error) -> Outcome {
        match error.kind() {
            ErrorKind::ConnectionRefused => Outcome::Refused,
            ErrorKind::TimedOut => Outcome::ConnectTimeout,
            ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => Outcome::NotStarted,
            _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => Outcome::NotStarted,
            _ => Outcome::of_exchange(error),
        }
    }

    /// Of an error in the middle.
    pub fn of_exchange(error: &Error) -> Outcome {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Outcome::Reset,
            ErrorKind::TimedOut => Outcome::Timeout,
            ErrorKind::UnexpectedEof => Outcome::WrongData,
            _ => Outcome::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_when_they_come() {
        let of = |kind: ErrorKind| Error::from(kind);
        assert_eq!(Outcome::of_connect(&of(ErrorKind::ConnectionRefused)), Outcome::Refused);
        assert_eq!(Outcome::of_connect(&of(ErrorKind::TimedOut)), Outcome::ConnectTimeout);
        assert_eq!(Outcome::of_exchange(&of(ErrorKind::TimedOut)), Outcome::Timeout);
        assert_eq!(Outcome::of_exchange(&of(ErrorKind::ConnectionReset)), Outcome::Reset);
        assert_eq!(Outcome::of_connect(&Error::from_raw_os_error(libc::EMFILE)), Outcome::NotStarted);
        assert_eq!(Outcome::of_connect(&of(ErrorKind::PermissionDenied)), Outcome::Other);
    }

    #[test]
    fn names_are_distinct() {
        let mut names = Outcome::ALL.map(Outcome::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Outcome::ALL.len());
    }
}
