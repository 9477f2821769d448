//! Runs the binary and looks at it from outside.
#![allow(dead_code)] // Each test file uses a part.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use testnet::Process;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The binary with these arguments.
pub fn portcullis(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    // Not the host's own place for control sockets.
    command.args(args).env("RUNTIME_DIRECTORY", env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null());
    command
}

/// Runs to the end.
pub fn output(args: &[&str]) -> Output {
    portcullis(args).output().unwrap()
}

/// The exit code.
pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A loopback address that no other test uses, in this process or in one that runs beside it.
pub fn own_addr(port: u16) -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = NEXT.fetch_add(1, Ordering::Relaxed);
    // 127.0.0.0/16 is left alone: others use it.
    SocketAddr::from((Ipv4Addr::new(127, high.max(1), low, host), port))
}

/// A file that is removed with its handle.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(text: &str) -> TempFile {
        let path = std::env::temp_dir().join(format!("portcullis-{}-{}", std::process::id(), own_addr(1).ip()));
        fs::write(&path, text).unwrap();
        TempFile(path)
    }

    pub fn path(&self) -> &str {
        Path::to_str(&self.0).unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A running `portcullis run`.
pub struct Server {
    pub process: Process,
    /// The guarded address.
    pub addr: SocketAddr,
    /// The admin server.
    pub admin: SocketAddr,
    /// The line of the start that says where the metrics are.
    pub banner: String,
    lines: Receiver<String>,
}

impl Server {
    /// Starts the kernel tier with these flags more, and waits until it listens.
    pub fn start(args: &[&str]) -> Server {
        let addr = own_addr(8080);
        let listen = addr.to_string();
        let mut command = portcullis(&["run", "--datapath", "kernel", "--listen", &listen, "--admin", "127.0.0.1:0"]);
        command.args(args);
        Server::spawn(command, addr)
    }

    /// Starts a command that guards `addr`.
    pub fn spawn(mut command: Command, addr: SocketAddr) -> Server {
        let (reader, writer) = std::io::pipe().unwrap();
        command.stderr(writer);
        let process = Process::spawn(command).unwrap();
        let (sender, lines) = mpsc::channel();
        // Ends with the process, which holds the pipe's other end.
        thread::spawn(move || {
            BufReader::new(reader).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut server = Server { process, addr, admin: addr, banner: String::new(), lines };
        server.banner = server.line("http://");
        let metrics = server.banner.split_once("http://").unwrap().1;
        server.admin = metrics.split_once('/').unwrap().0.parse().unwrap();
        server.line("stop ");
        server
    }

    /// The next line of standard error that contains `part`.
    pub fn line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no line with {part:?} in {seen:#?}"),
            }
        }
    }

    /// A connection, whose reads and writes do not hang for ever.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect_timeout(&self.addr, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Waits for the end.
    pub fn exit_code(&mut self) -> i32 {
        self.process.wait(PATIENCE).expect("the process ends").code().expect("by itself")
    }
}
