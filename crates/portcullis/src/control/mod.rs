//! `portcullis ctl`: an operator asks a running process, over a Unix socket.
//!
//! A client sends one line of JSON, [`Request`](protocol::Request), and gets one line of JSON, [`Answer`](protocol::Answer); then
//! the connection is over. Everything has a bound: the length of both lines, the time each may take, and the clients at a time. Only
//! root and the user that the process runs as are answered. What the answers come from is behind [`Operations`]; this module knows
//! nothing of listeners.

mod args;
mod client;
mod operations;
mod place;
mod prefix;
mod protocol;
mod server;
mod socket;
mod table;

pub use args::CtlArgs;
pub use client::{Caller, ctl};
pub use operations::Operations;
pub use place::{running, take};
pub use prefix::Prefix;
pub use protocol::{
    Answer, Changed, Conn, Conns, Drained, Killed, LevelChanged, ListenerStatus, Refusal, Reloaded, Request, Restarted,
    Rotated, Status, Top, TopEntry, Traffic, UpstreamStatus,
};
pub use server::{ControlServer, Succession};
pub use socket::{ControlSocket, Share, owner};
pub use table::{size, span};
