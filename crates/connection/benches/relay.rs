//! CPU time of the relay for bulk, by splice and by copying: `cargo bench -p connection --bench relay`.
//!
//! Each line is a process of its own: one thread sends, one receives, and the relay has a third, whose CPU time (user and system) is
//! what counts; on loopback it includes the receiver's half of TCP. With a limit of so few descriptors that it may not make a pipe, the relay copies.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use connection::upstream::Upstream;
use connection::{ConnectionStats, KernelListener, RelayEnd, relay};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

/// Tells a process which of the lines it is.
const LINE: &str = "RELAY_BENCH_LINE";
const TOTAL_BYTES: usize = 2 << 30;
/// Fewer descriptors than the relay wants to have for one pipe.
const TOO_FEW_FOR_A_PIPE: u64 = 60;
const ROUNDS: usize = 3;

fn main() {
    if let Ok(line) = std::env::var(LINE) {
        return measure(&line);
    }
    println!("{:24} {:>12} {:>12}", "", "CPU s/GiB", "GiB/s");
    for line in ["tcp splice", "tcp copy", "unix splice", "unix copy"] {
        for _ in 0..ROUNDS {
            let program = std::env::current_exe().expect("this program's path");
            let status = Command::new(program).env(LINE, line).status().expect("this program");
            assert!(status.success(), "{line}: {status}");
        }
    }
}

fn measure(line: &str) {
    if line.ends_with("copy") {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
        setrlimit(Resource::RLIMIT_NOFILE, TOO_FEW_FOR_A_PIPE, hard).expect("setrlimit");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let (cpu, wall) = runtime.block_on(pass(line.starts_with("unix")));
    let gib = TOTAL_BYTES as f64 / f64::from(1 << 30);
    println!("{line:24} {:>12.3} {:>12.2}", cpu.as_secs_f64() / gib, gib / wall.as_secs_f64());
}

/// Passes the bytes from a client to an upstream; the CPU time of this thread, and the time it took.
async fn pass(unix: bool) -> (Duration, Duration) {
    let stats = Arc::new(ConnectionStats::default());
    let mut door = KernelListener::bind(([127, 0, 0, 1], 0).into(), 1, stats).expect("listen");
    let client = TcpStream::connect(door.local_addr()).expect("connect");
    let connection = door.accept().await.expect("accept");
    let (upstream, server): (Upstream, Box<dyn Read + Send>) = if unix { unix_pair() } else { tcp_pair() };
    let sender = thread::spawn(move || send(client));
    let receiver = thread::spawn(move || receive(server));
    let (start, before) = (Instant::now(), thread_cpu());
    let outcome = relay(connection, upstream, None, None).await;
    let (cpu, wall) = (thread_cpu() - before, start.elapsed());
    assert!(matches!(outcome.end, RelayEnd::Complete), "{outcome:?}");
    sender.join().expect("sender");
    receiver.join().expect("receiver");
    (cpu, wall)
}

fn tcp_pair() -> (Upstream, Box<dyn Read + Send>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let ours = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    ours.set_nonblocking(true).expect("nonblocking");
    let theirs = listener.accept().expect("accept").0;
    (tokio::net::TcpStream::from_std(ours).expect("register").into(), Box::new(theirs))
}

fn unix_pair() -> (Upstream, Box<dyn Read + Send>) {
    let (ours, theirs) = UnixStream::pair().expect("socketpair");
    ours.set_nonblocking(true).expect("nonblocking");
    (tokio::net::UnixStream::from_std(ours).expect("register").into(), Box::new(theirs))
}

fn send(mut client: TcpStream) {
    let chunk = [7; 64 * 1024];
    for _ in 0..TOTAL_BYTES / chunk.len() {
        client.write_all(&chunk).expect("write");
    }
    client.shutdown(Shutdown::Write).expect("shutdown");
    // The other direction ends with the server's drop; until then the client stays.
    client.read_to_end(&mut Vec::new()).expect("FIN");
}

fn receive(mut server: Box<dyn Read + Send>) {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match server.read(&mut buffer).expect("read") {
            0 => break,
            len => total += len,
        }
    }
    assert_eq!(total, TOTAL_BYTES);
}

fn thread_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("getrusage");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}
