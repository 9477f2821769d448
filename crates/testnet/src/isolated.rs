//! A test body in a process, a user namespace and a network namespace of its own.

use std::env;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::process::Process;
use crate::sys::{self, IdMaps};

/// Names, for the process inside, the test it was made for.
const INSIDE: &str = "TESTNET_INSIDE";
/// Set to 1, tests that need namespaces say that they were skipped, and pass.
pub(crate) const SKIP: &str = "PORTCULLIS_SKIP_PRIVILEGED";
/// A test that takes longer than this hangs: the slowest here restarts a server over and over, which takes a busy machine a minute.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Runs the body of the enclosing test in namespaces of its own; see [`isolated()`] for the details.
#[macro_export]
macro_rules! isolated {
    ($body:expr $(,)?) => {{
        fn here() {}
        $crate::isolated($crate::test_name_of(here), $body)
    }};
}

/// The name by which the test harness knows the function in which `marker` was defined.
pub fn test_name_of<T>(_marker: T) -> &'static str {
    let path = std::any::type_name::<T>().trim_end_matches("::here").trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_crate, test)| test)
}

/// Runs the body of a test in a process of its own, in a new network namespace with `lo` up: as root in it, by a new user
/// namespace where the caller is not root already. With `TESTNET_USER_NAMESPACE=1` in the environment root gets one too.
///
/// The process is the current test binary, told to run just the test of that name; inside, the same call runs `body`.
/// Its output is shown, and its failure is this test's failure. After 300 s it is killed, with its process group.
///
/// With `PORTCULLIS_SKIP_PRIVILEGED=1` in the environment the body is skipped, which is printed.
///
/// # Panics
/// When the body fails or takes too long, and when no namespace can be made: the message says what is missing.
pub fn isolated(test_name: &str, body: impl FnOnce()) {
    if env::var(INSIDE).is_ok_and(|name| name == test_name) {
        body();
        println!("{}", end_mark(test_name));
        return;
    }
    if env::var(SKIP).is_ok_and(|value| value == "1") {
        println!("skipped, because {SKIP}=1: {test_name}");
        return;
    }
    run_outside(test_name);
}

/// Moves this process, which must have one thread, into namespaces of its own, as [`isolated()`] does for a test.
///
/// For programs: call it first thing in `main`.
///
/// # Errors
/// Of unshare(2) and of writing the id maps: permissions, mostly.
pub fn enter_namespaces() -> io::Result<()> {
    sys::enter_namespaces(&IdMaps::of_caller())
}

/// Printed at the end of the body. The harness is content with a name that matches no test; we are not.
fn end_mark(test_name: &str) -> String {
    format!("testnet: {test_name} ran to its end")
}

/// The turn of a test that wants its peers to wait; see [`take_turns`].
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub struct Turn {
    _lock: Option<Flock<File>>,
}

/// Waits until no other test of this binary has its turn, in this process or in another.
///
/// For tests that need every core: call it before [`isolated!`](crate::isolated!), and hold the turn to the end of the
/// test. Tests that do not call it may still run beside.
///
/// # Panics
/// When the test binary, which is what is locked, cannot be opened or locked.
pub fn take_turns() -> Turn {
    if env::var_os(INSIDE).is_some() {
        return Turn { _lock: None }; // The test outside has it.
    }
    let binary = env::current_exe().and_then(File::open).expect("open the test binary");
    let lock = Flock::lock(binary, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
    Turn { _lock: Some(lock.expect("lock the test binary")) }
}

fn run_outside(test_name: &str) {
    let mut output = File::from(memfd_create(c"testnet-output", MFdFlags::MFD_CLOEXEC).expect("memfd_create"));
    let handle = || Stdio::from(output.try_clone().expect("dup"));
    let mut command = Command::new(env::current_exe().expect("the test binary's own path"));
    command.args([test_name, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.env(INSIDE, test_name).stdin(Stdio::null()).stdout(handle()).stderr(handle());
    sys::isolate_child(&mut command, IdMaps::of_caller());
    let mut process = match Process::spawn_group(command) {
        Ok(process) => process,
        Err(error) => panic!("{}", explain(&error)),
    };
    let status = process.wait(TIMEOUT);
    process.kill_group();

    let mut text = String::new();
    output.rewind().and_then(|()| output.read_to_string(&mut text)).expect("the test's output");
    print!("{text}");
    let status = status.unwrap_or_else(|| panic!("{test_name} was killed after {TIMEOUT:?}"));
    assert!(status.success(), "{test_name} failed inside its namespaces: {status}");
    assert!(text.contains(&end_mark(test_name)), "no test of the name {test_name} ran: is the name right?");
}

fn explain(error: &io::Error) -> String {
    format!(
        "cannot make a user and network namespace for this test: {error}\n\
         It needs one of:\n\
         - root with CAP_SYS_ADMIN and CAP_NET_ADMIN (in a container: --cap-add SYS_ADMIN --cap-add NET_ADMIN and a \
           seccomp profile that allows unshare), or\n\
         - user namespaces for users: sysctl user.max_user_namespaces > 0, kernel.unprivileged_userns_clone=1 on \
           Debian, kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu.\n\
         To go on without these tests, set {SKIP}=1: they then say that they were skipped."
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    #[should_panic(expected = "failed inside its namespaces")]
    fn a_body_that_fails_is_a_test_that_fails() {
        isolated!(|| panic!("as a failing body does"));
    }

    #[test]
    #[should_panic(expected = "no test of the name")]
    fn a_name_that_is_no_test_is_noticed() {
        isolated("isolated::tests::of_another_name", || ());
    }

    #[test]
    fn a_turn_is_had_by_one_at_a_time() {
        let (turn, busy) = (take_turns(), AtomicBool::new(true));
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let _turn = take_turns();
                assert!(!busy.load(Ordering::SeqCst));
            });
            busy.store(false, Ordering::SeqCst);
            drop(turn);
            waits.join().expect("the second turn");
        });
    }

    #[test]
    fn the_body_is_root_and_alone_with_a_loopback() {
        isolated!(|| {
            assert!(nix::unistd::geteuid().is_root());
            assert!(std::net::TcpListener::bind("127.0.0.1:1").is_ok());
            assert!(env::var(INSIDE).is_ok_and(|name| name.ends_with("alone_with_a_loopback")));
        });
    }
}
