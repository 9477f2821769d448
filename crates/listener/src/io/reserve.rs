//! Keeping the kernel quiet: a listening socket that hears nothing.
//!
//! It reserves the port (nobody else can bind it, `ss -l` shows it), and its filter drops every packet that belongs to no
//! established socket, so the kernel sends neither SYN-ACK nor RST. Adopted connections are found before it and never
//! meet the filter.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::filter;

/// The silenced listening socket of one guarded address. Dropping it gives the port back.
#[derive(Debug)]
pub(super) struct Reserved(Socket);

impl Reserved {
    /// Takes `addr`. The filter is in place before the kernel could answer anything for this port.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, or `PermissionDenied` for a port below 1024 without CAP_NET_BIND_SERVICE.
    pub(super) fn new(addr: SocketAddr) -> io::Result<Reserved> {
        let socket = bound(addr)?;
        socket.listen(1)?;
        Ok(Reserved(socket))
    }

    /// A predecessor's, which both processes hold for a while.
    pub(super) fn inherit(left: OwnedFd) -> Reserved {
        Reserved(Socket::from(left))
    }

    /// What a successor needs to [`inherit`](Reserved::inherit) this.
    ///
    /// # Errors
    /// Of dup(2).
    pub(super) fn estate(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }
}

/// Whether `addr` could be taken now. Nobody who knocks meanwhile notices: a bound socket that does not listen leaves the
/// kernel's answer what it is.
///
/// # Errors
/// As [`Reserved::new`].
pub(super) fn probe(addr: SocketAddr) -> io::Result<()> {
    bound(addr).map(drop)
}

fn bound(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of a predecessor that are still closing must not keep us from starting.
    socket.set_reuse_address(true)?;
    filter::attach(&socket, &filter::drop_all())?;
    socket.bind(&addr.into())?;
    Ok(socket)
}
