//! From a finished handshake to a tokio stream: adoption, half-close, abort, relay.
//!
//! The listener hands over [`Accepted`](listener::Accepted), which is plain data: a 4-tuple, sequence numbers, options.
//! [`adopt`](adopt()) makes of it a kernel socket in ESTABLISHED, by `TCP_REPAIR`; [`RawEstablisher`] does so on the listener's
//! worker and puts the socket into a bounded [`accept_queue()`]; the application takes a [`Connection`] out of it. From there on the
//! kernel does the work: congestion control, loss recovery, timers.
//!
//! [`relay()`] joins a connection with an upstream: a server out of a [pool](upstream::Pool), which is told who the client is by the
//! [PROXY protocol](proxy_protocol).
//!
//! [`KernelListener`] gives the same `Connection` without any of that, through plain `accept(2)`.
//!
//! What a connection can do until its end:
//! - [`Connection::set_timeouts`] bounds how long the client may take: see [`timeouts`].
//! - [`Connection::shutdown_write`], or dropping a [`WriteHalf`], half-closes: FIN goes out, and reading goes on until the client's.
//! - [`Connection::close`] ends it in good order, and says whether everything has arrived; who keeps TIME-WAIT, see [`close`].
//! - [`Connection::abort`] and [`Connection::refuse`] end it at once.
//! - [`ConnectionHandle`] looks at it from elsewhere, ends it from there, and tells at the end what there is to tell. Every end has one
//!   [`CloseReason`], and is counted by it in [`ConnectionStats`].
//!
//! What this crate does not do: look at packets, answer SYNs, or decide who may connect. That is the listener's.
//!
//! ```no_run
//! use std::sync::Arc;
//! use connection::{ConnectionStats, RawEstablisher, accept_queue};
//! use tokio::io::AsyncWriteExt;
//!
//! # async fn example() -> std::io::Result<()> {
//! let (sender, mut receiver) = accept_queue(1024, Arc::new(ConnectionStats::default()));
//! let establisher = RawEstablisher::new(sender)?; // Goes to the listener's worker.
//! # drop(establisher);
//! while let Some(connection) = receiver.accept().await {
//!     let mut connection = connection?;
//!     tokio::spawn(async move { connection.write_all(b"welcome\n").await });
//! }
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)] // `sys` and `relay::sys` alone allow it.

mod accept_queue;
mod account;
pub mod adopt;
pub mod close;
mod connection;
mod histogram;
mod kernel_listener;
mod limits;
pub mod proxy_protocol;
mod record;
mod relay;
mod stats;
mod sys;
pub mod timeouts;
pub mod upstream;

pub use accept_queue::{AcceptGauge, AcceptReceiver, AcceptSender, accept_queue};
pub use adopt::{Adopted, Adoption, RawEstablisher, adopt};
pub use close::{CloseOutcome, FirstFin};
pub use connection::{Connection, ConnectionHandle, Handshake, ReadHalf, Refuse, ReuniteError, WriteHalf};
pub use histogram::DurationCounts;
pub use kernel_listener::{KernelGauge, KernelListener};
pub use limits::{
    AtLimit, DISPLACED_MAX, Gate, PrefixList, PrefixListError, Refused, Rules, Ticket, parse_prefix, source_prefix,
};
pub use record::CloseSummary;
pub use relay::{RELAY_BUFFER_BYTES, Rarely, RelayEnd, RelayOutcome, rarely, relay};
pub use stats::{CloseReason, ConnectionStats};
pub use sys::ListenQueue;
pub use timeouts::{Expired, InvalidTimeout, Keepalive, Timeouts};
