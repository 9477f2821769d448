//! What the benches that need a network share: cores, clocks of processor time, medians.
#![allow(dead_code)] // Each bench uses its part of this.

pub mod flooded;

use std::fs;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Whether this is to be a short run: asked for with `-- --quick`, or called as a test and not as a bench.
pub fn is_quick() -> bool {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    asked("--quick") || !asked("--bench")
}

/// Whether this is one of those named in the arguments, or nothing is named.
pub fn is_asked(name: &str) -> bool {
    let mut named = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).peekable();
    named.peek().is_none() || named.any(|argument| argument == name)
}

/// The first two cores this process may use.
///
/// # Panics
/// When there is only one: everything here is about who works where.
pub fn two_cores() -> [usize; 2] {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("sched_getaffinity");
    let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
    let pair = cores.next().zip(cores.next()).expect("this bench needs two cores");
    [pair.0, pair.1]
}

/// Runs a closure while the calling thread is bound to these cores; threads that it starts inherit that and keep it.
pub fn on_cores<R>(cores: &[usize], body: impl FnOnce() -> R) -> R {
    let myself = Pid::from_raw(0);
    let before = sched_getaffinity(myself).expect("sched_getaffinity");
    let mut wanted = CpuSet::new();
    cores.iter().for_each(|&core| wanted.set(core).expect("a core of this machine"));
    sched_setaffinity(myself, &wanted).expect("sched_setaffinity");
    let result = body();
    sched_setaffinity(myself, &before).expect("sched_setaffinity");
    result
}

/// Processor time so far, in nanoseconds where the kernel counts in them.
#[derive(Clone, Copy, Debug)]
pub struct CpuTimes {
    /// Of all threads of this process, the ended ones included. Interrupts are part of it: unless the kernel is built with
    /// `CONFIG_IRQ_TIME_ACCOUNTING`, they count for the thread that they interrupt.
    process: Duration,
    /// Of the kernel threads that take over interrupt work when there is too much of it.
    ksoftirqd: Duration,
    /// Of all cores, all processes: by the kernel's ticks, so good to some milliseconds.
    machine: Duration,
    at: Instant,
}

impl CpuTimes {
    pub fn now() -> CpuTimes {
        let process = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("the process's clock").into();
        CpuTimes { process, ksoftirqd: ksoftirqd(), machine: machine_busy(), at: Instant::now() }
    }

    /// What was used since.
    pub fn used(&self) -> CpuUse {
        let now = CpuTimes::now();
        CpuUse {
            ours: now.process - self.process + now.ksoftirqd.saturating_sub(self.ksoftirqd),
            machine: now.machine.saturating_sub(self.machine),
            elapsed: now.at - self.at,
        }
    }
}

/// Processor time used in a span of time.
#[derive(Clone, Copy, Debug)]
pub struct CpuUse {
    /// By this process and by the kernel for it.
    pub ours: Duration,
    /// By everything on the machine.
    pub machine: Duration,
    pub elapsed: Duration,
}

impl CpuUse {
    /// How many cores the rest of the machine kept busy meanwhile: noise, when it is not near 0.
    pub fn neighbours(&self) -> f64 {
        (self.machine.as_secs_f64() - self.ours.as_secs_f64()) / self.elapsed.as_secs_f64()
    }
}

/// Processor time of the threads of this process whose name begins like this.
pub fn threads_named(prefix: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc/self/task");
    tasks.flatten().map(|task| run_time_if_named(&task.path(), prefix)).sum()
}

fn ksoftirqd() -> Duration {
    let processes = fs::read_dir("/proc").expect("/proc");
    processes.flatten().map(|process| run_time_if_named(&process.path(), "ksoftirqd/")).sum()
}

/// The first number of `schedstat` is the time on a core, in nanoseconds.
fn run_time_if_named(task: &std::path::Path, prefix: &str) -> Duration {
    let read = |file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
    if !read("comm").starts_with(prefix) {
        return Duration::ZERO;
    }
    let nanos = read("schedstat").split_whitespace().next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// User, nice, system, interrupt and stolen time of all cores, from the first line of `/proc/stat`.
fn machine_busy() -> Duration {
    let text = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let ticks: Vec<u64> =
        text.lines().next().unwrap_or_default().split_whitespace().flat_map(str::parse).take(8).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks[..] else { panic!("/proc/stat: {text}") };
    // USER_HZ is 100 on every architecture Rust runs on.
    Duration::from_millis(10 * (user + nice + system + irq + softirq + steal))
}

/// The middle, the smallest and the largest of some numbers.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// # Panics
    /// When there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Spread { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.min, self.max)
    }
}
