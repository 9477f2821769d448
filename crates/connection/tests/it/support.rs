//! A server namespace with a scripted client at the other end of a cable, and handshakes made up between the two.

use std::future::Future;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::connection::{CloseReason, Connection, ConnectionStats, KernelListener, adopt};
use listener::{Accepted, EarlyData, Negotiated, Refusal, Timestamps, Via};
use socket2::SockRef;
use testnet::{Interface, Namespace, RawHost, Script, eventually, veth};
use tokio::task::spawn_blocking;
use wire::{FourTuple, SeqNum};

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a test looks for what must not happen.
pub const GLANCE: Duration = Duration::from_millis(100);

pub const SERVER_V4: &str = "198.18.0.1:8080";
pub const SERVER_V6: &str = "[2001:db8::1]:8080";
/// Our initial sequence number in made-up handshakes; near the wrap, so that all arithmetic is tried across it.
pub const ISS: u32 = u32::MAX - 2;
/// The window our made-up SYN-ACK promised.
pub const LOCAL_WINDOW: u32 = 64240;

/// A namespace for the server, and a cable to another in which a raw host can sit.
pub struct Lab {
    pub server: Namespace,
    pub far: Interface,
    pub near: Interface,
}

impl Lab {
    pub fn new() -> Lab {
        let (server, client) = (Namespace::new(), Namespace::new());
        let (far, near) = veth(
            (&server, "srv0", &["198.18.0.1/24", "2001:db8::1/64"]),
            (&client, "cli0", &["198.18.0.2/24", "2001:db8::2/64"]),
        );
        Lab { server, far, near }
    }

    /// The client: an address of its own, which no kernel answers for.
    pub fn host(&self) -> RawHost {
        RawHost::new(&self.near, &self.far, "198.18.0.77")
    }

    /// Makes the server's kernel cut its data itself, not leave that to the cable, so that a frame is a segment.
    pub fn send_segment_by_segment(&self) {
        self.server.ip("link set srv0 gso_max_segs 1");
    }

    /// A listener of the kernel's in the server's namespace.
    pub fn listen(&self, addr: &str, stats: &Arc<ConnectionStats>) -> KernelListener {
        let runtime = tokio::runtime::Handle::current();
        self.server.run(move || {
            let _inside = runtime.enter();
            KernelListener::bind(addr.parse().unwrap(), 16, Arc::clone(stats)).unwrap()
        })
    }

    /// A scripted client's connection that the kernel has accepted.
    pub async fn accept_script<'a>(
        &self,
        host: &'a RawHost,
        port: u16,
    ) -> (Script<'a>, Connection, Arc<ConnectionStats>) {
        let stats = Arc::default();
        let mut listener = self.listen(SERVER_V4, &stats);
        let mut script = host.script(port, SERVER_V4.parse().unwrap());
        script.handshake();
        (script, listener.accept().await.unwrap(), stats)
    }

    pub fn adopt(&self, accepted: &Accepted, early: &mut (dyn EarlyData + Send)) -> Result<TcpStream, Refusal> {
        self.server.run(move || adopt(accepted, early)).map(|adopted| adopted.stream)
    }
}

/// What both sides offered in made-up handshakes: the usual.
pub fn usual_options() -> Negotiated {
    Negotiated { peer_mss: 1460, peer_wscale: Some(7), local_wscale: Some(7), sack: true, timestamps: None }
}

pub fn with_timestamps(local: u32, peer: u32) -> Negotiated {
    Negotiated { timestamps: Some(Timestamps { local, peer }), ..usual_options() }
}

/// The outcome of a handshake between a script and the server that nobody has had. Sets the script's sequence numbers to match.
pub fn shaken(script: &mut Script<'_>, server: &str, options: Negotiated) -> Accepted {
    script.snd_nxt = script.iss().wrapping_add(1);
    script.rcv_nxt = ISS.wrapping_add(1);
    handshake(server.parse().unwrap(), script.local(), ISS, script.iss(), options)
}

/// A finished handshake between these ends with these initial sequence numbers.
pub fn handshake(local: SocketAddr, peer: SocketAddr, iss: u32, irs: u32, options: Negotiated) -> Accepted {
    Accepted {
        tuple: FourTuple { local: local.into(), peer: peer.into() },
        scope_id: 0,
        iss: SeqNum::new(iss),
        irs: SeqNum::new(irs),
        options,
        peer_window: LOCAL_WINDOW,
        local_window: LOCAL_WINDOW,
        via: Via::Cookie,
        handshake: Some(Duration::from_millis(3)),
    }
}

/// A tap that saw nothing.
pub struct NoData;

impl EarlyData for NoData {
    fn collect(&mut self) -> &[u8] {
        &[]
    }
}

/// Reads exactly `len` bytes from a non-blocking stream.
pub fn read_exactly(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    stream.set_nonblocking(true).unwrap();
    bytes
}

/// Runs blocking code beside the runtime.
pub async fn ends<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(body).await.unwrap()
}

/// Reads a blocking stream to the peer's FIN.
pub fn read_all(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a non-blocking stream to the peer's FIN.
pub fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    read_all(stream)
}

/// Asserts that there is nothing to read, now and for a while.
pub fn assert_nothing_to_read(stream: &mut TcpStream) {
    let end = Instant::now() + GLANCE;
    while Instant::now() < end {
        assert_eq!(stream.read(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        std::thread::yield_now();
    }
}

/// A client's plain socket and the server's connection.
pub async fn connected() -> (TcpStream, Connection, Arc<ConnectionStats>) {
    let stats = Arc::new(ConnectionStats::default());
    let mut listener = KernelListener::bind("127.0.0.1:0".parse().unwrap(), 16, Arc::clone(&stats)).unwrap();
    let client = TcpStream::connect(listener.local_addr()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    let connection = listener.accept().await.unwrap();
    assert_eq!((stats.accepted(), stats.open()), (1, 1));
    (client, connection, stats)
}

/// Asserts that the one connection was counted as closed, once, for this reason.
pub fn assert_closed(stats: &ConnectionStats, reason: CloseReason) {
    let counts = CloseReason::ALL.map(|reason| (reason, stats.closed(reason)));
    assert_eq!(counts, CloseReason::ALL.map(|each| (each, u64::from(each == reason))));
    assert_eq!(stats.open(), 0);
}

/// Makes the client's end of the connection end with RST when it is dropped.
pub fn reset(client: &TcpStream) {
    SockRef::from(client).set_linger(Some(Duration::ZERO)).unwrap();
}

/// What `ss` says about the connections of the server's port 8080.
pub fn ss(namespace: &Namespace) -> String {
    namespace.output("ss", "-Htaino sport = :8080")
}

pub fn wait_for_state(namespace: &Namespace, state: &str) {
    eventually(state, PATIENCE, || ss(namespace).contains(state));
}

/// Waits until something holds, while the runtime's other tasks go on.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a future on a runtime of the calling thread, and fails when it hangs.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 2, future).await.expect("the test hangs") })
}
