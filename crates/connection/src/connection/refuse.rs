//! Turning a client away.

use crate::connection::Connection;
use crate::stats::CloseReason;
use crate::sys::{self, Repair};

/// How a client is told that it is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuse {
    /// With RST. The client knows at once, and may try again at once.
    Reset,
    /// Not at all: the socket vanishes without a segment (`TCP_REPAIR`), and leaves no TIME-WAIT.
    ///
    /// The client takes itself to be connected until it sends something and is not answered, which costs it its retransmissions or
    /// its timeout; so a flood of connections gets slower, and honest clients are kept waiting. What it sends then meets whoever
    /// guards the port: silence again under a listener that guards it, RST by the kernel under a plain one.
    Silent,
}

impl Connection {
    /// Turns the client away, and counts it as refused. What it sent is not read. Returns how it was done:
    /// without CAP_NET_ADMIN silence is not to be had, and it is a reset.
    pub fn refuse(self, how: Refuse) -> Refuse {
        self.note_close(CloseReason::Refused);
        // Closing a socket in repair mode sends nothing.
        if how == Refuse::Silent && sys::set_repair(&self, Repair::On).is_ok() {
            return Refuse::Silent;
        }
        self.abort();
        Refuse::Reset
    }
}
