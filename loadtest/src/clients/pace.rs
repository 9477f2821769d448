//! Waiting to the microsecond: tokio's own timers are good to a millisecond, which is more than a connect takes.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

use super::sys::{self, Timer};

/// A timer.
#[derive(Debug)]
pub struct Pace {
    timer: AsyncFd<Timer>,
}

impl Pace {
    /// Must be made inside a runtime.
    ///
    /// # Errors
    /// Of timerfd_create(2).
    pub fn new() -> io::Result<Pace> {
        Ok(Pace { timer: sys::timer()? })
    }

    /// Waits until this moment; not at all, if it has passed.
    ///
    /// # Errors
    /// Of timerfd_settime(2).
    pub async fn until(&self, moment: Instant) -> io::Result<()> {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left < Duration::from_micros(1) {
                return Ok(());
            }
            let once = Expiration::OneShot(TimeSpec::from_duration(left));
            self.timer.get_ref().0.set(once, TimerSetTimeFlags::empty())?;
            // Setting it anew takes back that it rang before.
            self.timer.readable().await?.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_as_long_as_asked_and_again() {
        let pace = Pace::new().unwrap();
        for _ in 0..3 {
            let moment = Instant::now() + Duration::from_micros(300);
            pace.until(moment).await.unwrap();
            assert!(Instant::now() >= moment - Duration::from_micros(1));
        }
        pace.until(Instant::now()).await.unwrap();
    }
}
