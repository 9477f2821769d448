//! Processor time of single threads to the nanosecond, and the kernel's memory of sockets.
//!
//! Unlike the time of whole cores, it leaves out whoever else works on them.

use std::fs;
use std::time::Duration;

/// Bytes of a page, on everything this runs on but a few ARM kernels; there, memory is told too low by the same factor for everybody.
const PAGE_BYTES: u64 = 4096;

/// How long the threads of a process and of its children have run so far, the interrupt work done on their time included
/// (`/proc/PID/task/TID/schedstat`). A thread that has ended is not counted any more.
pub fn ran_for(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .map(|task| {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let children = read("children");
            let children = children.split_whitespace().filter_map(|child| child.parse().ok());
            nanoseconds(&read("schedstat")) + children.map(ran_for).sum::<Duration>()
        })
        .sum()
}

/// `3820167 88210 54`: time on a processor, time in its queue, and how often.
fn nanoseconds(schedstat: &str) -> Duration {
    let first = schedstat.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}

/// Memory that the kernel counts for the buffers of all TCP sockets of the machine (`/proc/net/sockstat`).
pub fn tcp_memory_bytes() -> Option<u64> {
    pages(&fs::read_to_string("/proc/net/sockstat").ok()?).map(|pages| pages * PAGE_BYTES)
}

/// `TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3`.
fn pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    line.rsplit_once("mem ")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::thread;

    use super::*;

    #[test]
    fn a_busy_thread_is_seen_to_run() {
        let (own, busy) = (std::process::id(), Duration::from_millis(5));
        let before = ran_for(own);
        thread::scope(|scope| {
            let worked = scope.spawn(|| {
                while ran_for(own) < before + busy {
                    black_box(0);
                }
            });
            worked.join().expect("a thread");
        });
        assert!(before > Duration::ZERO);
        assert_eq!(ran_for(0), Duration::ZERO, "nobody has this number");
    }

    #[test]
    fn lines_of_the_kernel_are_understood() {
        assert_eq!(nanoseconds("3820167 88210 54\n"), Duration::from_nanos(3_820_167));
        assert_eq!(nanoseconds(""), Duration::ZERO);
        let text = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3\nUDP: inuse 1 mem 8\n";
        assert_eq!((pages(text), pages("UDP: inuse 1 mem 8\n")), (Some(3), None));
    }
}
