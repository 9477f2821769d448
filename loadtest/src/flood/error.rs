//! What can go wrong at the start of a flood.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

/// Why a flood did not start.
#[derive(Debug, Error)]
pub enum FloodError {
    /// It could leave the lab.
    #[error("a flood of this is forbidden: {0}")]
    Forbidden(String),
    /// The device takes no frames from an eBPF program.
    #[error("the device takes no XDP frames: its other end needs NAPI (`ethtool -K DEVICE gro on`) and to be up")]
    NoXdp,
    /// The kernel takes no eBPF program from us.
    #[error(
        "cannot load the eBPF program: {0}; engine = \"xdp\" takes root with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, \
         and no user namespace does: engine = \"tx-ring\" works without"
    )]
    NoEbpf(io::Error),
    /// A replay needs handshakes.
    #[error("{0} completed no handshake to replay")]
    NoHandshake(SocketAddr),
    /// A replay's frames, or a kernel's.
    #[error("the frames of this flood are not known beforehand")]
    NotKnownBeforehand,
    /// A call failed.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

impl FloodError {
    /// For `map_err`.
    pub fn io(what: &'static str) -> impl Fn(io::Error) -> FloodError {
        move |error| FloodError::Io { what, error }
    }
}
