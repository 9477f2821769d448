//! Where log lines go, how they look, and from which level on they are written.

use std::io::{self, Write};
use std::sync::Mutex;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{Log, LogFormat, LogLevel};

/// Changes the level while lines are being written.
pub struct LevelControl {
    filter: reload::Handle<LevelFilter, Registry>,
    level: Mutex<LogLevel>,
}

/// Sends log lines to standard error from now on.
pub fn init(log: Log) -> LevelControl {
    let (filter, handle) = reload::Layer::new(filter_of(log.level));
    let lines = fmt::layer().with_writer(|| Stderr).with_target(false).log_internal_errors(false);
    let subscriber = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => {
            let colour = io::IsTerminal::is_terminal(&io::stderr());
            subscriber.with(lines.with_ansi(colour)).init();
        }
        LogFormat::Json => subscriber.with(lines.json().flatten_event(true)).init(),
    }
    LevelControl { filter: handle, level: Mutex::new(log.level) }
}

impl LevelControl {
    /// For tests that have no log.
    #[cfg(test)]
    pub fn without_log(level: LogLevel) -> LevelControl {
        LevelControl { filter: reload::Layer::new(filter_of(level)).1, level: Mutex::new(level) }
    }

    /// The level from which on lines are written.
    pub fn level(&self) -> LogLevel {
        *self.level.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes lines from this level on, and returns the level before.
    ///
    /// # Errors
    /// When nothing writes lines any more.
    pub fn set(&self, level: LogLevel) -> Result<LogLevel, reload::Error> {
        let mut current = self.level.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.filter.reload(filter_of(level))?;
        Ok(std::mem::replace(&mut current, level))
    }
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

/// Standard error, whose reader may go away at any time: a line that cannot be written is lost, and nothing else is.
///
/// An error would not do: who logs must not fail for it, least of all because of something an attacker sent.
#[derive(Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
