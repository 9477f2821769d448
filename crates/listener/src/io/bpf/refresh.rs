//! Whoever reads the counts has the keeper bring them up to date first: it sleeps while nothing happens that does not wait.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A reader waits no longer than that, and then gets what was published last.
const PATIENCE: Duration = Duration::from_millis(100);

/// Asked by readers, answered by the keeper.
#[derive(Debug)]
pub(in crate::io) struct Refresh {
    counts: Mutex<Counts>,
    answered: Condvar,
    wake: UnixStream,
}

#[derive(Debug, Default)]
struct Counts {
    asked: u64,
    answered: u64,
}

impl Refresh {
    /// With what wakes the keeper.
    ///
    /// # Errors
    /// Of dup(2).
    pub(super) fn new(wake: &UnixStream) -> io::Result<Refresh> {
        Ok(Refresh { counts: Mutex::default(), answered: Condvar::new(), wake: wake.try_clone()? })
    }

    /// Returns when the keeper has published what it knew after this call, or after 100 ms.
    pub(in crate::io) fn refresh(&self) {
        let mut counts = self.lock();
        counts.asked += 1;
        let ticket = counts.asked;
        // A full pipe means the keeper has been woken already.
        let _ = (&self.wake).write(&[1]);
        let waits = |counts: &mut Counts| counts.answered < ticket;
        drop(self.answered.wait_timeout_while(counts, PATIENCE, waits));
    }

    /// What the keeper has to answer once it has published everything that is there now.
    pub(super) fn asked(&self) -> u64 {
        self.lock().asked
    }

    /// Everything was published that was there when [`asked`](Refresh::asked) said this.
    pub(super) fn answer(&self, asked: u64) {
        let mut counts = self.lock();
        if counts.answered < asked {
            counts.answered = asked;
            self.answered.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Numbers: nothing is left half done.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::*;

    #[test]
    fn a_reader_waits_for_what_was_there_when_it_asked() {
        let (wake, mut woken) = UnixStream::pair().unwrap();
        let refresh = Refresh::new(&wake).unwrap();
        thread::scope(|scope| {
            let keeper = scope.spawn(|| {
                woken.read_exact(&mut [0]).unwrap();
                refresh.answer(refresh.asked());
            });
            refresh.refresh();
            assert_eq!(refresh.lock().answered, 1);
            keeper.join().unwrap();
        });
    }

    #[test]
    fn without_a_keeper_nobody_waits_for_ever() {
        let (wake, _woken) = UnixStream::pair().unwrap();
        let refresh = Refresh::new(&wake).unwrap();
        refresh.refresh();
        assert_eq!(refresh.lock().answered, 0);
    }
}
