//! The access log: one JSON object on a line of its own for each connection, written when it has closed.
//!
//! A task never waits for the log. It puts a record into a bounded queue, from which a thread writes; where the queue is full, the
//! record is dropped and counted. So neither a full disk nor a reader that has gone away stops the service or slows it down.
//!
//! The file is opened once, for appending, and never again: what rotates it must copy and truncate it (`copytruncate` of
//! logrotate), upon which the next line is written at its new end.

mod record;
mod writer;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::config::{AccessLogConfig, AccessLogPath};
use crate::failure::Failure;
use crate::run::Sparse;

pub use record::{Record, timestamp};

/// Where records are given to the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: mpsc::Sender<Message>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "all but one are records")]
enum Message {
    Closed(Record),
    /// Write what there is, then tell, then end.
    End(oneshot::Sender<()>),
}

/// What became of the records.
#[derive(Debug)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
    /// So that a flood of connections is not a flood of complaints.
    complaints: Sparse,
}

impl Counts {
    fn new() -> Counts {
        Counts { written: AtomicU64::new(0), dropped: AtomicU64::new(0), complaints: Sparse::new() }
    }

    fn drop_lines(&self, lines: u64, why: &str) {
        let dropped = self.dropped.fetch_add(lines, Relaxed) + lines;
        if self.complaints.event().is_some() {
            tracing::warn!(dropped, "lines of the access log are lost: {why}");
        }
    }
}

impl AccessLog {
    /// Opens the log and starts its writer; `None` if there is to be none.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or the thread not be started.
    pub fn start(config: &AccessLogConfig) -> Result<Option<AccessLog>, Failure> {
        let sink: Box<dyn Write + Send> = match &config.path {
            AccessLogPath::None => return Ok(None),
            AccessLogPath::Stderr => Box::new(io::stderr()),
            AccessLogPath::File(path) => {
                let mut options = OpenOptions::new();
                // O_NONBLOCK does nothing to a file; a FIFO that nobody reads is an error at once, and one that is full loses lines.
                options.append(true).create(true).mode(0o640).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
                let file = options.open(path);
                let named = |error| Failure::runtime(format!("cannot open access_log.path {}", path.display()), error);
                Box::new(file.map_err(named)?)
            }
        };
        AccessLog::with_sink(config.queue_lines, sink).map(Some)
    }

    fn with_sink(queue_lines: usize, sink: Box<dyn Write + Send>) -> Result<AccessLog, Failure> {
        let (queue, lines) = mpsc::channel(queue_lines);
        let counts = Arc::new(Counts::new());
        let log = AccessLog { queue, counts: counts.clone() };
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer::run(lines, sink, &counts))
            .map_err(|error| Failure::runtime("cannot start the access log's thread", error))?;
        Ok(log)
    }

    /// Puts a record into the queue. Never waits: if the queue is full, the record is dropped and counted.
    pub fn record(&self, record: Record) {
        if self.queue.try_send(Message::Closed(record)).is_err() {
            self.counts.drop_lines(1, "they come faster than they can be written");
        }
    }

    /// Lines written since the start.
    pub fn written(&self) -> u64 {
        self.counts.written.load(Relaxed)
    }

    /// Lines lost since the start, because the queue was full or the file took no more.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Relaxed)
    }

    /// Waits until everything in the queue is written, or the time is over: a disk that hangs must not keep the process.
    pub async fn finish(self, within: Duration) {
        let (done, written) = oneshot::channel();
        let finished = async {
            // Errors say that the writer has ended already.
            let _ = self.queue.send(Message::End(done)).await;
            let _ = written.await;
        };
        if tokio::time::timeout(within, finished).await.is_err() {
            tracing::warn!("the access log could not be written to its end");
        }
    }
}

#[cfg(test)]
mod tests;
