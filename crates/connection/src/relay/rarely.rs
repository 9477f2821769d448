//! Futures that are seldom ready, beside others that are woken with each message.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled only when it has been woken itself, however often its task is woken for something else.
///
/// A task polls all that it waits for whenever any of it is ready: timers, locks of tokens that all connections share, lists of waiters. What
/// ends a connection once can stand aside from what each message wakes. Costs two allocations, one of them for the future itself, so that
/// the task need not have room for it; and an atomic load for each poll of the task.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let stop = tokio_util::sync::CancellationToken::new();
/// let busy = async { for _ in 0..1000 { tokio::task::yield_now().await } };
/// tokio::select! {
///     () = busy => {}
///     () = connection::rarely(stop.cancelled()) => unreachable!("nobody cancels it"),
/// }
/// # }
/// ```
pub fn rarely<F: Future>(future: F) -> Rarely<F> {
    let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: Mutex::new(None) });
    Rarely { future: Box::pin(future), bell, known: None }
}

/// What [`rarely`] makes.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Rarely<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    /// The waker that the bell has.
    known: Option<Waker>,
}

impl<F: Future> Future for Rarely<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Rarely { future, bell, known } = self.get_mut();
        // The task's waker is looked at first: who rings before it is in its place is seen by what follows.
        if !known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *known = Some(cx.waker().clone());
            *bell.task.lock().unwrap_or_else(PoisonError::into_inner) = known.clone();
        }
        if !bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // Before the poll: who rings during it has to be seen by the next. Acquires once more, what the last to ring has done.
        bell.rung.swap(false, Ordering::Acquire);
        future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(bell))))
    }
}

/// What the future has for a waker.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    /// Whom to wake.
    task: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Not under the lock: waking runs what others have written.
        task.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::time::Duration;

    use tokio::sync::Notify;
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Counts the polls of a future.
    async fn counted<F: Future>(polls: &AtomicU32, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            polls.fetch_add(1, Relaxed);
            future.as_mut().poll(cx)
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_often_woken_polls_it_when_it_is_ready_alone() {
        let (polls, began) = (AtomicU32::new(0), Instant::now());
        let mut later = pin!(rarely(counted(&polls, sleep(Duration::from_secs(10)))));
        for _ in 0..9 {
            tokio::select! {
                () = &mut later => panic!("too early"),
                () = sleep(Duration::from_secs(1)) => {}
            }
        }
        assert_eq!(polls.load(Relaxed), 1);
        later.await;
        assert_eq!((polls.load(Relaxed), began.elapsed().as_secs()), (2, 10));
    }

    #[tokio::test]
    async fn it_wakes_the_task_that_it_moved_to() {
        let (told, polls) = (Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let mut waits = Box::pin(rarely({
            let (told, polls) = (Arc::clone(&told), Arc::clone(&polls));
            async move { counted(&polls, told.notified()).await }
        }));
        assert!(tokio::time::timeout(Duration::ZERO, &mut waits).await.is_err(), "polled here first");
        let elsewhere = tokio::spawn(waits);
        tokio::task::yield_now().await;
        told.notify_one();
        elsewhere.await.unwrap();
        assert_eq!(polls.load(Relaxed), 2);
    }

    #[test]
    fn no_bell_is_missed_between_two_threads() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            for _ in 0..2000 {
                let (sender, receiver) = tokio::sync::oneshot::channel();
                let waits = tokio::spawn(async move {
                    tokio::select! {
                        told = rarely(receiver) => told.unwrap(),
                        () = async { loop { tokio::task::yield_now().await } } => unreachable!(),
                    }
                });
                let tells = tokio::spawn(async move { sender.send(()).unwrap() });
                tokio::time::timeout(Duration::from_secs(20), waits).await.expect("the bell is heard").unwrap();
                tells.await.unwrap();
            }
        });
    }
}
