//! Where a server is to be found.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// The longest path of a Unix socket: `sun_path` of unix(7), with the zero behind it.
const UNIX_PATH_BYTES_MAX: usize = 107;
/// What the text of a Unix socket begins with.
const UNIX: &str = "unix:";

/// The address of a server. As text: `192.0.2.1:80`, `[2001:db8::1]:80`, `unix:/run/app.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// A TCP server on a host.
    Tcp(SocketAddr),
    /// A stream socket in the file system.
    Unix(PathBuf),
}

/// Why a server cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerParseError {
    /// The text is of no legal form.
    #[error("{0:?} is no server; legal: ADDRESS:PORT, [ADDRESS]:PORT with an IPv6 address, unix:/PATH")]
    Form(String),
    /// An address that is not one host's, or port 0.
    #[error(
        "{0} is not the address of one host; legal: no 0.0.0.0, [::], multicast or broadcast, and a port from 1 to 65535"
    )]
    Host(SocketAddr),
    /// A path that no socket can have.
    #[error("{0:?} is no path of a socket; legal: absolute, at most 107 bytes, none of them zero")]
    Path(PathBuf),
}

impl Server {
    /// Refuses what can never be connected to.
    pub(super) fn check(&self) -> Result<(), ServerParseError> {
        match self {
            Server::Tcp(address) if !is_one_host(*address) => Err(ServerParseError::Host(*address)),
            Server::Unix(path) if !is_socket_path(path) => Err(ServerParseError::Path(path.clone())),
            Server::Tcp(_) | Server::Unix(_) => Ok(()),
        }
    }
}

fn is_one_host(address: SocketAddr) -> bool {
    let broadcast = matches!(address, SocketAddr::V4(v4) if v4.ip().is_broadcast());
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast() && !broadcast
}

fn is_socket_path(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    path.is_absolute() && bytes.len() <= UNIX_PATH_BYTES_MAX && !bytes.contains(&0)
}

impl FromStr for Server {
    type Err = ServerParseError;

    fn from_str(text: &str) -> Result<Server, ServerParseError> {
        let server = match text.strip_prefix(UNIX) {
            Some(path) => Server::Unix(path.into()),
            None => Server::Tcp(text.parse().map_err(|_| ServerParseError::Form(text.to_owned()))?),
        };
        server.check()?;
        Ok(server)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Tcp(address) => address.fmt(f),
            Server::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Server {
    fn from(address: SocketAddr) -> Server {
        Server::Tcp(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_there_and_back() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:65535", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_server_is_named_in_the_refusal() {
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
        for text in
            ["", "192.0.2.1", "host:80", "192.0.2.1:0", "0.0.0.0:80", "[::]:80", "224.0.0.1:80", "255.255.255.255:80"]
                .into_iter()
                .chain(["unix:", "unix:run/app.sock", "unix:/run/\0", long.as_str()])
        {
            let error = text.parse::<Server>().unwrap_err().to_string();
            let value = text.strip_prefix(UNIX).unwrap_or(text).escape_default().to_string();
            assert!(error.contains(&value) || text.contains('\0'), "{error}");
            assert!(error.contains("legal: "), "{error}");
        }
    }

    #[test]
    fn longest_path_is_legal() {
        assert!(format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX - 1)).parse::<Server>().is_ok());
    }
}
