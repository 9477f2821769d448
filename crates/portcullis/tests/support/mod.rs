//! A server and a client in two namespaces, a cable between them, and the door at the server's end.
#![allow(dead_code)] // Each test binary uses its part of this.

pub mod battlefield;
pub mod clients;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use testnet::{
    Counters, Flags, Frame, Interface, Metrics, Namespace, Process, RawHost, Script, Signal, eventually, http_get,
    states, veth,
};

/// The guarded port.
pub const PORT: u16 = 8080;
/// The server's addresses, with the guarded port.
pub const V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), PORT);
pub const V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), PORT);
/// Both families.
pub const BOTH: [SocketAddr; 2] = [V4, V6];
/// Nothing here takes longer, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Chooses the datapath under test: `raw`, the default, or `bpf`. With `kernel` the tests are checked against the kernel's
/// own listener; those of what only the door does fail then.
const DATAPATH: &str = "PORTCULLIS_E2E_DATAPATH";

/// Whether all that comes to the guarded addresses is judged by the door under test: refused, too.
pub fn is_raw() -> bool {
    datapath() == "raw"
}

/// Whether the kernel alone answers SYNs.
pub fn is_kernel() -> bool {
    datapath() == "kernel"
}

/// The datapath under test.
pub fn datapath() -> String {
    std::env::var(DATAPATH).unwrap_or_else(|_| "raw".to_owned())
}

/// Two namespaces and the cable between them.
pub struct Lab {
    pub server: Namespace,
    pub client: Namespace,
    pub server_end: Interface,
    pub client_end: Interface,
}

impl Lab {
    pub fn new() -> Lab {
        let (server, client) = (Namespace::new(), Namespace::new());
        let (server_end, client_end) = Lab::cable(&server, &client);
        Lab { server, client, server_end, client_end }
    }

    fn cable(server: &Namespace, client: &Namespace) -> (Interface, Interface) {
        veth(
            (server, "srv0", &["198.18.0.1/24", "2001:db8::1/64"]),
            (client, "cli0", &["198.18.0.2/24", "2001:db8::2/64"]),
        )
    }

    /// Pulls the cable out, does something, and lays another one, with the same names and addresses.
    pub fn replace_cable(&mut self, meanwhile: impl FnOnce(&Lab)) {
        self.server_end.clone().remove();
        meanwhile(self);
        (self.server_end, self.client_end) = Lab::cable(&self.server, &self.client);
    }

    /// A client without a kernel, in the family of this server address.
    pub fn raw_host(&self, server: SocketAddr) -> RawHost {
        let address = if server.is_ipv4() { "198.18.0.77" } else { "2001:db8::77" };
        RawHost::new(&self.client_end, &self.server_end, address)
    }

    /// A kernel client's connection.
    pub fn connect(&self, server: SocketAddr) -> TcpStream {
        connect_from(&self.client, server).unwrap_or_else(|error| panic!("connect to {server}: {error}"))
    }

    /// A listener in the server's namespace for `--upstream`, and its address.
    pub fn upstream(&self) -> (TcpListener, SocketAddr) {
        let listener = self.server.run(|| TcpListener::bind("127.0.0.1:0")).expect("bind the upstream");
        let address = listener.local_addr().expect("address of the upstream");
        (listener, address)
    }
}

/// Connects from a namespace, with deadlines on everything.
pub fn connect_from(namespace: &Namespace, server: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = namespace.run(|| TcpStream::connect_timeout(&server, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends the bytes, closes that direction, and reads to the end.
pub fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut writer = stream.try_clone()?;
    thread::scope(|scope| {
        let written = scope.spawn(move || writer.write_all(bytes).and_then(|()| writer.shutdown(Shutdown::Write)));
        let mut back = Vec::with_capacity(bytes.len());
        stream.read_to_end(&mut back)?;
        written.join().expect("the writing thread")?;
        Ok(back)
    })
}

/// Sends data in two segments, of which the second comes first, and waits for the echo of the first.
pub fn run_ahead(client: &mut Script) {
    let first = client.segment(Flags::ACK | Flags::PSH).payload(b"one ");
    client.snd_nxt += 4;
    client.data(b"two");
    client.send(&first);
    expect_without_reset(client, b"one ");
}

/// Waits for data that begins so; a RST before it is a failure.
pub fn expect_without_reset(client: &mut Script, data: &[u8]) {
    client.expect("data without a RST before it", |frame| {
        assert!(!frame.flags.has(Flags::RST), "{frame:?}");
        frame.payload.starts_with(data)
    });
}

/// Whether the other end has closed the connection in either way: end of stream, or RST.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Sends the bytes and reads as many back.
pub fn echo(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut back = vec![0; bytes.len()];
    stream.write_all(bytes)?;
    stream.read_exact(&mut back)?;
    Ok(back)
}

/// Checks that nothing more comes for a connection but ACKs of what was sent: those of early data may be late, as any
/// may be on a network.
pub fn expect_no_more_than_acks(script: &mut Script<'_>, quiet: Duration) {
    while let Some(late) = script.next(quiet) {
        assert!(late.flags == Flags::ACK && late.payload.is_empty(), "after the end: {late:?}");
    }
}

/// Whether two SYN-ACKs promise the same. The timestamp may move on: it is a clock.
pub fn say_the_same(a: &Frame, b: &Frame) -> bool {
    let promise = |frame: &Frame| {
        let options = (frame.mss(), frame.wscale(), frame.sack_permitted(), frame.timestamps().map(|(_, echo)| echo));
        (frame.flags, frame.seq, frame.ack, frame.window, options)
    };
    promise(a) == promise(b)
}

/// A directory of this test process, gone with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("e2e-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).expect("make a scratch directory");
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file that only its owner can read.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("write a scratch file");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("close a scratch file to others");
        path
    }

    /// Makes a directory.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).expect("make a directory");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // Left behind, it does no harm.
    }
}

/// The binary under test, guarding every address of the server's namespace.
pub struct Door {
    process: Process,
    namespace: Namespace,
    scratch: Scratch,
    /// RSTs of the server's kernel before the door was ready: those to our own questions whether it is.
    resets_before: i64,
}

impl Door {
    /// Starts with one of the built-in services, and waits until it is ready.
    pub fn open(lab: &Lab, service: &str) -> Door {
        Door::with(lab, &["--service", service])
    }

    /// Starts with these arguments more, and waits until it is ready.
    pub fn with(lab: &Lab, arguments: &[&str]) -> Door {
        let mut door = Door::start(lab, &"42".repeat(32), arguments);
        door.wait_until_ready();
        door
    }

    /// Starts with this master key and these arguments more. It may not be ready yet.
    pub fn start(lab: &Lab, key: &str, arguments: &[&str]) -> Door {
        let listen = ["--listen", &format!("0.0.0.0:{PORT}"), "--listen", &format!("[::]:{PORT}")];
        Door::spawn(lab, key, &[&listen[..], arguments].concat())
    }

    /// Starts with a configuration file that names the listeners, and waits until it is ready.
    pub fn configured(lab: &Lab, config: &Path) -> Door {
        Door::ready(lab, lab.server.command(BINARY), config)
    }

    /// Starts with a configuration file from a shell that has run this first: `ulimit -n 64`, `exec 2>&-`.
    pub fn through(lab: &Lab, shell: &str, config: &Path) -> Door {
        let mut command = lab.server.command("sh");
        command.args(["-c", &format!("{shell}; exec \"$0\" \"$@\""), BINARY]);
        Door::ready(lab, command, config)
    }

    /// Starts with a configuration file and these arguments more, and standard error going there.
    pub fn with_stderr(lab: &Lab, stderr: impl Into<Stdio>, config: &Path, arguments: &[&str]) -> Door {
        let mut door = Door::begin(lab, stderr, config, arguments);
        door.wait_until_ready();
        door
    }

    /// The same without waiting: it may not be ready yet, and never be.
    pub fn begin(lab: &Lab, stderr: impl Into<Stdio>, config: &Path, arguments: &[&str]) -> Door {
        let mut command = lab.server.command(BINARY);
        command.stderr(stderr);
        Door::configured_by(lab, command, config, arguments)
    }

    fn ready(lab: &Lab, command: Command, config: &Path) -> Door {
        let mut door = Door::configured_by(lab, command, config, &[]);
        door.wait_until_ready();
        door
    }

    fn configured_by(lab: &Lab, command: Command, config: &Path, arguments: &[&str]) -> Door {
        let config = ["--config", config.to_str().expect("ours")];
        Door::run(lab, command, &"42".repeat(32), &[&config, arguments].concat())
    }

    fn spawn(lab: &Lab, key: &str, arguments: &[&str]) -> Door {
        Door::run(lab, lab.server.command(BINARY), key, arguments)
    }

    /// Runs a command that leads to the binary.
    fn run(lab: &Lab, mut command: Command, key: &str, arguments: &[&str]) -> Door {
        let scratch = Scratch::new();
        command.arg("run").args(arguments);
        for (flag, usual) in [("--admin", ADMIN.to_string()), ("--datapath", datapath())] {
            if !arguments.contains(&flag) {
                command.args([flag, &usual]);
            }
        }
        command.arg("--master-key-file").arg(scratch.file("master.key", key));
        command.env("STATE_DIRECTORY", &scratch.0).env("RUNTIME_DIRECTORY", &scratch.0).stdin(Stdio::null());
        let process = Process::spawn(command).expect("start portcullis");
        Door { process, namespace: lab.server.clone(), scratch, resets_before: 0 }
    }

    pub fn wait_until_ready(&mut self) {
        eventually("portcullis is ready", PATIENCE, || {
            assert!(!self.process.has_ended(), "portcullis ended before it was ready; its last words are above");
            self.is_ready()
        });
        self.resets_before = kernel_resets(&self.namespace);
    }

    /// Checks that the server's kernel has sent no RST to anybody since the door was ready.
    ///
    /// Only where refusing is all ours. Else the kernel refuses what belongs to no connection, as it does without us, and on a busy
    /// machine that may be a client's second answer to a FIN that was sent twice.
    pub fn assert_no_resets(&self) {
        if !is_raw() {
            return;
        }
        assert_eq!(kernel_resets(&self.namespace) - self.resets_before, 0, "the server's kernel sent RST");
    }

    pub fn is_ready(&self) -> bool {
        matches!(http_get(&self.namespace, ADMIN, "/readyz"), Ok((200, _)))
    }

    pub fn metrics(&self) -> Metrics {
        let (status, text) = http_get(&self.namespace, ADMIN, "/metrics").expect("scrape /metrics");
        assert_eq!(status, 200);
        Metrics::parse(&text)
    }

    /// A metric, summed over all its series.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        metrics.get(name, &[]).unwrap_or_else(|| panic!("no metric {name} among {:?}", metrics.names()))
    }

    /// Half-open connections now.
    pub fn half_open(&self) -> f64 {
        self.metrics().get("portcullis_connections", &[("state", "syn_recv")]).expect("portcullis_connections")
    }

    /// Connections by state as `/metrics` tells, without the states that have none.
    pub fn states(&self) -> BTreeMap<String, usize> {
        let states = self.metrics().by_label("portcullis_connections", "state");
        states.into_iter().filter(|(_, count)| *count != 0.0).map(|(state, count)| (state, count as usize)).collect()
    }

    /// Waits until `ss` sees exactly these connections beside the listening sockets, and `/metrics` the same.
    pub fn expect_states(&self, expected: &[(&str, usize)]) {
        let expected: BTreeMap<_, _> = expected.iter().map(|(state, count)| (state.to_string(), *count)).collect();
        let but_listen = |mut states: BTreeMap<String, usize>| {
            states.remove("listen");
            states
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (ss, ours) = (but_listen(states(&self.namespace, PORT)), but_listen(self.states()));
            if ss == expected && ours == expected {
                return;
            }
            assert!(Instant::now() < deadline, "expected {expected:?}; ss sees {ss:?}, /metrics tells {ours:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Puts another master key where the process found its own.
    pub fn replace_key(&self, key: &str) {
        self.scratch.file("master.key", key);
    }

    /// The process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn rss_bytes(&self) -> u64 {
        self.process.rss_bytes()
    }

    pub fn cpu_time(&self) -> Duration {
        self.process.cpu_time()
    }

    pub fn open_descriptors(&self) -> usize {
        self.process.open_descriptors()
    }

    /// Lets the process, which runs already, have no more than this many descriptors.
    pub fn limit_descriptors(&self, limit: usize) {
        let pid = self.process.pid();
        self.namespace.output("prlimit", &format!("--pid {pid} --nofile={limit}:{limit}"));
    }

    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// Waits for the process to end.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        self.process.wait(within).unwrap_or_else(|| panic!("portcullis still runs after {within:?}"))
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.wait(PATIENCE);
    }
}

impl Drop for Door {
    /// A test that failed leaves what the door counted in its output: what happens once in a thousand runs tells no more later.
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let Ok((_, text)) = http_get(&self.namespace, ADMIN, "/metrics") else { return };
        let counted =
            |line: &&str| line.starts_with("portcullis_") && !line.ends_with(" 0") && !line.contains("_bucket");
        eprintln!("the door's counts, and RSTs of its kernel: {}", kernel_resets(&self.namespace) - self.resets_before);
        text.lines().filter(counted).for_each(|line| eprintln!("  {line}"));
    }
}

/// RSTs that the server's kernel has sent.
pub fn kernel_resets(namespace: &Namespace) -> i64 {
    Counters::of(namespace).get("TcpOutRsts")
}
