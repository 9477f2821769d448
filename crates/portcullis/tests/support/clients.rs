//! Clients that come one after the other, for as long as something else happens.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Scope;

use testnet::{Namespace, eventually};

use super::{PATIENCE, connect_from, exchange};

/// When the clients stop, and how many were served.
#[derive(Debug, Default)]
pub struct Clients {
    stop: AtomicBool,
    served: AtomicUsize,
}

/// Tells the clients to stop when it is dropped, also when something fails.
pub struct Until<'a>(&'a Clients);

impl Clients {
    /// One client after the other for each of these servers: it connects, says something, reads it back and closes. One that fails ends
    /// the test.
    pub fn come<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        from: &'scope Namespace,
        servers: impl IntoIterator<Item = SocketAddr>,
    ) -> Until<'scope> {
        for server in servers {
            scope.spawn(move || {
                while !self.are_stopped() {
                    let back = connect_from(from, server)
                        .and_then(|mut stream| exchange(&mut stream, b"hello"))
                        .unwrap_or_else(|error| panic!("client {} of {server}: {error}", self.served()));
                    assert_eq!(back, b"hello");
                    self.served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Until(self)
    }

    /// Whether they were told to stop.
    pub fn are_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// How many were served so far.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Waits until so many more have been served.
    pub fn wait_for(&self, more: usize) {
        let before = self.served();
        eventually("clients are served", PATIENCE, || self.served() >= before + more);
    }
}

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}
