//! Upstreams: the servers that a proxy passes its clients on to.
//!
//! A [`Pool`] chooses a [`Server`] for each client, connects, tells it by the PROXY protocol who the client is, and tries
//! another server if that fails. What comes out is an [`Upstream`], to be joined with the client by [`relay`](crate::relay()).
//! [`Pool::check_health`] finds out which servers are up; failing clients tell too.
//!
//! What is not here: names to be looked up (a server is an address), weights, and connections kept for the next client.
//!
//! ```no_run
//! use connection::proxy_protocol::Client;
//! use connection::upstream::{Pool, PoolConfig};
//!
//! # async fn example(client: connection::Connection) -> Result<(), Box<dyn std::error::Error>> {
//! let servers = vec!["192.0.2.1:80".parse()?, "[2001:db8::1]:80".parse()?, "unix:/run/app.sock".parse()?];
//! let pool = Pool::new(PoolConfig::new(servers))?;
//! let upstream = pool.connect(&Client { peer: client.peer_addr(), local: client.local_addr() }).await?;
//! connection::relay(client, upstream, None, None).await;
//! # Ok(())
//! # }
//! ```

mod check;
mod config;
mod dial;
mod failure;
mod health;
mod own_ports;
mod pool;
mod server;
mod stream;

pub use config::{Balance, HealthConfig, PoolConfig, PoolConfigError, SERVERS_MAX};
pub use failure::ConnectFailure;
pub use health::{BACK_OFF_MAX, BACK_OFF_MIN, PASSIVE_FALL};
pub use pool::{ConnectError, Pool, ServerView, Upstream};
pub use server::{Server, ServerParseError};
pub use stream::Stream;
