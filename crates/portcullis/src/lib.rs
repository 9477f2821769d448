//! A SYN-flood-resistant TCP front door for Linux.
//!
//! A [`Listener`] guards addresses: it answers SYNs itself, with SYN cookies and a bounded half-open queue, and gives the
//! application a [`Connection`] for each handshake that completes. A connection is a kernel socket in tokio's hands:
//! congestion control, loss recovery and timers are the kernel's own.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut listener = portcullis::Listener::builder().bind("0.0.0.0:8080").build().await?;
//! while let Some(connection) = listener.accept().await {
//!     tokio::spawn(serve(connection?));
//! }
//! # Ok(())
//! # }
//! # async fn serve(_: portcullis::Connection) {}
//! ```
//!
//! It needs CAP_NET_RAW and CAP_NET_ADMIN. For development, [`Datapath::Kernel`] needs neither, and protects from
//! nothing: the kernel then answers the SYNs.
//!
//! This crate is the facade: what a packet means is decided in `listener`, what a connection does in `connection`, and
//! what is counted is shown by `exporter`. The `portcullis` binary, with its configuration and services, stands on the
//! same public interface.
#![forbid(unsafe_code)]

mod alarm;
mod builder;
mod drain;
mod estate;
mod front;
pub mod guard;
mod kernel;
mod source;

pub use builder::{BuildError, Builder, Datapath, Successor};
pub use connection::{
    AtLimit, CloseOutcome, CloseReason, CloseSummary, Connection, ConnectionHandle, FirstFin, Gate, Handshake,
    Keepalive, PrefixList, ReadHalf, Refuse, Refused, ReuniteError, Rules, Timeouts, WriteHalf,
};
pub use estate::{Estate, HandedOver};
pub use front::{Control, Listener, PreparedRules};
pub use listener::cookie::Epoch;
pub use listener::io::{Bookmark, BpfEstate, BpfHook, TapEstate};
pub use listener::{
    AcceptCookies, KeySchedule, ListenConfig, MasterKey, MasterKeyError, Negotiated, TcpState, Timestamps, Via,
};
