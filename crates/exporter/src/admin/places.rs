//! Who has a place, and who must give it up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::task::{AbortHandle, JoinSet};

/// The connections, and which of them have yet to ask for something, the oldest first.
#[derive(Default)]
pub(super) struct Places {
    connections: JoinSet<()>,
    silent: VecDeque<Silent>,
}

/// A connection that may not have asked.
struct Silent {
    task: AbortHandle,
    asked: Arc<AtomicBool>,
}

impl Places {
    /// Connections there are.
    pub(super) fn len(&mut self) -> usize {
        while self.connections.try_join_next().is_some() {}
        self.connections.len()
    }

    /// Serves one more; `serve` sets the flag once its client has asked.
    pub(super) fn admit<F: Future<Output = ()> + Send + 'static>(&mut self, serve: impl FnOnce(Arc<AtomicBool>) -> F) {
        self.forget_who_asked();
        let asked = Arc::new(AtomicBool::new(false));
        let task = self.connections.spawn(serve(Arc::clone(&asked)));
        self.silent.push_back(Silent { task, asked });
    }

    /// Ends the oldest connection that has not asked yet; whether there was one.
    pub(super) async fn put_out(&mut self) -> bool {
        self.forget_who_asked();
        let Some(Silent { task, .. }) = self.silent.pop_front() else { return false };
        task.abort();
        // That one or another: nothing in a connection blocks, so that it is over when the runtime comes to it.
        self.connections.join_next().await;
        true
    }

    /// Waits until one ends. Never, if there is none.
    pub(super) async fn one_ends(&mut self) {
        if self.connections.join_next().await.is_none() {
            std::future::pending().await
        }
    }

    /// Waits until all have ended.
    pub(super) async fn all_end(&mut self) {
        while self.connections.join_next().await.is_some() {}
    }

    /// So that there are no more of these than there are connections.
    fn forget_who_asked(&mut self) {
        self.silent.retain(|silent| !silent.asked.load(Relaxed) && !silent.task.is_finished());
    }
}
