//! Notices that a packet worker, or the keeper of the eBPF programs, has died.
//!
//! The kernel goes on giving a dead worker its part of the packets, and those clients would get no answer, for ever, while
//! everything else looks well. A dead keeper's programs are gone, and the kernel answers by itself, without our protection.

use std::thread;

use listener::{Accepted, EarlyData, Establish, Refusal};
use tokio_util::sync::CancellationToken;

/// Raised by the first watched thread that panics.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    raised: CancellationToken,
    told: bool,
}

impl Alarm {
    /// Gives a thread what it holds to its end (a worker its maker of connections), with the means to raise the alarm.
    pub(crate) fn watch<E>(&self, establish: E) -> Watched<E> {
        Watched { establish, raise: self.raised.clone() }
    }

    /// Returns once, when the alarm has been raised. Cancel safe.
    pub(crate) async fn raised(&mut self) {
        if self.told {
            std::future::pending::<()>().await;
        }
        self.raised.cancelled().await;
        self.told = true;
    }

    /// Whether the alarm has been raised and nobody been told.
    pub(crate) fn take(&mut self) -> bool {
        self.raised.is_cancelled() && !std::mem::replace(&mut self.told, true)
    }
}

/// What a thread holds to its end.
#[derive(Debug)]
pub(crate) struct Watched<E> {
    establish: E,
    raise: CancellationToken,
}

impl<E: Establish> Establish for Watched<E> {
    type Connection = E::Connection;

    fn establish(
        &mut self,
        accepted: &Accepted,
        early: &mut dyn EarlyData,
    ) -> Result<(Self::Connection, u32), Refusal> {
        self.establish.establish(accepted, early)
    }

    fn hand_over(&mut self, connection: Self::Connection) {
        self.establish.hand_over(connection);
    }
}

impl<E> Drop for Watched<E> {
    /// A worker that was told to end does not panic.
    fn drop(&mut self) {
        if thread::panicking() {
            self.raise.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_panics_raises_the_alarm_once_and_one_that_ends_does_not() {
        let mut alarm = Alarm::default();
        let (good, bad) = (alarm.watch(()), alarm.watch(()));
        thread::spawn(move || drop(good)).join().unwrap();
        assert!(!alarm.take());
        let died = thread::spawn(move || {
            let _establish = bad;
            panic!("as a worker with a bug does");
        });
        assert!(died.join().is_err());
        alarm.raised().await;
        assert!(!alarm.take());
    }
}
