//! One process goes on in place of another, and no client notices.
//!
//! The new process asks over the control socket of the old one, which answers with a line as to every request; then the two speak in
//! frames (a length of four bytes, then JSON), and descriptors come one by one, each with a byte of its own:
//!
//! ```text
//! new  {"verb":"take-over","version":1}\n
//! old  {"take-over":{}}\n   Manifest   the descriptors it names
//! new  Report::Ready        it has all it needs, and does nothing yet; up to here nothing has changed
//! old  Stopped              it has stopped, and here is where; from here on there is no way back
//! new  Report::Serving      it answers and accepts; the old one finishes its connections, and ends
//! ```
//!
//! Instead of each of its reports the new process may send `Failed`, or just end. Before `Stopped` the old one then goes on as if
//! nothing had been.

mod channel;
mod giving;
mod message;
mod taking;

pub use giving::{Giving, Outcome};
pub use taking::Predecessor;

/// Of the messages, and what they mean: a process of another version is started afresh.
pub const VERSION: u32 = 1;
