//! Whoever reads the counts has the keeper bring them up to date first: it sleeps while nothing happens that does not wait.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
    /// With what wakes the keeper, which must not block.
    ///
    /// # Errors
    /// Of dup(2).
    pub(super) fn new(wake: &UnixStream) -> io::Result<Refresh> {
        Ok(Refresh { counts: Mutex::default(), answered: Condvar::new(), wake: wake.try_clone()? })
    }

    /// For the keeper: when this is dropped, nobody waits for it any more.
    pub(super) fn promise(self: Arc<Refresh>) -> Promise {
        Promise(self)
    }

    /// Returns when the keeper has published what it knew after this call, or after 100 ms.
    pub(in crate::io) fn refresh(&self) {
        let mut counts = self.lock();
        counts.asked += 1;
        let ticket = counts.asked;
        let waits = |counts: &mut Counts| counts.answered < ticket;
        if !waits(&mut counts) {
            return; // Nobody keeps the programs any more.
        }
        // It does not block: a full pipe means the keeper has been woken already.
        let _ = (&self.wake).write(&[1]);
        drop(self.answered.wait_timeout_while(counts, PATIENCE, waits));
    }

    fn close(&self) {
        self.lock().answered = u64::MAX;
        self.answered.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Numbers: nothing is left half done.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keeper's side.
#[derive(Debug)]
pub(super) struct Promise(Arc<Refresh>);

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Promise {
    /// What the keeper has to answer once it has published everything that is there now.
    pub(super) fn asked(&self) -> u64 {
        self.0.lock().asked
    }

    /// Everything was published that was there when [`asked`](Promise::asked) said this.
    pub(super) fn answer(&self, asked: u64) {
        let mut counts = self.0.lock();
        if counts.answered < asked {
            counts.answered = asked;
            self.0.answered.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::*;

    fn pair() -> (Arc<Refresh>, UnixStream) {
        let (wake, woken) = UnixStream::pair().unwrap();
        wake.set_nonblocking(true).unwrap();
        (Arc::new(Refresh::new(&wake).unwrap()), woken)
    }

    #[test]
    fn a_reader_waits_for_what_was_there_when_it_asked() {
        let (refresh, mut woken) = pair();
        let promise = refresh.clone().promise();
        thread::scope(|scope| {
            let keeper = scope.spawn(|| {
                woken.read_exact(&mut [0]).unwrap();
                promise.answer(promise.asked());
            });
            refresh.refresh();
            assert_eq!(refresh.lock().answered, 1);
            keeper.join().unwrap();
        });
    }

    #[test]
    fn many_readers_without_an_answer_wait_no_longer_than_one() {
        let (refresh, _woken) = pair();
        let _promise = refresh.clone().promise();
        thread::scope(|scope| {
            for _ in 0..400 {
                scope.spawn(|| refresh.refresh());
            }
        });
        let counts = refresh.lock();
        assert_eq!((counts.asked, counts.answered), (400, 0));
    }

    #[test]
    fn without_a_keeper_nobody_waits() {
        let (refresh, mut woken) = pair();
        drop(refresh.clone().promise());
        refresh.refresh();
        woken.set_nonblocking(true).unwrap();
        assert!(woken.read(&mut [0]).is_err(), "nobody was woken");
    }
}
