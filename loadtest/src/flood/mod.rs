//! Floods: frames with spoofed sources, or real connections, at a rate that does not depend on the target.
//!
//! - [`spec`], [`permit`]: what is asked for, and whether it may be.
//! - [`template`], [`kinds`], [`recipe`], [`replay`]: the frames. One is a function of a key and a number: the same seed gives the same, by either
//!   engine.
//! - [`tx_ring`], [`xdp`], [`sockets`]: what sends them, or connects. [`peer`]: what the other end needs for it.
//! - [`pacer`], [`progress`]: how much is due, and how much was done.

mod engine;
mod error;
mod kinds;
mod options;
mod pacer;
mod pcap;
mod peer;
mod permit;
mod prefix;
mod progress;
mod recipe;
mod replay;
mod sockets;
mod spec;
mod sys;
mod template;
#[cfg(test)]
mod tests;
mod tx_ring;
mod xdp;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub use error::FloodError;
pub use pcap::write_pcap;
pub use peer::{send_through_queue, take_xdp_answers, take_xdp_frames, thread_napi};
pub use permit::{ALIAS, check_way};
#[cfg(test)]
use prefix::Prefix;
pub use spec::{Engine, FloodKind, FloodSpec, OptionMix, Place, Sources};
pub use xdp::InDriver;

use engine::Maker;
use progress::{Progress, Shared};

/// A running flood. It ends when the handle is dropped.
#[derive(Debug)]
pub struct Flood {
    shared: Arc<Shared>,
    engine: &'static str,
    threads: Vec<JoinHandle<()>>,
}

/// What a flood did.
#[derive(Clone, Debug, PartialEq)]
pub struct FloodReport {
    /// As [`Flood::engine`] says.
    pub engine: &'static str,
    /// Frames that were due by the rate asked for, or connections; the same as `sent` and `refused` where no rate was.
    pub due: u64,
    /// Frames that the device took, or connections that were tried.
    pub sent: u64,
    /// Frames that the device did not take: a queue behind it was full, or nobody had switched it on.
    pub refused: u64,
    /// Connections that were made. What is in none of these was still under way at the end.
    pub connected: u64,
    /// Connections that were refused, or not made in 5 s.
    pub failed: u64,
    /// From the first frame to the last.
    pub elapsed: Duration,
    /// Whether it fell behind the rate asked for by more than 2 %: then its figures say nothing about the target.
    pub generator_limited: bool,
}

impl Flood {
    /// Starts a flood.
    ///
    /// # Errors
    /// [`FloodError::Forbidden`] where it could leave the lab; and when an engine does not work here.
    pub fn start(spec: &FloodSpec, place: &Place) -> Result<Flood, FloodError> {
        permit::check(spec.target, place)?;
        let (makers, engine) = engine::prepare(spec, place)?;
        let shared = Arc::new(Shared::new(spec.rate, makers.len()));
        let run = |(index, maker): (usize, Maker)| engine::spawn(maker, &shared, index, place);
        let threads = makers.into_iter().enumerate().map(run).collect();
        Ok(Flood { shared, engine, threads })
    }

    /// What makes it: `tx-ring`, `xdp`, `sockets`.
    #[cfg(test)]
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// Frames that the device took so far, or connections that were tried.
    pub fn sent(&self) -> u64 {
        self.shared.total(Progress::sent)
    }

    /// Frames that were due when the threads last looked, which is some milliseconds ago at most.
    #[cfg(test)]
    pub fn due(&self) -> u64 {
        self.shared.total(Progress::due)
    }

    /// Begins a stage with another rate.
    #[cfg(test)]
    pub fn set_rate(&self, rate: Option<f64>) {
        self.shared.set_rate(rate);
    }

    /// Ends it and tells what was done.
    pub fn stop(mut self) -> FloodReport {
        self.end();
        let total = |count: fn(&Progress) -> u64| self.shared.total(count);
        let (due, sent, refused) = (total(Progress::due), total(Progress::sent), total(Progress::refused));
        FloodReport {
            engine: self.engine,
            due,
            sent,
            refused,
            connected: total(Progress::connected),
            failed: total(Progress::failed),
            elapsed: self.shared.elapsed(),
            generator_limited: fell_behind(due, sent + refused),
        }
    }

    fn end(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // Its panic, if any, was printed, and what it did not do is missing in the numbers.
            let _ = thread.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

/// By more than 2 %, and more than what may happen to be due in the last moment.
fn fell_behind(due: u64, done: u64) -> bool {
    const MOMENT: u64 = 64;
    due - done.min(due) > (due / 50).max(MOMENT)
}
