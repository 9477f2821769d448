//! A child process that does not outlive its handle.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::sys;
pub use nix::sys::signal::Signal;

/// A second handle on the TCP socket that this process holds between two addresses, however it is kept; `None` when it holds
/// none.
///
/// # Panics
/// When `/proc` is not mounted.
pub fn own_socket(local: SocketAddr, peer: SocketAddr) -> Option<TcpStream> {
    let numbers = fs::read_dir("/proc/self/fd").expect("our descriptors");
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let handles = numbers.filter_map(|number| sys::duplicate(number).ok().map(TcpStream::from));
    let ends = |stream: &TcpStream| Some((stream.local_addr().ok()?, stream.peer_addr().ok()?));
    handles.into_iter().find(|stream| ends(stream) == Some((local, peer)))
}

/// A running child. Dropping the handle kills the process and waits for its end.
#[derive(Debug)]
pub struct Process {
    child: Child,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts the command.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Process> {
        Ok(Process { child: command.spawn()?, status: None })
    }

    /// Starts the command as the leader of a process group.
    pub(crate) fn spawn_group(mut command: Command) -> io::Result<Process> {
        command.process_group(0);
        Process::spawn(command)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; one that ended already gets none.
    pub fn signal(&mut self, signal: Signal) {
        if self.status.is_none() {
            kill(self.nix_pid(), signal).expect("signal to a child that has not been waited for");
        }
    }

    /// Waits for the process to end; `None` when it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        if self.status.is_none() && self.ends(within) {
            self.status = Some(self.child.wait().expect("wait for a child"));
        }
        self.status
    }

    /// Whether the process has ended. Does not wait.
    pub fn has_ended(&mut self) -> bool {
        self.wait(Duration::ZERO).is_some()
    }

    /// Resident memory in bytes (`VmRSS` of proc(5)).
    ///
    /// # Panics
    /// When the process has ended.
    pub fn rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("status of a live process");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        kib.expect("VmRSS of a live process").parse::<u64>().expect("a number of KiB") * 1024
    }

    /// Processor time used so far, in user and kernel mode, to 10 ms (`utime` and `stime` of proc(5)).
    ///
    /// # Panics
    /// When the process has ended.
    pub fn cpu_time(&self) -> Duration {
        // USER_HZ: what the kernel shows to user space, whatever its own clock. 100 on everything Rust runs on.
        const TICK: Duration = Duration::from_millis(10);
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("stat of a live process");
        // The name, which may hold anything, is the second field and in parentheses; utime and stime are 14 and 15.
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = behind_name.split_whitespace().skip(11).take(2);
        TICK * ticks.map(|ticks| ticks.parse::<u32>().expect("a number of ticks")).sum()
    }

    /// Open file descriptors.
    ///
    /// # Panics
    /// When the process has ended.
    pub fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("descriptors of a live process").count()
    }

    /// Kills the process group this process leads, and waits for its leader.
    pub(crate) fn kill_group(&mut self) {
        // Also after the leader's end: a group keeps its number as long as it has members. None left is fine.
        let _ = killpg(self.nix_pid(), Signal::SIGKILL);
        self.wait(Duration::MAX);
    }

    /// Whether the process becomes a zombie in time. It is not reaped, so its number stays its own.
    fn ends(&self, within: Duration) -> bool {
        let pid = self.nix_pid();
        let ended = move |flags| {
            waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | flags).map(|status| status.pid())
        };
        if ended(WaitPidFlag::WNOHANG).expect("waitid of a child").is_some() {
            return true;
        }
        if within.is_zero() {
            return false;
        }
        let (done, wait) = mpsc::channel();
        thread::spawn(move || done.send(ended(WaitPidFlag::empty()).is_ok()));
        match wait.recv_timeout(within) {
            Ok(ended) => ended,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the waiting thread always sends"),
        }
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait(Duration::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::eventually;

    fn sleeper() -> Process {
        let mut command = Command::new("sleep");
        command.arg("60");
        Process::spawn(command).unwrap()
    }

    #[test]
    fn a_process_runs_until_it_is_told_to_end() {
        let mut process = sleeper();
        assert!(!process.has_ended());
        assert_eq!(process.wait(Duration::from_millis(20)), None);
        assert!(process.rss_bytes() > 0);
        process.signal(Signal::SIGTERM);
        assert_eq!(process.wait(Duration::from_secs(5)).map(|status| status.success()), Some(false));
        assert!(process.has_ended());
    }

    #[test]
    fn processor_time_is_that_of_the_process() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let (busy, idle) = (Process::spawn(command).unwrap(), sleeper());
        eventually("a busy process uses time", Duration::from_secs(20), || busy.cpu_time().as_millis() >= 100);
        assert!(idle.cpu_time() < busy.cpu_time());
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = sleeper();
        let path = format!("/proc/{}", process.pid());
        assert!(fs::exists(&path).unwrap());
        drop(process);
        assert!(!fs::exists(&path).unwrap());
    }
}
