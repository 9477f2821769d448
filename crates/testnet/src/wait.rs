//! Waiting for something to happen, with a deadline.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const POLL: Duration = Duration::from_millis(5);
/// Between two looks, which cost more than a question: they are at a page, or at all that a server counts.
const LOOK: Duration = Duration::from_millis(50);

/// Asks until the answer is yes.
///
/// # Panics
/// When it is still no after `within`; the message names `what`.
pub fn eventually(what: &str, within: Duration, condition: impl FnMut() -> bool) {
    assert!(becomes_true(within, POLL, condition), "not within {within:?}: {what}");
}

/// Looks until what is seen is as wanted, and returns it.
///
/// # Panics
/// When it is still not after `within`; the message names `what`, and tells what was seen last.
pub fn eventually_seen<T: Debug>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> T,
    is_wanted: impl Fn(&T) -> bool,
) -> T {
    let mut last = None;
    let is_seen = becomes_true(within, LOOK, || is_wanted(last.insert(look())));
    let last = last.expect("a look is taken, however short the time");
    assert!(is_seen, "not within {within:?}: {what}; seen last: {last:?}");
    last
}

/// Whether the answer became yes in time. It is asked for once at least.
fn becomes_true(within: Duration, pause: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(pause);
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// For what comes by counting looks, not by time.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// What a closure panics with.
    fn complaint(body: impl FnOnce()) -> String {
        *catch_unwind(AssertUnwindSafe(body)).expect_err("a panic").downcast().expect("a message")
    }

    #[test]
    fn what_becomes_true_is_awaited_and_what_was_wanted_is_returned() {
        let mut looks = 0;
        eventually("three looks", PATIENCE, || {
            looks += 1;
            looks == 3
        });
        let mut numbers = 1..;
        assert_eq!(eventually_seen("a multiple of 7", PATIENCE, || numbers.next(), |seen| *seen == Some(7)), Some(7));
        assert_eq!(numbers.next(), Some(8), "no look after the one that was wanted");
    }

    #[test]
    fn what_never_becomes_true_is_a_panic_that_names_it() {
        let said = complaint(|| eventually("pigs fly", Duration::from_millis(1), || false));
        assert_eq!(said, "not within 1ms: pigs fly");
    }

    #[test]
    fn what_is_never_seen_is_a_panic_that_tells_what_was_seen_last() {
        let mut looks = 0;
        let mut look = || {
            looks += 1;
            looks
        };
        let said = complaint(|| _ = eventually_seen("pigs", Duration::from_millis(50), &mut look, |_| false));
        assert_eq!(said, format!("not within 50ms: pigs; seen last: {looks}"));
    }

    #[test]
    fn without_time_one_look_is_taken() {
        assert_eq!(eventually_seen("it is there", Duration::ZERO, || 5, |seen| *seen == 5), 5);
    }
}
