//! Closing so that the client can tell a complete answer from a broken one.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::connection::Connection;

/// How [`Connection::close`] ended.
#[derive(Debug)]
pub enum CloseOutcome {
    /// Both sides have sent FIN: everything we wrote has arrived.
    Complete,
    /// The client did not finish in time; it was sent RST.
    DeadlinePassed,
    /// The connection broke before.
    Failed(io::Error),
}

/// What the client still sends while we close is thrown away in pieces of this size.
const DISCARD_BYTES: usize = 4096;

impl Connection {
    /// Closes gracefully: sends FIN, reads and discards what the client still sends until its FIN, and resets if that has
    /// not come within `deadline`.
    ///
    /// A plain drop is no substitute where the client may still be sending: unread data makes the kernel send RST, which can
    /// destroy the end of our answer on its way (RFC 1122 §4.2.2.13).
    pub async fn close(mut self, deadline: Duration) -> CloseOutcome {
        match timeout(deadline, self.finish()).await {
            Ok(Ok(())) => CloseOutcome::Complete,
            Ok(Err(error)) => CloseOutcome::Failed(error),
            Err(_elapsed) => {
                self.abort();
                CloseOutcome::DeadlinePassed
            }
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.shutdown_write().await?;
        let mut discarded = [0; DISCARD_BYTES];
        while self.read(&mut discarded).await? > 0 {}
        Ok(())
    }
}
