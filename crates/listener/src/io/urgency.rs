//! Who goes first on a core when a flood leaves too little of it.
//!
//! Reception and a worker share the cores. With equal shares reception brings more than the worker can answer, the tap overflows, and
//! the price of each frame that is lost there was paid for nothing: at 300 000 SYNs per second on one core a third of all, clients' SYNs
//! among them. So in a flood a worker goes before everything that does not run at a real-time priority: then a frame for which there is
//! no time is left at the device, at no price, and what is received is answered.
//!
//! A flood is what it is from the first moment at which a whole batch of SYNs has waited, until a second after the last, and as long as
//! the listener answers by cookies alone. At other times those who serve the connections do not wait for us.

use std::io;
use std::time::Duration;

use super::sys;
use crate::pressure::Mode;
use crate::time::Time;

/// How long a worker goes first after it was last behind.
const HOLD: Duration = Duration::from_secs(1);

/// A worker's place in the queue for its core.
#[derive(Debug)]
pub(super) struct Urgency {
    refused: Option<io::Error>,
    urgent: bool,
    /// When a whole batch of SYNs was last found waiting.
    behind: Option<Time>,
}

impl Urgency {
    /// For the calling thread; tries out whether it may be put before others.
    pub(super) fn of_this_thread() -> Urgency {
        let refused = sys::go_first(true).and_then(|()| sys::go_first(false)).err();
        Urgency { refused, urgent: false, behind: None }
    }

    /// Why the thread may not be put before others: without CAP_SYS_NICE, with an `RLIMIT_RTPRIO` of 0.
    pub(super) fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
    }

    /// Called by the thread itself after each batch: whether the batch of SYNs was `full`.
    pub(super) fn follow(&mut self, mode: Mode, full: bool, now: Time) {
        if full {
            self.behind = Some(now);
        }
        let lately = self.behind.is_some_and(|then| now.since(then) <= HOLD);
        let urgent = lately || mode == Mode::Cookies;
        if self.refused.is_none() && urgent != self.urgent {
            self.refused = sys::go_first(urgent).err();
            self.urgent = urgent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scheduling policy of the calling thread, from field 41 of `/proc/thread-self/stat`.
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        after_name.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn a_thread_goes_first_in_a_flood_alone() {
        const SKIP: &str = "PORTCULLIS_SKIP_PRIVILEGED";
        if std::env::var(SKIP).is_ok_and(|value| value == "1") {
            return println!("skipped, because {SKIP}=1");
        }
        let mut urgency = Urgency::of_this_thread();
        if let Some(error) = urgency.refused() {
            panic!("needs CAP_SYS_NICE (or {SKIP}=1): {error}");
        }
        let at = |millis| Time::from_secs(1) + Duration::from_millis(millis);
        assert_eq!(policy(), libc::SCHED_OTHER, "trying leaves nothing behind");
        for (mode, full, now, first) in [
            (Mode::Queue, false, at(0), false),
            (Mode::Queue, true, at(1), true),
            (Mode::Queue, false, at(1001), true),
            (Mode::Queue, false, at(1002), false),
            (Mode::Cookies, false, at(1003), true),
            (Mode::Cookies, true, at(2000), true),
            (Mode::Queue, false, at(2001), true),
            (Mode::Queue, false, at(3001), false),
        ] {
            urgency.follow(mode, full, now);
            assert_eq!(policy(), if first { libc::SCHED_RR } else { libc::SCHED_OTHER }, "{mode:?}, {full}, {now:?}");
        }
    }

    /// As with `RLIMIT_RTPRIO` and without CAP_SYS_NICE: the thread may be urgent, and may not become like the others in every way.
    #[test]
    fn a_thread_goes_back_without_the_capability() {
        const SKIP: &str = "PORTCULLIS_SKIP_PRIVILEGED";
        if std::env::var(SKIP).is_ok_and(|value| value == "1") {
            return println!("skipped, because {SKIP}=1");
        }
        // Capabilities are each thread's own.
        let went_back = std::thread::spawn(|| {
            sys::go_first(true).unwrap_or_else(|error| panic!("needs CAP_SYS_NICE (or {SKIP}=1): {error}"));
            caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_NICE).expect("drop a capability");
            sys::go_first(false).map(|()| policy())
        });
        assert_eq!(went_back.join().unwrap().expect("going back"), libc::SCHED_OTHER);
    }

    #[test]
    fn without_the_right_nothing_changes() {
        let refused = Some(io::ErrorKind::PermissionDenied.into());
        let mut urgency = Urgency { refused, urgent: false, behind: None };
        urgency.follow(Mode::Cookies, true, Time::from_secs(1));
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
