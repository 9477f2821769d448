//! Relays measured side by side: Portcullis with an upstream, HAProxy in tcp mode, nginx's stream module.
//!
//! ```text
//!   outside                                       server
//!   clients ──┐                                   threads of the cable's reception
//!   upstream ─┴── to-server ═════════ to-outside ─ the relay
//! ```
//!
//! Clients and upstream are threads of this process that do as little as they can: bulk comes from a file's pages and is thrown away unread,
//! so that the relay's cores, and not theirs, are what is used up. The relay has cores of its own, with the reception of its frames. What
//! it costs is the time its own threads ran, so that others on the machine are not charged to it.

mod client;
mod cost;
mod peer;
mod round;
mod upstream;

pub use round::{RelaySpec, compare};
