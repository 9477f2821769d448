//! The standard `process_*` metrics.

use std::io;
use std::path::{Path, PathBuf};

use metrics::Gauge;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

use super::proc_file::{ProcFile, invalid, named};
use crate::registry::Registry;

/// What the kernel knows of this process.
pub(super) struct Process {
    /// `/proc`.
    proc: PathBuf,
    status: ProcFile,
    cpu_seconds: f64,
    /// Whether it is shown.
    start_time_known: bool,
    start_time: Gauge,
    resident: Gauge,
    virtual_size: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
}

impl Process {
    /// From below `proc`, which is `/proc`.
    pub(super) fn register(registry: &Registry, proc: &Path) -> Process {
        let mut process = Process {
            proc: proc.to_owned(),
            status: ProcFile::new(proc.join("self/status")),
            cpu_seconds: 0.0,
            start_time_known: false,
            start_time: registry.gauge("process_start_time_seconds", &[]),
            resident: registry.gauge("process_resident_memory_bytes", &[]),
            virtual_size: registry.gauge("process_virtual_memory_bytes", &[]),
            open_fds: registry.gauge("process_open_fds", &[]),
            max_fds: registry.gauge("process_max_fds", &[]),
        };
        // Now, while there are descriptors; if it fails, each run tries again, and says what is the matter.
        let _ = process.collect_start_time();
        process
    }

    /// Each part for itself: what fails withholds none of the others. Of several failures the first is told.
    pub(super) fn collect(&mut self) -> io::Result<()> {
        let parts = [self.collect_cpu(), self.collect_fds(), self.collect_memory(), self.collect_start_time()];
        parts.into_iter().collect()
    }

    fn collect_cpu(&mut self) -> io::Result<()> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        self.cpu_seconds = self.cpu_seconds.max(microseconds as f64 / 1e6);
        Ok(())
    }

    fn collect_fds(&self) -> io::Result<()> {
        let (fds_max, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        self.max_fds.set(fds_max as f64);
        self.open_fds.set(open_fds(&self.proc.join("self/fd"), fds_max)? as f64);
        Ok(())
    }

    fn collect_memory(&mut self) -> io::Result<()> {
        let status = self.status.read()?;
        let [resident, virtual_size] = ["VmRSS:", "VmSize:"].map(|field| size_bytes(status, field).ok_or(field));
        let absent = |field: &str| self.status.invalid(&format!("{field} has no size"));
        self.resident.set(resident.map_err(absent)? as f64);
        self.virtual_size.set(virtual_size.map_err(absent)? as f64);
        Ok(())
    }

    fn collect_start_time(&mut self) -> io::Result<()> {
        if !self.start_time_known {
            self.start_time.set(start_time_seconds(&self.proc)?);
            self.start_time_known = true;
        }
        Ok(())
    }

    pub(super) fn cpu_seconds(&self) -> f64 {
        self.cpu_seconds
    }
}

/// Descriptors open now, which are the entries of this directory; works when none is left.
fn open_fds(directory: &Path, fds_max: u64) -> io::Result<u64> {
    let failed = |error: io::Error| named(directory, &error);
    // Since Linux 6.2 the directory's size is the number of its entries.
    let size = std::fs::metadata(directory).map_err(failed)?.len();
    if size > 0 {
        return Ok(size);
    }
    match std::fs::read_dir(directory) {
        // One of the entries is the descriptor that lists them.
        Ok(entries) => Ok((entries.count() as u64).saturating_sub(1)),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EMFILE as i32) => Ok(fds_max),
        Err(error) => Err(failed(error)),
    }
}

/// The value of a line like `VmRSS:     1234 kB`.
fn size_bytes(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// When the process started, in seconds since the epoch.
fn start_time_seconds(proc: &Path) -> io::Result<f64> {
    let field = |file: &str, what: &str, find: fn(&str) -> Option<f64>| {
        let path = proc.join(file);
        let text = std::fs::read_to_string(&path).map_err(|error| named(&path, &error))?;
        find(&text).ok_or_else(|| invalid(&path, what))
    };
    let boot = field("stat", "btime has no value", boot_time_seconds)?;
    let start = field("self/stat", "field 22, starttime, has no value", start_time_ticks)?;
    Ok(boot + start / TICKS_PER_SECOND)
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
    use crate::testing::FakeProc;

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
        let started = start_time_seconds(Path::new("/proc")).unwrap();
        // The kernel rounds the time of boot to a second.
        assert!(started < now + 1.0, "{started} {now}");
        assert!(started >= boot_time_seconds(&std::fs::read_to_string("/proc/stat").unwrap()).unwrap());
    }

    #[test]
    fn open_descriptors_are_counted() {
        let listed = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let counted = open_fds(Path::new("/proc/self/fd"), u64::MAX).unwrap();
        // Other tests of this process open and close descriptors meanwhile.
        assert!(counted >= 3 && counted.abs_diff(listed) < 50, "{counted} {listed}");
    }

    #[test]
    fn a_part_that_fails_names_its_file_and_withholds_no_other() {
        let proc = FakeProc::new("process");
        proc.write("self/status", "VmSize:\t  20 kB\nVmRSS:\t    3 kB\n");
        let registry = Registry::new();
        let mut process = Process::register(&registry, proc.path());
        let error = process.collect().unwrap_err().to_string();
        assert!(error.contains("self/fd: "), "{error}");
        let shown = |text: &str| registry.render().contains(&format!("{text}\n"));
        assert!(shown("process_resident_memory_bytes 3072") && shown("process_virtual_memory_bytes 20480"));
        proc.write("self/fd/0", "");
        proc.write("self/status", "VmSize:\t  20 kB\n");
        let error = process.collect().unwrap_err().to_string();
        assert!(error.contains("self/status: VmRSS"), "{error}");
    }

    #[test]
    fn the_start_is_looked_for_until_it_is_known() {
        let proc = FakeProc::new("start");
        proc.write("self/status", "VmSize:\t  20 kB\nVmRSS:\t    3 kB\n");
        proc.write("self/fd/0", "");
        let registry = Registry::new();
        let mut process = Process::register(&registry, proc.path());
        for (file, text) in [("stat", "cpu 1\nbtime 1000\n"), ("self/stat", "7 (a) S")] {
            let error = process.collect().unwrap_err().to_string();
            assert!(error.contains(&format!("{file}: ")), "{error}");
            proc.write(file, text);
        }
        assert!(process.collect().unwrap_err().to_string().contains("self/stat: field 22"));
        proc.write("self/stat", "7 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 250 99");
        process.collect().unwrap();
        assert!(registry.render().contains("process_start_time_seconds 1002.5\n"));
    }
}
