//! How long a client may take, and for what.
//!
//! Two kinds, which need each other. The limits on *progress* are kept here, by timers that run while somebody waits to read or to write:
//! they see what the application sees, and a client that answers the kernel but says nothing meets them. The limits on the *network* are
//! the kernel's, as socket options: they see acknowledgments, and a client that is gone, or that keeps its window shut, meets them
//! also while nobody waits.
//!
//! | a client that | meets |
//! |---|---|
//! | connects and says nothing | `first_byte` |
//! | falls silent, or takes nothing of what we write | `idle` |
//! | has closed its half, or reads on after ours is closed, and then stops | `half_close` |
//! | does not acknowledge what it was sent, or keeps its window at zero and answers each probe | `user_timeout` |
//! | vanishes while nothing is on its way | `keepalive` |
//!
//! None of them bounds a client that makes *some* progress: one that takes a byte each second is slow, not idle. What it can hold is
//! bounded in bytes, by the socket's send buffer; in time, by whatever limit the application sets on the whole of an answer.

mod watch;

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

pub use watch::Expired;
pub(crate) use watch::{Direction, Progress, Watch};

/// How long a client may take; `None` sets no limit. See [`Connection::set_timeouts`](crate::Connection::set_timeouts).
///
/// ```
/// use std::time::Duration;
/// use connection::{Keepalive, Timeouts};
///
/// let timeouts = Timeouts {
///     first_byte: Some(Duration::from_secs(10)),
///     idle: Some(Duration::from_secs(300)),
///     half_close: Some(Duration::from_secs(30)),
///     user_timeout: Some(Duration::from_secs(60)),
///     keepalive: Some(Keepalive { idle: Duration::from_secs(120), interval: Duration::from_secs(15), count: 4 }),
/// };
/// timeouts.check().unwrap();
///
/// let zero = Timeouts { idle: Some(Duration::ZERO), ..Timeouts::default() };
/// assert_eq!(zero.check().unwrap_err().to_string(), "idle is 0ns: it must be at least 1ms");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the handshake, or rather from the moment the application was given the connection, to the client's first byte: a read that
    /// waits longer fails. At least 1 ms. In a protocol in which the server speaks first it is the limit for the client's answer.
    pub first_byte: Option<Duration>,
    /// Without a byte in either direction: a read or write that waits longer fails. At least 1 ms.
    ///
    /// A byte written counts when the socket takes it, so a client that reads nothing is idle once the send buffer is full.
    pub idle: Option<Duration>,
    /// The same once either side has sent FIN; each byte and the FIN itself begin the count anew. At least 1 ms. `None`: `idle` holds on.
    pub half_close: Option<Duration>,
    /// How long data may stay unacknowledged, or the client's window at zero, before the kernel gives the connection up
    /// with ETIMEDOUT (RFC 5482, `TCP_USER_TIMEOUT`). 1 ms to 24 days. `None`: the system's, which is 15 retransmissions
    /// (some 15 minutes) and no limit for a client that answers window probes (RFC 9293 §3.8.6.1).
    ///
    /// With keepalive it also takes the place of [`Keepalive::count`] (tcp(7)).
    pub user_timeout: Option<Duration>,
    /// Probes while nothing is on its way (RFC 9293 §3.8.4). `None`: off, as in a new socket.
    pub keepalive: Option<Keepalive>,
}

/// When the kernel asks whether a silent client is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe (`TCP_KEEPIDLE`). 1 to 32767 s; fractions of a second are cut off.
    pub idle: Duration,
    /// Between probes that are not answered (`TCP_KEEPINTVL`). 1 to 32767 s; fractions of a second are cut off.
    pub interval: Duration,
    /// Probes without an answer after which the connection is given up with ETIMEDOUT (`TCP_KEEPCNT`). 1 to 127.
    pub count: u32,
}

/// The shortest limit: what tokio's timers can tell apart.
const PROGRESS_MIN: Duration = Duration::from_millis(1);
/// `TCP_USER_TIMEOUT` is an `int` of milliseconds.
const USER_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);
/// `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL` of the kernel.
const KEEPALIVE_MAX: Duration = Duration::from_secs(32767);
/// `MAX_TCP_KEEPCNT` of the kernel.
const KEEPALIVE_COUNT_MAX: u32 = 127;

impl Timeouts {
    /// Whether each value is within its range.
    ///
    /// # Errors
    ///
    /// Names the first field that is not, its value, and the range.
    pub fn check(&self) -> Result<(), InvalidTimeout> {
        for (key, limit) in [("first_byte", self.first_byte), ("idle", self.idle), ("half_close", self.half_close)] {
            at_least(key, limit, PROGRESS_MIN)?;
        }
        within("user_timeout", self.user_timeout, PROGRESS_MIN, USER_TIMEOUT_MAX)?;
        self.keepalive.as_ref().map_or(Ok(()), Keepalive::check)
    }

    /// Whether the kernel has to keep any of them.
    pub(crate) fn concern_the_kernel(&self) -> bool {
        self.user_timeout.is_some() || self.keepalive.is_some()
    }

    /// Sets what the kernel keeps.
    pub(crate) fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_user_timeout(self.user_timeout)?;
        match &self.keepalive {
            Some(keepalive) => socket.set_tcp_keepalive(&keepalive.option()),
            None => socket.set_keepalive(false),
        }
    }
}

impl Keepalive {
    fn check(&self) -> Result<(), InvalidTimeout> {
        let second = Duration::from_secs(1);
        within("keepalive.idle", Some(self.idle), second, KEEPALIVE_MAX)?;
        within("keepalive.interval", Some(self.interval), second, KEEPALIVE_MAX)?;
        if (1..=KEEPALIVE_COUNT_MAX).contains(&self.count) {
            return Ok(());
        }
        Err(InvalidTimeout(format!("keepalive.count is {}: it must be 1 to {KEEPALIVE_COUNT_MAX}", self.count)))
    }

    fn option(&self) -> TcpKeepalive {
        TcpKeepalive::new().with_time(self.idle).with_interval(self.interval).with_retries(self.count)
    }
}

fn at_least(key: &str, value: Option<Duration>, min: Duration) -> Result<(), InvalidTimeout> {
    match value {
        Some(value) if value < min => Err(InvalidTimeout(format!("{key} is {value:?}: it must be at least {min:?}"))),
        _ => Ok(()),
    }
}

fn within(key: &str, value: Option<Duration>, min: Duration, max: Duration) -> Result<(), InvalidTimeout> {
    match value {
        Some(value) if !(min..=max).contains(&value) => {
            Err(InvalidTimeout(format!("{key} is {value:?}: it must be {min:?} to {max:?}")))
        }
        _ => Ok(()),
    }
}

/// A field of [`Timeouts`] that is out of its range; the message names the field, its value and the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTimeout(String);

impl fmt::Display for InvalidTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for InvalidTimeout {}

impl From<InvalidTimeout> for io::Error {
    fn from(error: InvalidTimeout) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPALIVE: Keepalive = Keepalive { idle: Duration::from_secs(1), interval: Duration::from_secs(1), count: 1 };

    fn refused(timeouts: Timeouts) -> String {
        timeouts.check().unwrap_err().to_string()
    }

    #[test]
    fn no_limits_and_the_least_limits_are_legal() {
        assert_eq!(Timeouts::default().check(), Ok(()));
        let least = Some(Duration::from_millis(1));
        let all = Timeouts {
            first_byte: least,
            idle: least,
            half_close: least,
            user_timeout: least,
            keepalive: Some(KEEPALIVE),
        };
        assert_eq!(all.check(), Ok(()));
        let most = Keepalive { idle: KEEPALIVE_MAX, interval: KEEPALIVE_MAX, count: 127 };
        let all = Timeouts { user_timeout: Some(USER_TIMEOUT_MAX), keepalive: Some(most), ..all };
        assert_eq!(all.check(), Ok(()));
    }

    #[test]
    fn errors_name_the_key_the_value_and_the_range() {
        let none = Timeouts::default();
        let short = Some(Duration::from_micros(999));
        assert_eq!(refused(Timeouts { first_byte: short, ..none }), "first_byte is 999µs: it must be at least 1ms");
        assert_eq!(refused(Timeouts { half_close: short, ..none }), "half_close is 999µs: it must be at least 1ms");
        assert_eq!(
            refused(Timeouts { user_timeout: Some(Duration::from_secs(2_147_484)), ..none }),
            "user_timeout is 2147484s: it must be 1ms to 2147483.647s"
        );
        let of = |keepalive| refused(Timeouts { keepalive: Some(keepalive), ..none });
        assert_eq!(
            of(Keepalive { idle: Duration::from_millis(999), ..KEEPALIVE }),
            "keepalive.idle is 999ms: it must be 1s to 32767s"
        );
        assert_eq!(
            of(Keepalive { interval: Duration::from_secs(32768), ..KEEPALIVE }),
            "keepalive.interval is 32768s: it must be 1s to 32767s"
        );
        assert_eq!(of(Keepalive { count: 128, ..KEEPALIVE }), "keepalive.count is 128: it must be 1 to 127");
    }
}
