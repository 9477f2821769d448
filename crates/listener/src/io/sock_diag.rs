//! The kernel's own sockets, by sock_diag: find the one that holds a 4-tuple, list those of a port, destroy one.
//!
//! See [sock_diag(7)](https://man7.org/linux/man-pages/man7/sock_diag.7.html) and `linux/inet_diag.h`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;
use wire::{Endpoint, FourTuple};

use super::netlink::{Expect, Netlink};
use crate::TcpState;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// The request of before there was `SOCK_DIAG_BY_FAMILY`, which asks for both families in one walk over the table; the other takes two.
const TCPDIAG_GETSOCK: u16 = 18;

/// `struct inet_diag_sockid`: ports and addresses in network order, interface, cookie.
const ID_LEN: usize = 48;
const ID_COOKIE: std::ops::Range<usize> = 40..48;
/// `struct inet_diag_req_v2`: family, protocol, extensions, pad, state mask, id.
const REQUEST_LEN: usize = 8 + ID_LEN;
/// `struct inet_diag_req`, which goes with [`TCPDIAG_GETSOCK`]: family, two lengths, extensions, id, state mask, a word without meaning.
const OLD_REQUEST_LEN: usize = 4 + ID_LEN + 8;
const OLD_REQUEST_STATES: std::ops::Range<usize> = 4 + ID_LEN..8 + ID_LEN;
/// `struct inet_diag_msg` begins with family, state, timer, retransmissions, then the id.
const ANSWER_ID: std::ops::Range<usize> = 4..4 + ID_LEN;

/// Every state Linux numbers up to `TCP_NEW_SYN_RECV`; the one above it is for sockets that are bound and nothing else.
const ALL_STATES: u32 = 0x1ffe;
/// "Any socket with this 4-tuple": `INET_DIAG_NOCOOKIE` in both halves.
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Asks the kernel about its TCP sockets, in the network namespace of the thread that opened it.
///
/// Holds one descriptor and a buffer of 64 KiB. Every call is answered before the kernel returns from it; should an answer be
/// lost nevertheless, the call fails with `TimedOut` after a second instead of hanging its thread.
#[derive(Debug)]
pub struct SockDiag {
    netlink: Netlink,
}

/// A socket the kernel holds, as [`SockDiag::lookup`] found it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The socket's state at the time of the lookup; never LISTEN.
    pub state: TcpState,
    /// The request that finds this very socket again and no later one: the kernel's cookie is in it.
    request: [u8; REQUEST_LEN],
}

impl SockDiag {
    /// Opens the netlink socket. Needs no capability.
    pub fn open() -> io::Result<SockDiag> {
        Ok(SockDiag { netlink: Netlink::open(SockProtocol::NetlinkSockDiag)? })
    }

    /// The socket the kernel holds for exactly this 4-tuple: [`lookup_on`](SockDiag::lookup_on) no particular interface.
    pub fn lookup(&mut self, tuple: &FourTuple) -> io::Result<Option<Found>> {
        self.lookup_on(tuple, 0)
    }

    /// The socket the kernel holds for exactly this 4-tuple, were its segments to arrive on interface `ifindex`.
    ///
    /// Sees TIME-WAIT, SYN-RECEIVED, and IPv6 sockets with IPv4-mapped addresses. Listening sockets are not an answer. A socket
    /// bound to an interface, which one with a link-local address always is, is found only through that interface's index.
    ///
    /// # Errors
    ///
    /// `TimedOut` after a second without an answer; the kernel's errno otherwise. "No such socket" is `Ok(None)`.
    pub fn lookup_on(&mut self, tuple: &FourTuple, ifindex: u32) -> io::Result<Option<Found>> {
        let request = request_for(tuple, ifindex);
        let mut found = None;
        let asked = self.netlink.request(SOCK_DIAG_BY_FAMILY, Expect::One, &request, |_, body| {
            found = read_found(request, body);
        });
        match asked {
            Ok(()) => Ok(found),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Destroys the socket, as `ss -K` does: its owner sees ECONNABORTED, its peer a RST where the state asks for one.
    ///
    /// Nothing happens to another socket that has taken the 4-tuple since the lookup. A socket already gone is success.
    ///
    /// # Errors
    ///
    /// EPERM without CAP_NET_ADMIN; EOPNOTSUPP if the kernel was built without `CONFIG_INET_DIAG_DESTROY`.
    pub fn destroy(&mut self, found: &Found) -> io::Result<()> {
        match self.netlink.request(SOCK_DESTROY, Expect::Ack, &found.request, |_, _| {}) {
            Err(error) if is_absent(&error) => Ok(()),
            outcome => outcome,
        }
    }

    /// Calls `each` with every TCP socket whose local port is `port` (0: any port), of both families and in all states.
    ///
    /// An IPv4-mapped socket comes with its IPv4 addresses; a listening one has an unspecified peer with port 0. The kernel's
    /// cost is a walk over its whole table of connections, so this is for a census now and then, not for a packet.
    ///
    /// # Errors
    ///
    /// `Interrupted` when the kernel says that its table changed so that sockets may have been missed or seen twice, ENOBUFS
    /// when it had to drop part of the answer: what `each` saw must then be thrown away, and asking again is right.
    pub fn dump(&mut self, port: u16, mut each: impl FnMut(FourTuple, TcpState)) -> io::Result<()> {
        let mut request = [0; OLD_REQUEST_LEN];
        request[4..6].copy_from_slice(&port.to_be_bytes());
        request[OLD_REQUEST_STATES].copy_from_slice(&ALL_STATES.to_ne_bytes());
        self.netlink.request(TCPDIAG_GETSOCK, Expect::Dump, &request, |_, body| {
            if let Some((tuple, state)) = read_socket(body)
                && (port == 0 || tuple.local.port == port)
            {
                each(tuple, state);
            }
        })
    }
}

/// ENOENT: no socket at all. ESTALE: another socket by now.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}

fn request_for(tuple: &FourTuple, ifindex: u32) -> [u8; REQUEST_LEN] {
    let mut id = [0; ID_LEN];
    id[0..2].copy_from_slice(&tuple.local.port.to_be_bytes());
    id[2..4].copy_from_slice(&tuple.peer.port.to_be_bytes());
    write_address(&mut id[4..20], tuple.local.addr);
    write_address(&mut id[20..36], tuple.peer.addr);
    id[36..40].copy_from_slice(&ifindex.to_ne_bytes());
    id[ID_COOKIE].copy_from_slice(&NO_COOKIE);
    let family = if tuple.local.addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    request_of(family as u8, id)
}

fn request_of(family: u8, id: [u8; ID_LEN]) -> [u8; REQUEST_LEN] {
    let mut request = [0; REQUEST_LEN];
    request[0] = family;
    request[1] = libc::IPPROTO_TCP as u8;
    request[4..8].copy_from_slice(&ALL_STATES.to_ne_bytes());
    request[8..].copy_from_slice(&id);
    request
}

/// An IPv4 address takes the first four of the sixteen bytes.
fn write_address(field: &mut [u8], addr: IpAddr) {
    match addr {
        IpAddr::V4(addr) => field[..4].copy_from_slice(&addr.octets()),
        IpAddr::V6(addr) => field.copy_from_slice(&addr.octets()),
    }
}

/// An exact request falls back to the listener of the port, so a listening socket means that there is none for the 4-tuple.
fn read_found(mut request: [u8; REQUEST_LEN], body: &[u8]) -> Option<Found> {
    let (_, state) = read_socket(body)?;
    let cookie = &body[ANSWER_ID][ID_COOKIE];
    request[8..][ID_COOKIE].copy_from_slice(cookie);
    (state != TcpState::Listen).then_some(Found { state, request })
}

fn read_socket(body: &[u8]) -> Option<(FourTuple, TcpState)> {
    let id = body.get(ANSWER_ID)?;
    let family = i32::from(body[0]);
    let state = TcpState::from_linux(body[1])?;
    let local = Endpoint { port: u16::from_be_bytes([id[0], id[1]]), addr: read_address(family, &id[4..20])? };
    let peer = Endpoint { port: u16::from_be_bytes([id[2], id[3]]), addr: read_address(family, &id[20..36])? };
    Some((FourTuple { local, peer }, state))
}

fn read_address(family: i32, field: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = field.try_into().ok()?;
    match family {
        libc::AF_INET => Some(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()),
        libc::AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    /// A connection over loopback: the listener, the client's end and the server's end.
    fn connected(bind: &str) -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind(bind).unwrap();
        let mut addr = listener.local_addr().unwrap();
        if addr.ip().is_unspecified() {
            addr.set_ip(Ipv4Addr::LOCALHOST.into()); // Through an IPv6 socket: mapped addresses.
        }
        let client = TcpStream::connect(addr).unwrap();
        let server = listener.accept().unwrap().0;
        (listener, client, server)
    }

    fn tuple(stream: &TcpStream) -> FourTuple {
        FourTuple { local: stream.local_addr().unwrap().into(), peer: stream.peer_addr().unwrap().into() }
    }

    fn state(diag: &mut SockDiag, tuple: &FourTuple) -> Option<TcpState> {
        diag.lookup(tuple).unwrap().map(|found| found.state)
    }

    /// Waits for the state; the peer's acknowledgment may be delayed by tens of milliseconds.
    fn becomes(diag: &mut SockDiag, tuple: &FourTuple, wanted: Option<TcpState>) -> bool {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if state(diag, tuple) == wanted {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[test]
    fn established_socket_is_found_from_both_ends_in_every_family() {
        let mut diag = SockDiag::open().unwrap();
        for bind in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let (_listener, client, server) = connected(bind);
            assert_eq!(state(&mut diag, &tuple(&client)), Some(TcpState::Established), "client of {bind}");
            assert_eq!(state(&mut diag, &tuple(&server)), Some(TcpState::Established), "server at {bind}");
        }
    }

    #[test]
    fn listening_socket_is_no_answer_to_a_lookup() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let unknown = FourTuple {
            local: listener.local_addr().unwrap().into(),
            peer: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
        };
        assert_eq!(state(&mut SockDiag::open().unwrap(), &unknown), None);
    }

    #[test]
    fn half_closed_connection_goes_from_fin_wait_to_time_wait() {
        let mut diag = SockDiag::open().unwrap();
        let (_listener, mut client, server) = connected("127.0.0.1:0");
        let (ours, theirs) = (tuple(&client), tuple(&server));
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(becomes(&mut diag, &ours, Some(TcpState::FinWait2)));
        assert!(becomes(&mut diag, &theirs, Some(TcpState::CloseWait)));
        drop(server);
        client.read_to_end(&mut Vec::new()).unwrap();
        drop(client);
        assert!(becomes(&mut diag, &ours, Some(TcpState::TimeWait)));
        assert!(becomes(&mut diag, &theirs, None));
    }

    #[test]
    fn dump_lists_the_listener_and_both_ends_and_no_other_port() {
        let mut diag = SockDiag::open().unwrap();
        for bind in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let (listener, client, server) = connected(bind);
            let _other = connected(bind);
            let port = listener.local_addr().unwrap().port();
            let mut seen = Vec::new();
            diag.dump(port, |tuple, state| seen.push((tuple, state))).unwrap();
            // A client elsewhere on this host may have been given the same port, so there may be more than ours.
            let count =
                |wanted: &dyn Fn(&(FourTuple, TcpState)) -> bool| seen.iter().filter(|each| wanted(each)).count();
            assert_eq!(count(&|each| *each == (tuple(&server), TcpState::Established)), 1, "{seen:?}");
            assert_eq!(count(&|(each, state)| *state == TcpState::Listen && each.peer.port == 0), 1, "{seen:?}");
            assert_eq!(count(&|(each, _)| each.local.port != port), 0, "{seen:?}");
            drop(client);
        }
    }

    #[test]
    fn dump_of_many_sockets_takes_several_datagrams_and_sees_each_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let pairs: Vec<_> =
            (0..400).map(|_| (TcpStream::connect(addr).unwrap(), listener.accept().unwrap().0)).collect();
        let mut seen = std::collections::HashSet::new();
        let mut diag = SockDiag::open().unwrap();
        diag.dump(addr.port(), |tuple, _| assert!(seen.insert(tuple), "{tuple} twice")).unwrap();
        assert!(pairs.iter().all(|(_, server)| seen.contains(&tuple(server))));
    }

    #[test]
    fn destroy_resets_the_peer_and_a_second_one_is_no_error() {
        let mut diag = SockDiag::open().unwrap();
        let (_listener, mut client, mut server) = connected("127.0.0.1:0");
        let found = diag.lookup(&tuple(&server)).unwrap().unwrap();
        match diag.destroy(&found) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return assert!(!nix::unistd::geteuid().is_root());
            }
            destroyed => destroyed.unwrap(),
        }
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(server.write(b"x").unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        diag.destroy(&found).unwrap();
    }

    #[test]
    fn short_or_foreign_answer_is_no_socket() {
        assert!(read_socket(&[]).is_none());
        assert!(read_socket(&[libc::AF_INET as u8; 51]).is_none());
        let mut body = [0; 72];
        body[1] = 1;
        assert!(read_socket(&body).is_none(), "no family");
        body[0] = libc::AF_INET as u8;
        assert!(read_socket(&body).is_some());
        body[1] = 13;
        assert!(read_socket(&body).is_none(), "a state with no name");
    }
}
