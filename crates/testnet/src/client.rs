//! A client whose first data completes the handshake.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use crate::namespace::Namespace;
use crate::sys;

/// Connects from a namespace and leaves the handshake's last ACK to the first data, as the kernel does for a client with
/// something to say (`TCP_QUICKACK` off). Without data it follows 40 to 200 ms later. `within` becomes the deadline of
/// every call on the stream.
///
/// # Errors
/// Of connect(2); `EINPROGRESS` when the deadline has passed.
pub fn connect_with_late_ack(namespace: &Namespace, server: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    namespace.run(|| {
        let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        sys::set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0)?;
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(within))?; // That of connect(2) as well.
        stream.set_read_timeout(Some(within))?;
        connect(stream.as_raw_fd(), &SockaddrStorage::from(server))?;
        Ok(stream)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::{Flags, Tap, isolated, veth};

    #[test]
    fn the_first_ack_carries_the_first_data() {
        isolated!(|| {
            let (server, client) = (Namespace::new(), Namespace::new());
            let (far, _near) = veth(
                (&server, "srv0", &["198.18.0.1/24", "2001:db8::1/64"]),
                (&client, "cli0", &["198.18.0.2/24", "2001:db8::2/64"]),
            );
            for address in ["198.18.0.1:80", "[2001:db8::1]:80"] {
                let _listener = server.run(|| TcpListener::bind(address).unwrap());
                let tap = Tap::new(&far);
                let within = Duration::from_secs(20);
                let mut stream = connect_with_late_ack(&client, address.parse().unwrap(), within).unwrap();
                stream.write_all(b"at once").unwrap();
                let first = tap.find(within, |frame| frame.flags.has(Flags::ACK)).expect("an ACK");
                assert_eq!(first.payload, b"at once", "{first:?}");
            }
        });
    }
}
