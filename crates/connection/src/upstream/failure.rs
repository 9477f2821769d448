//! Why a server could not be connected to, in a few words.

use std::io;

use super::dial::is_ours;

/// What kind of failure a connect ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectFailure {
    /// Nobody listens there, or a Unix socket's path is not there.
    Refused,
    /// No answer within [`connect_timeout`](super::PoolConfig::connect_timeout), or from the kernel's own patience.
    Timeout,
    /// No way leads there, or a router or firewall says so.
    Unreachable,
    /// The server reset the connection before it had the header.
    Reset,
    /// We have no descriptor, memory or local port for it, which is not the server's fault.
    NoResources,
    /// Any other error.
    Other,
}

impl ConnectFailure {
    /// Every kind, in the order of the enum; `ALL[kind as usize] == kind`.
    pub const ALL: [ConnectFailure; 6] = [
        ConnectFailure::Refused,
        ConnectFailure::Timeout,
        ConnectFailure::Unreachable,
        ConnectFailure::Reset,
        ConnectFailure::NoResources,
        ConnectFailure::Other,
    ];

    /// The value of a `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            ConnectFailure::Refused => "refused",
            ConnectFailure::Timeout => "timeout",
            ConnectFailure::Unreachable => "unreachable",
            ConnectFailure::Reset => "reset",
            ConnectFailure::NoResources => "no_resources",
            ConnectFailure::Other => "other",
        }
    }

    pub(super) fn of(error: &io::Error) -> ConnectFailure {
        use io::ErrorKind as Kind;
        match error.kind() {
            _ if is_ours(error) => ConnectFailure::NoResources,
            Kind::ConnectionRefused | Kind::NotFound => ConnectFailure::Refused,
            Kind::TimedOut => ConnectFailure::Timeout,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => ConnectFailure::Unreachable,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => ConnectFailure::Reset,
            _ => ConnectFailure::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_sits_at_its_own_index() {
        for (index, kind) in ConnectFailure::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }

    #[test]
    fn errno_says_which() {
        for (errno, kind) in [
            (libc::ECONNREFUSED, ConnectFailure::Refused),
            (libc::ENOENT, ConnectFailure::Refused),
            (libc::ETIMEDOUT, ConnectFailure::Timeout),
            (libc::EHOSTUNREACH, ConnectFailure::Unreachable),
            (libc::ENETUNREACH, ConnectFailure::Unreachable),
            (libc::ECONNRESET, ConnectFailure::Reset),
            (libc::EPIPE, ConnectFailure::Reset),
            (libc::EMFILE, ConnectFailure::NoResources),
            (libc::EADDRNOTAVAIL, ConnectFailure::NoResources),
            (libc::EACCES, ConnectFailure::Other),
        ] {
            assert_eq!(ConnectFailure::of(&io::Error::from_raw_os_error(errno)), kind, "{errno}");
        }
    }
}
