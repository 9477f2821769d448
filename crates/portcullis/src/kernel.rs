//! Several kernel listeners as one.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use connection::{Connection, KernelGauge, KernelListener};

/// One listening socket for each address.
#[derive(Debug)]
pub(crate) struct KernelListeners {
    listeners: Vec<KernelListener>,
    /// Where the next look begins, so that a busy address does not starve the others.
    first: usize,
}

impl KernelListeners {
    pub(crate) fn new(listeners: Vec<KernelListener>) -> KernelListeners {
        KernelListeners { listeners, first: 0 }
    }

    pub(crate) fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(KernelListener::local_addr).collect()
    }

    pub(crate) fn gauges(&self) -> Vec<KernelGauge> {
        self.listeners.iter().map(KernelListener::gauge).collect()
    }

    /// The next connection of any of them. Cancel safe.
    pub(crate) async fn accept(&mut self) -> io::Result<Connection> {
        let count = self.listeners.len();
        let start = self.first;
        let mut accepts: Vec<Pin<Box<dyn Future<Output = _> + Send + '_>>> = Vec::with_capacity(count);
        for listener in &mut self.listeners {
            accepts.push(Box::pin(listener.accept()));
        }
        let (index, accepted) = poll_fn(|cx| {
            for index in (0..count).map(|step| (start + step) % count) {
                if let Poll::Ready(accepted) = accepts[index].as_mut().poll(cx) {
                    return Poll::Ready((index, accepted));
                }
            }
            Poll::Pending
        })
        .await;
        drop(accepts);
        self.first = (index + 1) % count;
        accepted
    }

    /// Whether they have been closed.
    pub(crate) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Stops listening. What the kernel has accepted and nobody has taken is reset.
    pub(crate) fn close(&mut self) {
        self.listeners.clear();
    }
}
