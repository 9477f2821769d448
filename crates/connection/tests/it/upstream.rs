//! Pools of servers: whose turn it is, what happens when one is gone, and how it comes back.

use std::io::ErrorKind;
use std::net::{self, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use ::connection::proxy_protocol::{Client, ProxyVersion, encode_header};
use ::connection::upstream::{
    BACK_OFF_MIN, Balance, HealthConfig, PASSIVE_FALL, Pool, PoolConfig, Server, ServerView, Stream, Upstream,
};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::time::{self, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, block_on, ends, read_all};

fn some_client() -> Client {
    Client { peer: "192.0.2.7:49152".parse().unwrap(), local: "198.51.100.1:443".parse().unwrap() }
}

/// A listening TCP server of the kernel's.
pub fn server() -> (net::TcpListener, Server) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, Server::Tcp(address))
}

fn servers<const N: usize>() -> ([net::TcpListener; N], Vec<Server>) {
    let both: [_; N] = std::array::from_fn(|_| server());
    let addresses = both.iter().map(|(_, address)| address.clone()).collect();
    (both.map(|(listener, _)| listener), addresses)
}

/// An address on which nobody listens, kept from others by a socket that is bound to it.
fn nobody() -> (socket2::Socket, Server) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, Server::Tcp(address))
}

/// The server comes back at the address kept for it.
fn listen(socket: &socket2::Socket) {
    socket.listen(16).unwrap();
}

pub fn pool_of(servers: Vec<Server>) -> Arc<Pool> {
    Pool::new(PoolConfig::new(servers)).unwrap()
}

/// Runs a future on a clock that stands still, except while all tasks wait: then it jumps to the next deadline.
fn block_on_paused<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(future)
}

/// Lets clients come until this server is down, which it must be before long.
async fn take_down(pool: &Arc<Pool>, server: usize) {
    for _ in 0..100 {
        if !ups(pool)[server] {
            return;
        }
        // With another server up it succeeds, else it does not.
        let _ = pool.connect(&some_client()).await;
    }
    panic!("still up: {:?}", pool.view());
}

pub async fn connect(pool: &Arc<Pool>) -> Upstream {
    pool.connect(&some_client()).await.unwrap()
}

/// Which server of the pool's configuration this is a connection to.
fn index(pool: &Pool, upstream: &Upstream) -> usize {
    pool.config().servers.iter().position(|server| Some(server) == upstream.server()).unwrap()
}

pub fn connections(pool: &Pool) -> Vec<u64> {
    pool.view().iter().map(|view| view.connections).collect()
}

fn ups(pool: &Pool) -> Vec<bool> {
    pool.view().iter().map(|view| view.up).collect()
}

/// A path for a socket in a directory of the test's own, which is removed in the end.
pub struct SocketPath(PathBuf);

impl SocketPath {
    pub fn new() -> SocketPath {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("portcullis-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        SocketPath(directory.join("app.sock"))
    }

    pub fn server(&self) -> Server {
        Server::Unix(self.0.clone())
    }

    pub fn listen(&self) -> UnixListener {
        UnixListener::bind(&self.0).unwrap()
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

#[test]
fn round_robin_takes_servers_in_turn() {
    block_on(async {
        let (_listeners, addresses) = servers::<3>();
        let pool = pool_of(addresses);
        let mut order = Vec::new();
        for _ in 0..7 {
            order.push(index(&pool, &connect(&pool).await));
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2, 0]);
    });
}

#[test]
fn least_connections_fills_the_gaps() {
    block_on(async {
        let (_listeners, addresses) = servers::<3>();
        let config = PoolConfig { balance: Balance::LeastConnections, ..PoolConfig::new(addresses) };
        let pool = Pool::new(config).unwrap();
        let mut open = Vec::new();
        for _ in 0..6 {
            open.push(connect(&pool).await);
        }
        assert_eq!(connections(&pool), [2, 2, 2]);
        open.retain(|upstream| index(&pool, upstream) != 1);
        assert_eq!(connections(&pool), [2, 0, 2]);
        for _ in 0..2 {
            open.push(connect(&pool).await);
            assert_eq!(index(&pool, open.last().unwrap()), 1);
        }
        drop(open);
        assert_eq!(connections(&pool), [0, 0, 0]);
    });
}

#[test]
fn failed_connect_is_tried_on_another_server() {
    block_on(async {
        let ((_kept, gone), (_listener, alive)) = (nobody(), server());
        let pool = pool_of(vec![gone, alive]);
        for _ in 0..4 {
            assert_eq!(index(&pool, &connect(&pool).await), 1);
        }
        let [gone, alive] = &pool.view()[..] else { panic!("two servers") };
        assert!(gone.failures >= 1 && gone.last_error.as_ref().unwrap().contains("refused"), "{gone:?}");
        assert_eq!((alive.total, alive.failures, &alive.last_error), (4, 0, &None));
    });
}

#[test]
fn no_more_servers_are_tried_than_allowed_and_none_twice() {
    block_on(async {
        let (_kept, gone): (Vec<_>, Vec<_>) = (0..3).map(|_| nobody()).unzip();
        for (tries, tried) in [(1, 1), (2, 2), (3, 3), (9, 3)] {
            let pool = Pool::new(PoolConfig { tries, ..PoolConfig::new(gone.clone()) }).unwrap();
            let error = pool.connect(&some_client()).await.unwrap_err();
            assert_eq!((error.tried, error.source.kind()), (tried, ErrorKind::ConnectionRefused));
            assert!(error.to_string().contains(&error.server.to_string()), "{error}");
            assert_eq!(pool.view().iter().map(|view| view.failures).sum::<u64>(), u64::from(tried));
            assert_eq!(connections(&pool), [0, 0, 0]);
        }
    });
}

#[test]
fn server_that_fails_clients_goes_down_and_is_spared() {
    block_on_paused(async {
        let ((_kept, gone), (_listener, alive)) = (nobody(), server());
        let pool = pool_of(vec![gone, alive]);
        for _ in 0..20 {
            connect(&pool).await;
        }
        assert_eq!(ups(&pool), [false, true]);
        assert_eq!(pool.view()[0].failures, u64::from(PASSIVE_FALL));
    });
}

#[test]
fn server_that_is_not_checked_is_tried_again_and_comes_back() {
    block_on_paused(async {
        let ((kept, gone), (_listener, alive)) = (nobody(), server());
        let pool = pool_of(vec![gone, alive]);
        take_down(&pool, 0).await;
        let failures = || pool.view()[0].failures;
        let before = failures();
        time::advance(BACK_OFF_MIN).await;
        assert_eq!(index(&pool, &connect(&pool).await), 1, "the trial failed, and the client got the other");
        connect(&pool).await;
        assert_eq!(failures(), before + 1, "one trial alone");
        listen(&kept);
        time::advance(BACK_OFF_MIN).await;
        assert_eq!(index(&pool, &connect(&pool).await), 1, "the pause has doubled");
        time::advance(BACK_OFF_MIN).await;
        assert_eq!(index(&pool, &connect(&pool).await), 0);
        assert_eq!(ups(&pool), [true, true]);
    });
}

#[test]
fn servers_that_are_all_down_are_tried_all_the_same() {
    block_on_paused(async {
        let ((first, first_gone), (second, second_gone)) = (nobody(), nobody());
        let pool = pool_of(vec![first_gone, second_gone]);
        take_down(&pool, 0).await;
        take_down(&pool, 1).await;
        listen(&first);
        assert_eq!(index(&pool, &connect(&pool).await), 0);
        assert_eq!(ups(&pool), [false, false], "one success proves little so soon");
        time::advance(BACK_OFF_MIN).await;
        while !ups(&pool)[0] {
            assert_eq!(index(&pool, &connect(&pool).await), 0);
        }
        assert_eq!(ups(&pool), [true, false]);
        drop(second);
    });
}

#[test]
fn silent_server_costs_a_client_its_connect_timeout_and_no_more() {
    block_on_paused(async {
        // Its queue takes one connection, which it has.
        let path = SocketPath::new();
        let full = path.listen();
        SockRef::from(&full).listen(0).unwrap();
        let _waiting = UnixStream::connect(&path.0).unwrap();
        let (_listener, alive) = server();
        let config =
            PoolConfig { connect_timeout: Duration::from_millis(500), ..PoolConfig::new(vec![path.server(), alive]) };
        let pool = Pool::new(config).unwrap();
        let start = time::Instant::now();
        assert_eq!(index(&pool, &connect(&pool).await), 1);
        assert_eq!(start.elapsed().as_millis() / 100, 5);
        assert_eq!(pool.view()[0].last_error.as_deref(), Some("no answer in time"));
    });
}

#[test]
fn unix_server_whose_queue_is_full_is_waited_for() {
    block_on(async {
        let path = SocketPath::new();
        let listener = path.listen();
        SockRef::from(&listener).listen(0).unwrap();
        let waiting = UnixStream::connect(&path.0).unwrap();
        let pool = pool_of(vec![path.server()]);
        let (upstream, _accepted) = tokio::join!(connect(&pool), async {
            while connections(&pool) != [1] {
                tokio::task::yield_now().await;
            }
            listener.accept().unwrap()
        });
        assert!(matches!(*upstream, Stream::Unix(_)));
        drop(waiting);
    });
}

#[test]
fn lease_is_given_back_when_a_connect_is_cancelled() {
    block_on(async {
        let path = SocketPath::new();
        let listener = path.listen();
        SockRef::from(&listener).listen(0).unwrap();
        let _waiting = UnixStream::connect(&path.0).unwrap();
        let pool = pool_of(vec![path.server()]);
        let connecting = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.connect(&some_client()).await.map(|_| ()) }
        });
        while connections(&pool) != [1] {
            tokio::task::yield_now().await;
        }
        connecting.abort();
        assert!(connecting.await.unwrap_err().is_cancelled());
        assert_eq!((connections(&pool), ups(&pool)), (vec![0], vec![true]));
    });
}

#[test]
fn server_is_told_by_either_version_who_the_client_is() {
    block_on(async {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let (listener, address) = server();
            let config = PoolConfig { send_proxy: Some(version), ..PoolConfig::new(vec![address]) };
            let mut upstream = connect(&Pool::new(config).unwrap()).await;
            upstream.write_all(b"question").await.unwrap();
            let mut accepted = listener.accept().unwrap().0;
            upstream.shutdown().await.unwrap();
            let expected = [encode_header(version, Some(&some_client())), b"question".to_vec()].concat();
            assert_eq!(read_all(&mut accepted).unwrap(), expected);
        }
    });
}

#[test]
fn descriptors_that_run_out_are_not_held_against_a_server() {
    testnet::isolated!(|| {
        block_on(async {
            let (_listener, address) = server();
            let pool = pool_of(vec![address]);
            use nix::sys::resource::{Resource, getrlimit, setrlimit};
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
            for _ in 0..2 * PASSIVE_FALL {
                let error = pool.connect(&some_client()).await.unwrap_err();
                assert_eq!(error.source.raw_os_error(), Some(nix::errno::Errno::EMFILE as i32));
            }
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            assert_eq!(ups(&pool), [true]);
            connect(&pool).await;
        });
    });
}

#[test]
fn server_that_is_gone_is_not_met_by_ourselves() {
    testnet::isolated!(|| {
        // The only port that the kernel may choose for us is the server's.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40000").unwrap();
        let plain = net::TcpStream::connect("127.0.0.1:40000").unwrap();
        SockRef::from(&plain).set_linger(Some(Duration::ZERO)).unwrap();
        drop(plain);
        block_on(async {
            let pool = pool_of(vec!["127.0.0.1:40000".parse().unwrap()]);
            let error = pool.connect(&some_client()).await.unwrap_err();
            assert!(error.to_string().contains("nobody listens"), "{error}");
            assert!(net::TcpListener::bind("127.0.0.1:40000").is_ok(), "and the server can have its port");
        });
    });
}

#[test]
fn counts_are_right_after_many_clients_at_once_of_whom_some_give_up() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let ((_kept, gone), (listeners, mut addresses)) = (nobody(), servers::<2>());
        for listener in &listeners {
            SockRef::from(listener).listen(512).unwrap(); // Room for all of them, since nobody accepts.
        }
        addresses.push(gone);
        let config = PoolConfig { balance: Balance::LeastConnections, ..PoolConfig::new(addresses) };
        let pool = Pool::new(config).unwrap();
        let clients: Vec<_> = (0..300)
            .map(|number| {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move {
                    let client = some_client();
                    let connecting = pool.connect(&client);
                    match number % 3 {
                        0 => drop(timeout(Duration::ZERO, connecting).await),
                        _ => drop(timeout(PATIENCE, connecting).await.unwrap().unwrap()),
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        assert_eq!(connections(&pool), [0, 0, 0]);
        let view = pool.view();
        assert!(view[0].total + view[1].total >= 200 && view[2].total == 0, "{view:?}");
        assert_eq!((view[0].failures, view[1].failures), (0, 0));
    });
}

/// A pool whose servers are checked every ten seconds.
fn checked(servers: Vec<Server>) -> Arc<Pool> {
    let health = HealthConfig { interval: Duration::from_secs(10), timeout: Duration::from_secs(1), rise: 2, fall: 3 };
    Pool::new(PoolConfig { health: Some(health), ..PoolConfig::new(servers) }).unwrap()
}

/// Lets checks run, on the paused clock, until this is true; says how many seconds that took.
async fn seconds_until(pool: &Pool, what: impl Fn(&[ServerView]) -> bool) -> u64 {
    let start = time::Instant::now();
    while !what(&pool.view()) {
        assert!(start.elapsed() < Duration::from_secs(600), "{:?}", pool.view());
        time::sleep(Duration::from_millis(100)).await;
    }
    start.elapsed().as_secs()
}

#[test]
fn checks_take_a_server_down_after_fall_and_up_after_rise() {
    block_on_paused(async {
        let ((kept, gone), (_listener, alive)) = (nobody(), server());
        let pool = checked(vec![gone, alive]);
        let stop = CancellationToken::new();
        let checks = tokio::spawn(Arc::clone(&pool).check_health(stop.clone()));
        // At 0, 10 and 20 s, each interval a tenth more or less.
        let to_fall = seconds_until(&pool, |view| !view[0].up).await;
        assert!((17..=23).contains(&to_fall), "{to_fall} s");
        assert_eq!((pool.view()[0].check_failures, pool.view()[0].failures), (3, 0));
        assert_eq!((pool.view()[1].up, pool.view()[1].check_failures, pool.view()[1].total), (true, 0, 0));
        listen(&kept);
        let to_rise = seconds_until(&pool, |view| view[0].up).await;
        assert!((16..=23).contains(&to_rise), "{to_rise} s");
        stop.cancel();
        checks.await.unwrap();
    });
}

#[test]
fn clients_take_a_checked_server_down_and_checks_bring_it_back() {
    block_on_paused(async {
        let ((kept, gone), (_listener, alive)) = (nobody(), server());
        let pool = checked(vec![gone, alive]);
        take_down(&pool, 0).await;
        assert_eq!((pool.view()[0].failures, pool.view()[0].check_failures), (3, 0));
        time::advance(Duration::from_secs(3600)).await;
        connect(&pool).await;
        assert_eq!(pool.view()[0].failures, 3, "no client is a trial where there are checks");
        listen(&kept);
        let checks = tokio::spawn(Arc::clone(&pool).check_health(CancellationToken::new()));
        seconds_until(&pool, |view| view[0].up).await;
        checks.abort();
    });
}

#[test]
fn checks_tell_the_server_that_there_is_no_client() {
    block_on(async {
        let (listener, address) = server();
        let config = PoolConfig {
            send_proxy: Some(ProxyVersion::V2),
            health: Some(HealthConfig::default()),
            ..PoolConfig::new(vec![address])
        };
        let checks = tokio::spawn(Pool::new(config).unwrap().check_health(CancellationToken::new()));
        let mut accepted = ends(move || listener.accept().unwrap().0).await;
        assert_eq!(ends(move || read_all(&mut accepted).unwrap()).await, encode_header(ProxyVersion::V2, None));
        checks.abort();
    });
}

#[test]
fn without_checks_there_is_nothing_to_run() {
    block_on(pool_of(vec![server().1]).check_health(CancellationToken::new()));
}

#[test]
fn server_that_dies_and_comes_back_gets_clients_again() {
    block_on_paused(async {
        let (path, (_listener, alive)) = (SocketPath::new(), server());
        let pool = pool_of(vec![path.server(), alive]);
        let dying = path.listen();
        assert_eq!(index(&pool, &connect(&pool).await), 0);
        drop(dying);
        take_down(&pool, 0).await;
        assert_eq!(index(&pool, &connect(&pool).await), 1);
        std::fs::remove_file(&path.0).unwrap();
        let _back = path.listen();
        time::advance(BACK_OFF_MIN).await;
        assert_eq!(index(&pool, &connect(&pool).await), 0);
        assert_eq!(ups(&pool), [true, true]);
    });
}
