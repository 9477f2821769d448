//! The thread that writes.

use std::io::{self, Write};
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;

use super::{Counts, Message};

/// What is written in one piece while more waits: few system calls under load, and a line at once when there is none.
const BATCH_BYTES: usize = 64 * 1024;

/// Writes until the queue is closed or its end is asked for.
pub(super) fn run(mut queue: mpsc::Receiver<Message>, sink: impl Write, counts: &Counts) {
    let mut sink = Sink { file: sink, torn: false };
    let mut lines = Vec::with_capacity(BATCH_BYTES);
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        let mut end = None;
        while let Some(message) = next {
            match message {
                Message::Closed(record) => record.append_to(&mut lines),
                Message::End(done) => end = Some(done),
            }
            let full = lines.len() >= BATCH_BYTES || end.is_some();
            next = if full { None } else { queue.try_recv().ok() };
        }
        sink.write_lines(&lines, counts);
        lines.clear();
        if let Some(done) = end {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
            return;
        }
    }
}

/// Where lines go, and whether the last one is whole.
struct Sink<W> {
    file: W,
    /// The last write ended amid a line.
    torn: bool,
}

impl<W: Write> Sink<W> {
    /// Writes what can be written and counts it. What cannot is given up: by the time there is room again, there are newer lines.
    fn write_lines(&mut self, lines: &[u8], counts: &Counts) {
        if self.torn {
            // The half of a line that a full disk left must not spoil the next one.
            match self.write_all(b"\n") {
                (1, _) => self.torn = false,
                (_, error) => return give_up(lines, error, counts),
            }
        }
        let (len, error) = self.write_all(lines);
        let (written, lost) = lines.split_at(len);
        counts.written.fetch_add(count(written), Relaxed);
        if !lost.is_empty() {
            self.torn = written.last().is_some_and(|byte| *byte != b'\n');
            give_up(lost, error, counts);
        }
    }

    /// How many bytes were written, and what kept the rest back.
    fn write_all(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut len = 0;
        while len < bytes.len() {
            match self.file.write(&bytes[len..]) {
                Ok(0) => return (len, None),
                Ok(more) => len += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (len, Some(error)),
            }
        }
        (len, None)
    }
}

fn give_up(lines: &[u8], error: Option<io::Error>, counts: &Counts) {
    let why = error.map_or_else(|| "the file takes no more".to_owned(), |error| error.to_string());
    counts.drop_lines(count(lines), &why);
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}
