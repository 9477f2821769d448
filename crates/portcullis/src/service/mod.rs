//! The built-in services: what answers a connection when there is no upstream.
//!
//! Each is a function over any stream, knows nothing of listeners, and returns when its conversation is over. How the
//! connection ends is the caller's business.

mod discard;
mod echo;
mod http;
mod page;

pub use discard::discard;
pub use echo::echo;
pub use http::http;
pub use page::page;

/// Bytes of the buffer that `echo` and `discard` keep per connection.
const BUFFER_BYTES: usize = 16 * 1024;
