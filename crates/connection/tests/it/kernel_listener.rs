//! The kernel tier.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::connection::{ConnectionStats, KernelListener};
use listener::{TcpState, Via};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use socket2::SockRef;
use testnet::isolated;

use crate::support::block_on;

fn listen(addr: &str) -> KernelListener {
    KernelListener::bind(addr.parse().unwrap(), 16, Arc::new(ConnectionStats::default())).unwrap()
}

#[test]
fn connections_of_both_families_come_with_their_addresses() {
    block_on(async {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let mut listener = listen(addr);
            let client = TcpStream::connect(listener.local_addr()).unwrap();
            let connection = listener.accept().await.unwrap();
            assert_eq!(connection.peer_addr(), client.local_addr().unwrap());
            assert_eq!(connection.local_addr(), client.peer_addr().unwrap());
            assert_eq!(connection.state().unwrap(), TcpState::Established);
            assert_eq!((connection.handshake().via, connection.handshake().options), (Via::Kernel, None));
        }
    });
}

#[test]
fn both_wildcards_share_a_port() {
    block_on(async {
        let mut v4 = listen("0.0.0.0:0");
        let port = v4.local_addr().port();
        let mut v6 = listen(&format!("[::]:{port}"));
        let _to_v4 = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        assert!(v4.accept().await.unwrap().peer_addr().is_ipv4());
        let _to_v6 = TcpStream::connect(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port))).unwrap();
        assert!(v6.accept().await.unwrap().peer_addr().is_ipv6());
    });
}

#[test]
fn connections_have_no_delay_and_under_a_wildcard_the_address_their_client_chose() {
    block_on(async {
        for addr in ["127.0.0.1:0", "0.0.0.0:0"] {
            let mut listener = listen(addr);
            let chosen = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().port()));
            let _client = TcpStream::connect(chosen).unwrap();
            let connection = listener.accept().await.unwrap();
            assert_eq!(connection.local_addr(), chosen);
            assert!(SockRef::from(&connection).tcp_nodelay().unwrap());
        }
    });
}

#[test]
fn connections_of_an_inherited_listener_begin_without_its_limits() {
    block_on(async {
        let left = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = SockRef::from(&left);
        socket.set_keepalive(true).unwrap();
        socket.set_tcp_user_timeout(Some(Duration::from_secs(9))).unwrap();
        let mut listener = KernelListener::inherit(left.into(), 16, Arc::default()).unwrap();
        let _client = TcpStream::connect(listener.local_addr()).unwrap();
        let connection = listener.accept().await.unwrap();
        let socket = SockRef::from(&connection);
        assert_eq!((socket.keepalive().unwrap(), socket.tcp_user_timeout().unwrap()), (false, None));
    });
}

#[test]
fn port_in_use_is_an_error_of_bind() {
    block_on(async {
        let first = listen("127.0.0.1:0");
        let second = KernelListener::bind(first.local_addr(), 16, Arc::default());
        assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    });
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    Duration::from_micros((usage.user_time() + usage.system_time()).num_microseconds() as u64)
}

#[test]
fn want_of_descriptors_is_waited_out_without_spinning_even_when_cancelled() {
    isolated!(|| {
        block_on(async {
            let mut listener = listen("127.0.0.1:0");
            let _client = TcpStream::connect(listener.local_addr()).unwrap();
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
            let (cpu, start) = (cpu_time(), Instant::now());
            let mut cancelled = 0;
            while start.elapsed() < Duration::from_secs(1) {
                let accept = tokio::time::timeout(Duration::from_millis(50), listener.accept());
                assert!(accept.await.is_err(), "nothing can be accepted, and that is no error");
                cancelled += 1;
            }
            let busy = cpu_time() - cpu;
            assert!(cancelled <= 20 && busy < Duration::from_millis(200), "{cancelled} times, {busy:?} of CPU time");

            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            let freed = Instant::now();
            listener.accept().await.unwrap();
            assert!(freed.elapsed() < Duration::from_millis(1500), "the longest pause is a second");
        });
    });
}
