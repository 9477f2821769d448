//! How a run ends: the steps, and the signals that start them.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Seconds that peers have for their FIN once ours was sent at the deadline; then they get RST.
pub const FIN_GRACE: Duration = Duration::from_secs(1);

/// The three steps of the end, each taken once, in this order, and the alarm that may start them.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// No new connections; conversations go on to their end, and http begins no new request.
    pub drain: CancellationToken,
    /// The deadline has passed: FIN to everybody.
    pub deadline: CancellationToken,
    /// No more waiting: RST to everybody who is left.
    pub now: CancellationToken,
    /// A listener has failed: the process is to end, with what it serves.
    pub failed: CancellationToken,
}

impl Stop {
    /// Takes all steps at once; the last one first, so that whoever wakes by an earlier one sees it.
    pub fn everything(&self) {
        self.now.cancel();
        self.deadline.cancel();
        self.drain.cancel();
    }
}

/// SIGTERM and SIGINT, which mean the same, and SIGHUP.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// One has asked for the end.
    asked: bool,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// Of sigaction(2).
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            asked: false,
        })
    }

    /// The name of the next one that asks for the end; at each SIGHUP, `reload` is called. Cancel safe.
    pub async fn next(&mut self, mut reload: impl FnMut()) -> &'static str {
        let signal = loop {
            tokio::select! {
                _ = self.terminate.recv() => break "SIGTERM",
                _ = self.interrupt.recv() => break "SIGINT",
                _ = self.hangup.recv() => reload(),
            }
        };
        self.asked = true;
        signal
    }

    /// The name of the next one that asks for the end again. Of a process that ends for another reason (`ctl drain`, a successor) the first
    /// signal only asks for what it does already: whoever runs it, such as a service manager, asks each process once. Cancel safe.
    pub async fn again(&mut self, mut reload: impl FnMut()) -> &'static str {
        if !self.asked {
            let signal = self.next(&mut reload).await;
            tracing::info!("{signal}: ending already; a second signal ends it at once");
        }
        self.next(reload).await
    }
}
