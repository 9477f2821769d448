//! `portcullis top`: a live view of a running process in the terminal, or one snapshot for a script.
//!
//! It asks over the control socket, as `ctl` does, and nothing more than `ctl status` and `ctl top` would: a look every few seconds costs the
//! process two short answers and at most one walk over the kernel's sockets. Rates are differences of the process's counters by the process's
//! own clock, so a terminal that is slow shows old numbers and no wrong ones.
//!
//! ```text
//! sample ──► rates ──► app ──► draw        (pure: tested without a terminal)
//!    ▲                  ▲       │
//! control socket      keys   terminal
//! ```

mod app;
mod args;
mod draw;
mod live;
mod plain;
mod rates;
mod sample;
mod screen;
#[cfg(test)]
mod testing;
mod words;

use std::io::{self, IsTerminal, Write};
use std::thread;

use crate::control::Caller;
use crate::failure::Failure;

pub use args::TopArgs;
use sample::Sample;

/// Shows what there is until somebody quits, or once.
///
/// # Errors
/// When nobody is there to be asked, or says no; without a terminal, unless it is `--once`.
pub fn top(args: TopArgs) -> Result<(), Failure> {
    let TopArgs { socket, interval, once, json } = args;
    let caller = Caller::new(socket);
    if once {
        let before = Sample::take(&caller)?;
        thread::sleep(interval.0);
        let after = Sample::take(&caller)?;
        return print(&if json { plain::json(&before, &after)? } else { plain::text(&before, &after) });
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "top needs a terminal, for input and output; legal here: top --once, which prints one snapshot".to_owned(),
        ));
    }
    live::run(caller, interval.0)
}

/// A reader that has gone away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::runtime("cannot write to standard output", error))
        }
        _ => Ok(()),
    }
}
