//! Steps of the kernel's sockets between states, counted from the moment at which they can be a listener's.

use std::net::SocketAddr;
use std::sync::Once;

use listener::io::{Handshakes, TransitionCounter};

use super::Datapath;
use crate::front::Listener;

/// What is to be counted for a listener that does not stand yet. Dropped with it when it cannot be built.
pub(super) struct Steps {
    /// `None` where the kernel does not let us see them.
    counter: Option<TransitionCounter>,
    guarded: Vec<SocketAddr>,
    handshakes: Handshakes,
}

impl Steps {
    /// Does what takes long, and counts nothing yet.
    pub(super) fn prepare(guarded: &[SocketAddr], datapath: Datapath) -> Steps {
        let counter = TransitionCounter::open().map_err(|error| tell(&error)).ok();
        let handshakes = match datapath {
            Datapath::Kernel => Handshakes::Kernels,
            Datapath::Auto | Datapath::Bpf | Datapath::Raw => Handshakes::Ours,
        };
        Steps { counter, guarded: guarded.to_vec(), handshakes }
    }

    /// Counts from here on. Port 0 stands for none yet.
    pub(super) fn begin(&mut self) {
        let known: Vec<_> = self.guarded.iter().copied().filter(|addr| addr.port() != 0).collect();
        self.guard(&known);
    }

    /// Gives the counts to the listener, and follows it to the ports that the kernel chose.
    pub(super) fn of(mut self, listener: Listener) -> Listener {
        if self.guarded.iter().any(|addr| addr.port() == 0) {
            self.guard(listener.local_addrs());
        }
        listener.with_steps(self.counter)
    }

    fn guard(&mut self, addrs: &[SocketAddr]) {
        let guarded = self.counter.as_ref().map_or(Ok(()), |counter| counter.guard(addrs, self.handshakes));
        if let Err(error) = guarded {
            tell(&error);
            self.counter = None;
        }
    }
}

/// Once: whatever it is, it is the same for every listener of the process.
fn tell(error: &std::io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| tracing::info!("transitions between TCP states are not counted: {error}"));
}
