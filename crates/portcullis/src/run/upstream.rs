//! Connections that are passed on to servers.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use connection::proxy_protocol::Client;
use connection::upstream::{ConnectError, Pool, PoolConfig, Server, ServerView};
use connection::{rarely, relay};
use portcullis::{CloseReason, Connection};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::sparse::Sparse;
use super::stop::Stop;
use crate::config::{ListenerConfig, Timeouts};
use crate::failure::Failure;
use crate::registry::Seat;

/// The servers behind a listener.
pub struct Upstream {
    listener: String,
    pool: Arc<Pool>,
    /// What the pool's servers are called, in its order.
    names: Box<[Arc<str>]>,
    timeouts: Timeouts,
    failures: AtomicU64,
    log: Sparse,
    /// The checks of the pool end with it.
    _checks: DropGuard,
}

impl Upstream {
    /// For this listener; checks begin now, if there are to be any.
    ///
    /// # Errors
    /// Servers that can never be connected to.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(config: &ListenerConfig, servers: Vec<Server>) -> Result<Upstream, Failure> {
        let names = servers.iter().map(|server| server.to_string().into()).collect();
        let pool = Pool::new(PoolConfig {
            balance: config.balance.policy,
            connect_timeout: config.timeouts.connect,
            tries: config.balance.tries,
            health: config.balance.checks,
            send_proxy: config.proxy_protocol.send,
            ..PoolConfig::new(servers)
        });
        let pool = pool.map_err(|error| Failure::Usage(format!("listener \"{}\": {error}", config.name)))?;
        let stop = CancellationToken::new();
        tokio::spawn(pool.clone().check_health(stop.clone()));
        Ok(Upstream {
            listener: config.name.clone(),
            pool,
            names,
            timeouts: config.timeouts,
            failures: AtomicU64::new(0),
            log: Sparse::new(),
            _checks: stop.drop_guard(),
        })
    }

    /// Connects, then copies both ways to the end. A connection for which no server can be reached gets RST, so that the
    /// client does not take the silence for an answer.
    ///
    /// At the deadline both sides are closed: FIN, or RST where something had not been passed on.
    pub async fn handle(&self, connection: Connection, client: &Client, seat: &Seat, stop: &Stop) {
        let upstream = tokio::select! {
            upstream = self.pool.connect(client) => upstream,
            () = rarely(stop.deadline.cancelled()) => {
                connection.note_close(CloseReason::Drained);
                return connection.abort();
            }
        };
        let upstream = match upstream {
            Ok(upstream) => upstream,
            Err(error) => {
                self.note_failure(&error);
                return connection.abort();
            }
        };
        let name = upstream.server_index().and_then(|index| self.names.get(index));
        name.into_iter().for_each(|name| seat.set_upstream(name.clone()));
        let handle = connection.handle();
        // Outside of the select, so that at the deadline the connection is still there to take the note.
        let mut relay = pin!(relay(connection, upstream, self.timeouts.idle, self.timeouts.half_close));
        tokio::select! {
            outcome = &mut relay => tracing::debug!(listener = self.listener, ?outcome, "relay ended"),
            () = rarely(stop.deadline.cancelled()) => handle.note_close(CloseReason::Drained),
        }
    }

    /// The servers, as they are now.
    pub fn view(&self) -> Vec<ServerView> {
        self.pool.view()
    }

    fn note_failure(&self, error: &ConnectError) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if self.log.event().is_some() {
            tracing::warn!(listener = self.listener, %error, failures, "cannot reach the upstream; its clients are reset");
        }
    }
}
