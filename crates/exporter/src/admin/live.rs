//! `/api/v1/events`: the status, once a second, for whoever looks on; and nothing at all while nobody does.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::exporter::Exporter;

/// Streams at a time. Each costs a descriptor, some 20 KiB here and at most [`SEND_BUFFER_BYTES`](super::connection) in the kernel.
pub(super) const STREAMS_MAX: usize = 8;

/// Time between two samples.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// The samples, and those who wait for them.
///
/// One sample serves all, and only the latest is kept: who reads slowly misses some, and finds the current one when it is ready.
pub(super) struct Live {
    feed: watch::Sender<Feed>,
    places: Arc<Semaphore>,
    /// Told when there may be somebody to sample for.
    wanted: Notify,
}

#[derive(Clone)]
enum Feed {
    Nothing,
    /// An event as it goes over the wire, and when it was made.
    Sample(Bytes, Instant),
    /// There will be no more.
    Over,
}

impl Live {
    pub(super) fn new() -> Live {
        let places = Arc::new(Semaphore::new(STREAMS_MAX));
        Live { feed: watch::Sender::new(Feed::Nothing), places, wanted: Notify::new() }
    }

    /// Streams there are now.
    pub(super) fn streams(&self) -> usize {
        STREAMS_MAX - self.places.available_permits()
    }

    /// A stream, if there is a place for it.
    pub(super) fn subscribe(&self) -> Option<Events> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut receiver = self.feed.subscribe();
        let now = Instant::now();
        let over = match &*self.feed.borrow() {
            // Somebody else has just looked: no need to wait for the next.
            Feed::Sample(_, at) if now.saturating_duration_since(*at) < PERIOD => {
                receiver.mark_changed();
                false
            }
            Feed::Over => true,
            Feed::Nothing | Feed::Sample(..) => false,
        };
        self.wanted.notify_one();
        (!over).then(|| Events { next: Box::pin(next(receiver)), _place: place })
    }

    /// Samples while there are streams, and at most once in a [`PERIOD`], however often they come and go.
    pub(super) async fn run(&self, exporter: &Exporter) -> Infallible {
        let mut ticks = interval(PERIOD);
        // A machine that could not keep up does not catch up either.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.wanted.notified().await;
            while self.feed.receiver_count() > 0 {
                tokio::select! {
                    () = self.feed.closed() => break,
                    _ = ticks.tick() => {}
                }
                if let Some(event) = sample(exporter).await {
                    self.feed.send_replace(Feed::Sample(event, Instant::now()));
                }
            }
        }
    }

    /// Ends all streams.
    pub(super) fn end(&self) {
        self.feed.send_replace(Feed::Over);
    }
}

/// The status as an event; `None` if it cannot be had now, and maybe in a second.
async fn sample(exporter: &Exporter) -> Option<Bytes> {
    let json = exporter.status_json().await.ok()?;
    // https://html.spec.whatwg.org/multipage/server-sent-events.html: a field to a line, an empty line to end the event.
    Some(format!("event: status\ndata: {json}\n\n").into())
}

/// A stream of events that does not end but when the server does, or its client.
pub(super) struct Events {
    next: Pin<Box<dyn Future<Output = Next> + Send>>,
    /// Held for as long as the stream is.
    _place: OwnedSemaphorePermit,
}

/// An event, and where the one behind it will come from; `None` at the end.
type Next = Option<(Bytes, watch::Receiver<Feed>)>;

async fn next(mut receiver: watch::Receiver<Feed>) -> Next {
    loop {
        receiver.changed().await.ok()?;
        let event = match &*receiver.borrow_and_update() {
            Feed::Sample(event, _) => event.clone(),
            Feed::Nothing => continue,
            Feed::Over => return None,
        };
        return Some((event, receiver));
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = ready!(self.next.as_mut().poll(cx)).map(|(event, receiver)| {
            self.next = Box::pin(next(receiver));
            Ok(Frame::data(event))
        });
        Poll::Ready(frame)
    }
}
