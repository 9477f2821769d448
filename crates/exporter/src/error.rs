//! What can go wrong before anything is served; nothing here happens later.

use std::io;
use std::net::SocketAddr;

/// Why an exporter or its admin server could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// Two sources have the same name, so their series could not be told apart.
    #[error("two listeners are named {0:?}; the `listener` label needs a name of its own for each")]
    DuplicateListener(String),
    /// The thread that asks the kernel could not be started.
    #[error("cannot start the exporter's thread: {0}")]
    Thread(io::Error),
    /// The admin server's address could not be listened on.
    #[error("admin server cannot listen on {addr}: {source}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}
