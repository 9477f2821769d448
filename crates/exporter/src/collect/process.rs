//! The standard `process_*` metrics.

use std::io;

use metrics::Gauge;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

use super::proc_file::ProcFile;
use crate::registry::Registry;

/// What the kernel knows of this process.
pub(super) struct Process {
    status: ProcFile,
    cpu_seconds: f64,
    resident: Gauge,
    virtual_size: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
}

impl Process {
    pub(super) fn register(registry: &Registry) -> Process {
        let started = registry.gauge("process_start_time_seconds", &[]);
        started.set(start_time_seconds().unwrap_or(0.0));
        Process {
            status: ProcFile::new("/proc/self/status"),
            cpu_seconds: 0.0,
            resident: registry.gauge("process_resident_memory_bytes", &[]),
            virtual_size: registry.gauge("process_virtual_memory_bytes", &[]),
            open_fds: registry.gauge("process_open_fds", &[]),
            max_fds: registry.gauge("process_max_fds", &[]),
        }
    }

    pub(super) fn collect(&mut self) -> io::Result<()> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let cpu_microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        self.cpu_seconds = self.cpu_seconds.max(cpu_microseconds as f64 / 1e6);

        let (fds_max, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        self.max_fds.set(fds_max as f64);
        self.open_fds.set(open_fds(fds_max)? as f64);

        let status = self.status.read()?;
        self.resident.set(size_bytes(status, "VmRSS:").ok_or(io::ErrorKind::InvalidData)? as f64);
        self.virtual_size.set(size_bytes(status, "VmSize:").ok_or(io::ErrorKind::InvalidData)? as f64);
        Ok(())
    }

    pub(super) fn cpu_seconds(&self) -> f64 {
        self.cpu_seconds
    }
}

/// Descriptors open now; works when none is left.
fn open_fds(fds_max: u64) -> io::Result<u64> {
    // Since Linux 6.2 the directory's size is the number of its entries.
    let size = std::fs::metadata("/proc/self/fd")?.len();
    if size > 0 {
        return Ok(size);
    }
    match std::fs::read_dir("/proc/self/fd") {
        // One of the entries is the descriptor that lists them.
        Ok(entries) => Ok((entries.count() as u64).saturating_sub(1)),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EMFILE as i32) => Ok(fds_max),
        Err(error) => Err(error),
    }
}

/// The value of a line like `VmRSS:     1234 kB`.
fn size_bytes(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// When the process started, in seconds since the epoch.
fn start_time_seconds() -> Option<f64> {
    let boot: f64 = boot_time_seconds(&std::fs::read_to_string("/proc/stat").ok()?)?;
    let start: f64 = start_time_ticks(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
    Some(boot + start / TICKS_PER_SECOND)
}

/// `USER_HZ`: what the kernel counts in towards user space, on every architecture Rust's standard library supports.
const TICKS_PER_SECOND: f64 = 100.0;

fn boot_time_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Field 22 of `/proc/self/stat`: see proc_pid_stat(5).
fn start_time_ticks(stat: &str) -> Option<f64> {
    // Field 2, the name in parentheses, may itself hold blanks and parentheses; field 3 is the first behind the last one.
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_name_of_the_process_confuses_nothing() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4321 99";
        assert_eq!(start_time_ticks(stat), Some(4321.0));
        assert_eq!(start_time_ticks("7 (a) S 1"), None);
        assert_eq!(start_time_ticks("nonsense"), None);
    }

    #[test]
    fn sizes_are_in_bytes() {
        assert_eq!(size_bytes("VmSize:\t  20 kB\nVmRSS:\t    3 kB\n", "VmRSS:"), Some(3072));
        assert_eq!(size_bytes("VmRSS:\t 3 MB\n", "VmRSS:"), None);
        assert_eq!(size_bytes("", "VmRSS:"), None);
    }

    #[test]
    fn this_process_started_before_now_and_after_the_machine() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = start_time_seconds().unwrap();
        // The kernel rounds the time of boot to a second.
        assert!(started < now + 1.0, "{started} {now}");
        assert!(started >= boot_time_seconds(&std::fs::read_to_string("/proc/stat").unwrap()).unwrap());
    }

    #[test]
    fn open_descriptors_are_counted() {
        let listed = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let counted = open_fds(u64::MAX).unwrap();
        // Other tests of this process open and close descriptors meanwhile.
        assert!(counted >= 3 && counted.abs_diff(listed) < 50, "{counted} {listed}");
    }
}
