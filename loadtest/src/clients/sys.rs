//! What tokio asks of a descriptor, and a timer that keeps it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// By the trait that tokio asks for.
#[derive(Debug)]
pub struct Timer(pub TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A timer that the runtime of the calling thread watches.
pub fn timer() -> io::Result<AsyncFd<Timer>> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    // SAFETY: the timer owns its descriptor, gives the same one for as long as it lives, and lives as long as the registration, which
    // owns it.
    Ok(unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE) }?)
}
