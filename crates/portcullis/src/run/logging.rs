//! Where log lines go, and how they look.

use std::io::{self, Write};

use tracing::level_filters::LevelFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Sends log lines to standard error from now on.
pub fn init(log: Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| Stderr)
        .with_target(false)
        .log_internal_errors(false);
    match log.format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            subscriber.with_ansi(colour).init();
        }
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
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
