//! Waiting for something to happen, with a deadline.

use std::os::fd::BorrowedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const POLL: Duration = Duration::from_millis(5);

/// Asks until the answer is yes.
///
/// # Panics
/// When it is still no after `within`; the message names `what`.
pub fn eventually(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        sleep(POLL);
    }
}

/// Asks for the whole of a time, and the answer must stay yes.
///
/// # Panics
/// At the first no; the message names `what`.
pub fn holds_for(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert!(condition(), "no longer true: {what}");
        sleep(POLL);
    }
}

/// Waits until there may be something to read; false when the deadline passed first.
pub(crate) fn readable(file: BorrowedFd<'_>, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up, so that the last wait does not spin.
    let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(file, PollFlags::POLLIN)], timeout) {
        Ok(ready) => ready > 0,
        Err(Errno::EINTR) => true,
        Err(errno) => panic!("poll: {errno}"),
    }
}
