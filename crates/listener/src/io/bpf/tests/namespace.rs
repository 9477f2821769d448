//! Each test in a network namespace of its own: sockets, addresses and a device that nothing else can disturb.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare};
use nix::unistd::Pid;

use super::{Bench, CONSTANTS, ListenerWords, Programs, SERVER, SERVER_V6};

/// Index of the device that is not loopback, and that has its address.
pub(super) const WIRE: u32 = 7;

/// Loopback and one end of a cable take the same link address, so that one frame suits both. What is sent to a client gets
/// lost behind the cable.
const SETUP: &str = "link set lo address 02:00:00:00:00:01 up
link add wire0 index 7 address 02:00:00:00:00:01 type veth peer name wire1
link set wire0 up
link set wire1 up
address add 198.18.0.1/32 dev lo
address add 2001:db8::1/128 dev lo nodad
route add 198.18.0.0/15 dev wire0
route add 2001:db8::/32 dev wire0
";

/// Programs without a test: to load them, the kernel needs most of a second.
static IDLE: Mutex<Vec<Programs>> = Mutex::new(Vec::new());

/// Runs a test on programs that guard both servers' port 80 and were told this.
pub(super) fn on_bench(listener: ListenerWords, test: impl FnOnce(&mut Bench) + Send) {
    on_bench_for(&[SERVER, SERVER_V6], listener, test);
}

/// The same with other guarded addresses.
pub(super) fn on_bench_for(guarded: &[&str], listener: ListenerWords, test: impl FnOnce(&mut Bench) + Send) {
    const SKIP: &str = "PORTCULLIS_SKIP_PRIVILEGED";
    if std::env::var(SKIP).is_ok_and(|value| value == "1") {
        println!("skipped, because {SKIP}=1");
        return;
    }
    let on_thread = || {
        isolate().unwrap_or_else(|error| panic!("needs CAP_SYS_ADMIN and ip (or {SKIP}=1): {error}"));
        let idle = IDLE.lock().unwrap().pop();
        let needs = format!("needs Linux 6.9, CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (or {SKIP}=1)");
        let load = || Programs::load(&CONSTANTS, None).unwrap_or_else(|error| panic!("{needs}: {error}"));
        let mut bench = Bench::new(idle.unwrap_or_else(load), guarded, listener);
        test(&mut bench);
        IDLE.lock().unwrap().push(bench.programs);
    };
    std::thread::scope(|scope| {
        let outcome = scope.spawn(on_thread).join();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Moves this thread into a new namespace, and ties it to one CPU: the programs' budgets are per CPU.
fn isolate() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn()?;
    ip.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(SETUP.as_bytes()))?;
    let status = ip.wait()?;
    for device in ["all", "lo"] {
        // The clients' segments come over loopback, although the way to them is another.
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"), "0")?;
    }
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("ip: {status}"))) }
}
