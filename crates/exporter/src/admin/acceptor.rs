//! Accepting, also when there are no descriptors left.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tracing::{info, warn};

/// Accepts connections; on failure pauses instead of spinning.
///
/// A listening socket with a waiting client stays readable while `accept` fails for want of a descriptor, so a loop that just
/// tries again takes a whole core, at the very moment that core is needed. This one tries ten times a second, and it keeps one
/// descriptor in reserve to be given up for a client. Another thread may be faster to take it; then the reserve is gone until
/// a descriptor comes free.
pub(super) struct Acceptor {
    listener: TcpListener,
    reserve: Option<File>,
    pause_until: Option<Instant>,
    shortage: Shortage,
}

/// A client, and whether it has the reserved descriptor and so must hurry.
pub(super) struct Admitted {
    pub(super) stream: TcpStream,
    pub(super) on_reserve: bool,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener) -> Acceptor {
        let mut acceptor = Acceptor { listener, reserve: None, pause_until: None, shortage: Shortage::default() };
        acceptor.refill();
        acceptor
    }

    /// The listening socket, for another process.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// The next client. May be dropped and called again without losing one.
    pub(super) async fn accept(&mut self) -> Admitted {
        loop {
            self.pause().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    self.refill();
                    // Without a reserve behind it, this client has what should have been the reserve.
                    let on_reserve = self.reserve.is_none();
                    self.note_recovery();
                    return Admitted { stream, on_reserve };
                }
                Err(error) if is_out_of_descriptors(&error) => {
                    self.note_exhaustion(&error);
                    if let Some(stream) = self.accept_on_reserve().await {
                        return Admitted { stream, on_reserve: true };
                    }
                }
                // A client that gave up while it waited, or a kernel out of buffers: none is worth another look at once.
                Err(_) => self.pause_until = Some(Instant::now() + PAUSE),
            }
        }
    }

    /// Takes the reserve again if it is out and a descriptor is to be had. To be called when one may have come free.
    pub(super) fn refill(&mut self) {
        if self.reserve.is_none() {
            self.reserve = File::open("/dev/null").ok();
        }
        if self.reserve.is_some() {
            self.pause_until = None;
        }
    }

    /// Waits until the pause is over. A cancelled wait goes on at the next call.
    async fn pause(&mut self) {
        if let Some(until) = self.pause_until {
            tokio::time::sleep_until(until).await;
            self.pause_until = None;
            self.refill();
        }
    }

    /// Gives up the reserve for the client that waits, if one does; else pauses.
    async fn accept_on_reserve(&mut self) -> Option<TcpStream> {
        let accepted = match self.reserve.take() {
            Some(reserve) => {
                drop(reserve);
                poll_fn(|cx| Poll::Ready(self.listener.poll_accept(cx))).await
            }
            None => Poll::Ready(Err(Errno::EMFILE.into())),
        };
        match accepted {
            Poll::Ready(Ok((stream, _))) => Some(stream),
            Poll::Ready(Err(_)) => {
                self.pause_until = Some(Instant::now() + PAUSE);
                None
            }
            // The kernel looks for a descriptor before it looks for a client, and there was none after all.
            Poll::Pending => {
                self.refill();
                None
            }
        }
    }

    fn note_exhaustion(&mut self, error: &io::Error) {
        if self.shortage.seen(Instant::now()) {
            warn!(%error, "admin server: no descriptors left, serving one client at a time");
        }
    }

    fn note_recovery(&mut self) {
        if self.reserve.is_some() && self.shortage.is_over(Instant::now()) {
            info!("admin server: descriptors are to be had again");
        }
    }
}

/// What was logged of a want of descriptors: a line when it begins and one when it is over, and it is over when it has been quiet for
/// [`QUIET`], so that clients who come and go cannot fill the log.
#[derive(Default)]
struct Shortage {
    /// When it was met last, from the line that announces it to the line that says it is over.
    last: Option<Instant>,
}

impl Shortage {
    /// It was met; whether that is worth a line.
    fn seen(&mut self, now: Instant) -> bool {
        self.last.replace(now).is_none()
    }

    /// A client was let in without it; whether that is worth a line.
    fn is_over(&mut self, now: Instant) -> bool {
        self.last.take_if(|last| now.saturating_duration_since(*last) >= QUIET).is_some()
    }
}

/// For how long no descriptor must have been wanting until there is said to be no want.
const QUIET: Duration = Duration::from_secs(10);

/// How long to wait after a failure that only time can mend.
const PAUSE: Duration = Duration::from_millis(100);

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_that_comes_and_goes_is_two_lines_at_most_in_ten_seconds() {
        let (mut shortage, begin) = (Shortage::default(), Instant::now());
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        assert!(!shortage.is_over(begin), "there was none");
        let mut lines = 0;
        for milliseconds in (0..4000).step_by(10) {
            lines += u32::from(shortage.seen(at(milliseconds)));
            lines += u32::from(shortage.is_over(at(milliseconds + 5)));
        }
        assert_eq!(lines, 1, "it has begun, and goes on");
        assert!(!shortage.is_over(at(3990 + 9999)));
        assert!(shortage.is_over(at(3990 + 10_000)));
        assert!(!shortage.is_over(at(3990 + 10_001)), "once");
        assert!(shortage.seen(at(20_000)), "another one");
    }
}
