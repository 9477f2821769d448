//! The thread that asks the kernel: one, of the exporter's own, from its beginning to its end.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::sync::oneshot;
use tracing::error;

/// Does what blocks, one request after the other, in the network namespace of the thread that started it.
///
/// Not the runtime's pool: that one starts its threads when there is something to do, and panics when none can be had, which is when
/// somebody will look. Ends when it is dropped and has done what it was asked for.
pub(crate) struct Clerk {
    requests: SyncSender<Request>,
}

type Request = Box<dyn FnOnce() + Send>;

impl Clerk {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The kernel's, when there can be no more threads.
    pub(crate) fn start() -> io::Result<Clerk> {
        let (requests, inbox) = sync_channel(REQUESTS_MAX);
        thread::Builder::new().name("exporter".to_owned()).spawn(move || serve(&inbox))?;
        Ok(Clerk { requests })
    }

    /// Has this done, and gives what comes of it. What nobody waits for any more when its turn comes is not begun.
    ///
    /// # Errors
    ///
    /// [`Unanswered`], and never a panic, whatever `work` does.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        let request = move || {
            if !reply.is_closed() {
                let _ = reply.send(work());
            }
        };
        self.requests.try_send(Box::new(request)).map_err(|refused| match refused {
            TrySendError::Full(_) => Unanswered::Busy,
            TrySendError::Disconnected(_) => Unanswered::Failed,
        })?;
        // The sender is dropped unsent when the work panics.
        answer.await.map_err(|_| Unanswered::Failed)
    }
}

/// Requests that wait at most: twice as many as the admin server has connections, since one that was given up leaves its request.
const REQUESTS_MAX: usize = 64;

fn serve(inbox: &Receiver<Request>) {
    while let Ok(request) = inbox.recv() {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(request)) {
            error!(panic = message(&*panic), "what a scrape or a status asked for could not be put together");
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without words")
}

/// Why something was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Too many wait already.
    Busy,
    /// It went wrong on the way, by a fault of ours.
    Failed,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unanswered::Busy => "too many wait for the same",
            Unanswered::Failed => "it could not be put together",
        })
    }
}

impl std::error::Error for Unanswered {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_to_who_asked_and_to_nobody_else() {
        let clerk = Clerk::start().unwrap();
        assert_eq!(clerk.ask(|| panic!("as asked")).await, Err::<(), _>(Unanswered::Failed));
        assert_eq!(clerk.ask(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn one_request_too_many_is_refused_at_once() {
        let clerk = Clerk::start().unwrap();
        let (begun, has_begun) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let work = move || {
            begun.send(()).unwrap();
            let _ = wait.recv();
        };
        clerk.requests.send(Box::new(work)).unwrap();
        has_begun.recv().unwrap();
        for _ in 0..REQUESTS_MAX {
            assert!(clerk.requests.try_send(Box::new(|| {})).is_ok());
        }
        assert_eq!(clerk.ask(|| 7).await, Err(Unanswered::Busy));
        drop(go_on);
        // Blocks until there is a place.
        clerk.requests.send(Box::new(|| {})).unwrap();
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_begun() {
        let clerk = Clerk::start().unwrap();
        let (go_on, wait) = mpsc::channel::<()>();
        let work = move || {
            let _ = wait.recv();
        };
        clerk.requests.send(Box::new(work)).unwrap();
        let (begun, has_begun) = mpsc::channel::<()>();
        {
            let mut asked = std::pin::pin!(clerk.ask(move || begun.send(())));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(asked.as_mut().poll(&mut cx).is_pending());
        }
        drop(go_on);
        assert_eq!(clerk.ask(|| 7).await, Ok(7));
        assert!(has_begun.recv().is_err(), "dropped unsent");
    }
}
