//! What the threads of a flood and its handle tell each other.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::pacer::Pacer;

/// What a thread did so far. Only the thread writes it.
#[derive(Debug, Default)]
pub struct Progress {
    due: AtomicU64,
    sent: AtomicU64,
    refused: AtomicU64,
    ended_us: AtomicU64,
    connected: AtomicU64,
    failed: AtomicU64,
}

/// Shared by the threads and the handle.
#[derive(Debug)]
pub struct Shared {
    stop: AtomicBool,
    rate: Mutex<Option<f64>>,
    threads: Vec<Progress>,
    start: Instant,
}

impl Shared {
    /// For so many threads, which share the rate evenly.
    pub fn new(rate: Option<f64>, threads: usize) -> Shared {
        let threads = (0..threads).map(|_| Progress::default()).collect();
        Shared { stop: AtomicBool::new(false), rate: Mutex::new(rate), threads, start: Instant::now() }
    }

    /// Tells the threads to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Asks for another rate of all threads together.
    #[cfg(test)]
    pub fn set_rate(&self, rate: Option<f64>) {
        *self.rate.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = rate;
    }

    /// What the thread with this index did.
    pub fn progress(&self, index: usize) -> &Progress {
        &self.threads[index]
    }

    /// A sum over all threads.
    pub fn total(&self, count: impl Fn(&Progress) -> u64) -> u64 {
        self.threads.iter().map(count).sum()
    }

    /// From the start until the last thread heard of the end.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.threads.iter().map(Progress::ended_us).max().unwrap_or(0))
    }

    fn share(&self) -> Option<f64> {
        let rate = *self.rate.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        rate.map(|rate| rate / self.threads.len() as f64)
    }
}

impl Progress {
    /// What was due when the thread last looked.
    pub fn due(&self) -> u64 {
        self.due.load(Ordering::Relaxed)
    }

    /// What the device took, or connections tried.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// What the device did not take.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// When the thread heard of the end, in microseconds since the start.
    pub fn ended_us(&self) -> u64 {
        self.ended_us.load(Ordering::Relaxed)
    }

    /// Connections that were made.
    pub fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// Connections that were not.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Notes what became of a connection.
    pub fn count(&self, is_connected: bool) {
        let count = if is_connected { &self.connected } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// One thread's view: what it has to do next.
#[derive(Debug)]
pub struct Work<'a> {
    shared: &'a Shared,
    /// What this thread did.
    pub progress: &'a Progress,
    pacer: Pacer,
    due: u64,
    done: u64,
}

impl<'a> Work<'a> {
    /// Of the thread with this index.
    pub fn new(shared: &'a Shared, index: usize) -> Work<'a> {
        let pacer = Pacer::new(shared.share(), shared.start);
        Work { shared, progress: &shared.threads[index], pacer, due: 0, done: 0 }
    }

    /// How much is due and not done: `None` when that is as much as can be. The end of the flood is an error, for `?`.
    pub fn todo(&mut self) -> Result<Option<u64>, Stopped> {
        let stop = self.shared.stop.load(Ordering::Relaxed);
        let rate = self.shared.share();
        self.due = self.pacer.due(rate, Instant::now(), self.done);
        self.progress.due.fetch_max(self.due, Ordering::Relaxed);
        if stop {
            self.progress.ended_us.store(self.shared.start.elapsed().as_micros() as u64, Ordering::Relaxed);
            return Err(Stopped);
        }
        Ok(rate.map(|_| self.due.saturating_sub(self.done)))
    }

    /// This thread's share of the rate, as the last [`todo`](Self::todo) saw it or later.
    pub fn rate(&self) -> Option<f64> {
        self.shared.share()
    }

    /// What was due at the last [`todo`](Self::todo): less than was done by a program that looks at the clock itself.
    pub fn due(&self) -> u64 {
        self.due
    }

    /// Everything done so far, whatever became of it.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Notes what was done since the last time. Done before it was noticed to be due, it was due: a program that looks at the clock
    /// itself is ahead of us.
    pub fn did(&mut self, sent: u64, refused: u64) {
        self.done += sent + refused;
        self.progress.due.fetch_max(self.done, Ordering::Relaxed);
        self.progress.sent.fetch_add(sent, Ordering::Relaxed);
        self.progress.refused.fetch_add(refused, Ordering::Relaxed);
    }

    /// See [`Pacer::nap`].
    pub fn nap(&self) -> Duration {
        self.pacer.nap()
    }
}

/// The flood is to end.
#[derive(Debug)]
pub struct Stopped;
