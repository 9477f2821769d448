//! What an operator says about a pool.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::server::{Server, ServerParseError};
use crate::proxy_protocol::ProxyVersion;

/// Servers in one pool, at most: as many as one word has bits, so that choosing among them takes no lock.
pub const SERVERS_MAX: usize = 64;
/// Times are at least this long, so that a slip of the unit does not make a busy loop.
const TIME_MIN: Duration = Duration::from_millis(1);
/// And at most this long.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Which servers there are, and how clients are spread over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The servers: 1 to [`SERVERS_MAX`]. One that is named twice counts twice.
    pub servers: Vec<Server>,
    /// How the next one is chosen. Default: round robin.
    pub balance: Balance,
    /// The time for one try: connecting, and handing over the PROXY header. 1 ms to a day; default 3 s.
    pub connect_timeout: Duration,
    /// Servers tried for one client, at least 1; default 3. None is tried twice for the same client, so
    /// a client waits at most `tries` times `connect_timeout`. With 1 and without checks, a client fails now and then for finding out
    /// whether a server is back.
    pub tries: u32,
    /// How servers are checked. Default: not at all; then only failing clients tell that one is down.
    pub health: Option<HealthConfig>,
    /// The form in which servers are told who the client is. Default: they are not.
    pub send_proxy: Option<ProxyVersion>,
}

/// How the next server is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest connections of this pool, those being made included; in turn among equals.
    LeastConnections,
}

/// How a server is checked: by connecting to it, and closing again. With `send_proxy`, a header that speaks for no client (LOCAL) is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// From the end of one check to the start of the next; a tenth more or less, so that checks do not fall into step. 1 ms to a
    /// day; default 2 s.
    pub interval: Duration,
    /// The time a check may take. 1 ms to a day; default 1 s.
    pub timeout: Duration,
    /// Successes in a row, of checks and of clients, after which a server that was down for a second is up. At least 1; default 2.
    pub rise: u32,
    /// Failures in a row, of checks and of clients, after which a server that was up is down. At least 1; default 3.
    pub fall: u32,
}

impl PoolConfig {
    /// These servers, and defaults for the rest.
    pub fn new(servers: Vec<Server>) -> PoolConfig {
        PoolConfig {
            servers,
            balance: Balance::default(),
            connect_timeout: Duration::from_secs(3),
            tries: 3,
            health: None,
            send_proxy: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), PoolConfigError> {
        within("servers", self.servers.len(), 1, SERVERS_MAX)?;
        for server in &self.servers {
            server.check()?;
        }
        time_within("connect_timeout", self.connect_timeout)?;
        within("tries", self.tries, 1, u32::MAX)?;
        let Some(health) = self.health else { return Ok(()) };
        time_within("health.interval", health.interval)?;
        time_within("health.timeout", health.timeout)?;
        within("health.rise", health.rise, 1, u32::MAX)?;
        within("health.fall", health.fall, 1, u32::MAX)
    }
}

impl Default for HealthConfig {
    fn default() -> HealthConfig {
        HealthConfig { interval: Duration::from_secs(2), timeout: Duration::from_secs(1), rise: 2, fall: 3 }
    }
}

/// A pool that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PoolConfigError {
    /// A value outside of its range.
    #[error("{key} = {value}; legal: {min} to {max}")]
    Range {
        /// The field.
        key: &'static str,
        /// Its value, as text.
        value: String,
        /// The least legal value.
        min: String,
        /// The greatest legal value.
        max: String,
    },
    /// A server that can never be connected to.
    #[error("servers: {0}")]
    Server(#[from] ServerParseError),
}

fn time_within(key: &'static str, value: Duration) -> Result<(), PoolConfigError> {
    let legal = (TIME_MIN..=TIME_MAX).contains(&value);
    if legal {
        Ok(())
    } else {
        Err(range(key, format_args!("{value:?}"), format_args!("{TIME_MIN:?}"), format_args!("{TIME_MAX:?}")))
    }
}

fn within<T: PartialOrd + fmt::Display>(key: &'static str, value: T, min: T, max: T) -> Result<(), PoolConfigError> {
    let legal = min <= value && value <= max;
    if legal { Ok(()) } else { Err(range(key, value, min, max)) }
}

fn range(
    key: &'static str,
    value: impl fmt::Display,
    min: impl fmt::Display,
    max: impl fmt::Display,
) -> PoolConfigError {
    PoolConfigError::Range { key, value: value.to_string(), min: min.to_string(), max: max.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> PoolConfig {
        PoolConfig { health: Some(HealthConfig::default()), ..PoolConfig::new(vec!["192.0.2.1:80".parse().unwrap()]) }
    }

    #[test]
    fn defaults_are_legal() {
        assert_eq!(usual().check(), Ok(()));
    }

    #[test]
    fn refusals_name_key_value_and_range() {
        let health = |change: fn(&mut HealthConfig)| {
            let mut health = HealthConfig::default();
            change(&mut health);
            PoolConfig { health: Some(health), ..usual() }
        };
        let crowd = vec![usual().servers[0].clone(); SERVERS_MAX + 1];
        for (config, refusal) in [
            (PoolConfig { servers: Vec::new(), ..usual() }, "servers = 0; legal: 1 to 64"),
            (PoolConfig { servers: crowd, ..usual() }, "servers = 65; legal: 1 to 64"),
            (PoolConfig { tries: 0, ..usual() }, "tries = 0; legal: 1 to 4294967295"),
            (PoolConfig { connect_timeout: Duration::ZERO, ..usual() }, "connect_timeout = 0ns; legal: 1ms to 86400s"),
            (health(|health| health.rise = 0), "health.rise = 0; legal: 1 to 4294967295"),
            (health(|health| health.fall = 0), "health.fall = 0; legal: 1 to 4294967295"),
            (health(|health| health.interval = 2 * TIME_MAX), "health.interval = 172800s; legal: 1ms to 86400s"),
            (health(|health| health.timeout = Duration::ZERO), "health.timeout = 0ns; legal: 1ms to 86400s"),
        ] {
            assert_eq!(config.check().unwrap_err().to_string(), refusal);
        }
    }

    #[test]
    fn server_that_is_none_is_refused_although_nothing_was_parsed() {
        let config = PoolConfig { servers: vec![Server::Unix("app.sock".into())], ..usual() };
        assert!(config.check().unwrap_err().to_string().starts_with("servers: \"app.sock\" is no path"));
    }
}
