//! Network namespaces.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::process::{self, Command};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::sys;

/// A network namespace. It lives as long as a handle, a process or a socket in it does; a clone is the same namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    handle: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes a namespace with `lo` up and IPv6 addresses usable at once (no duplicate address detection).
    ///
    /// # Panics
    /// Without the right to make one, which a test under [`isolated!`](crate::isolated!) has.
    #[expect(clippy::new_without_default, reason = "a default value should not need rights")]
    pub fn new() -> Namespace {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare a network namespace");
            Namespace::current()
        });
        let namespace = made.join().unwrap_or_else(|panic| resume_unwind(panic));
        namespace.ip("link set lo up");
        // A new namespace does as the first one does, which forwards wherever containers run.
        namespace.sysctl("net.ipv4.ip_forward", "0");
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0");
            namespace.sysctl(&format!("net.ipv6.conf.{scope}.router_solicitations"), "0");
        }
        namespace
    }

    /// The namespace the calling thread is in.
    pub fn current() -> Namespace {
        let handle = File::open("/proc/thread-self/ns/net").expect("open the thread's own network namespace");
        Namespace { handle: Arc::new(handle.into()) }
    }

    /// Runs a closure on a thread inside the namespace and returns what it returns.
    ///
    /// Sockets made there stay in the namespace and may be used anywhere.
    ///
    /// # Panics
    /// With the closure's panic.
    pub fn run<R: Send>(&self, body: impl FnOnce() -> R + Send) -> R {
        let inside = || {
            setns(&*self.handle, CloneFlags::CLONE_NEWNET).expect("enter a namespace of our own");
            body()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// A command whose process runs inside the namespace. It is killed when the thread that spawns it ends.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        sys::place_child(&mut command, Arc::clone(&self.handle));
        command
    }

    /// Runs `ip` with these arguments, split at spaces.
    ///
    /// # Panics
    /// When `ip` is missing or fails, with what it said.
    pub fn ip(&self, arguments: &str) {
        self.output("ip", arguments);
    }

    /// Runs a program with these arguments, split at spaces, and returns its standard output.
    ///
    /// # Panics
    /// When the program is missing or fails, with what it said.
    pub fn output(&self, program: &str, arguments: &str) -> String {
        let output = self.command(program).args(arguments.split_whitespace()).output();
        let output =
            output.unwrap_or_else(|error| panic!("cannot run `{program}` (is its package installed?): {error}"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{program} {arguments}` failed: {}", error.trim());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sets a kernel parameter of the namespace, for example `net.ipv4.tcp_sack` to `0`.
    ///
    /// # Panics
    /// When the kernel has no such parameter for each namespace, or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run(|| fs::write(&path, value)).unwrap_or_else(|error| panic!("sysctl {key}={value}: {error}"));
    }

    /// Names the link-layer address of a neighbour for good, so that nobody has to be there to answer for it.
    pub fn neighbour(&self, address: std::net::IpAddr, mac: crate::Mac, interface: &str) {
        self.ip(&format!("neigh replace {address} lladdr {mac} dev {interface} nud permanent"));
    }

    /// A path by which another process of ours can open the namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.handle.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Namespace;
    use crate::isolated;

    fn inode() -> String {
        fs::read_link("/proc/thread-self/ns/net").unwrap().to_string_lossy().into_owned()
    }

    #[test]
    fn namespaces_differ_and_run_comes_back() {
        isolated!(|| {
            let (a, b, home) = (Namespace::new(), Namespace::new(), inode());
            let seen = [a.run(inode), b.run(inode)];
            assert_ne!(seen[0], seen[1]);
            assert!(!seen.contains(&home));
            assert_eq!(inode(), home);
            assert!(a.output("readlink", "/proc/self/ns/net").contains(&seen[0]));
        });
    }

    #[test]
    fn a_sysctl_of_one_namespace_leaves_the_other_alone() {
        isolated!(|| {
            let (a, b) = (Namespace::new(), Namespace::new());
            let read = || fs::read_to_string("/proc/sys/net/ipv4/tcp_sack").unwrap();
            let before = b.run(read);
            a.sysctl("net.ipv4.tcp_sack", "0");
            assert_eq!(a.run(read).trim(), "0");
            assert_eq!(b.run(read), before);
        });
    }

    #[test]
    #[should_panic(expected = "from inside")]
    fn a_panic_inside_comes_out() {
        Namespace::current().run(|| panic!("from inside"));
    }
}
