//! The terminal, given back whatever happens.

use std::io;

use nix::sys::signal::{Signal, raise};
use ratatui::DefaultTerminal;

/// A terminal in raw mode with a screen of its own; dropping it, or a panic, gives it back as it was.
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it does not do as it is told.
    pub fn take() -> io::Result<Screen> {
        // It restores the terminal before a panic is reported.
        match ratatui::try_init() {
            Ok(terminal) => Ok(Screen { terminal }),
            Err(error) => {
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }

    pub fn terminal(&mut self) -> &mut DefaultTerminal {
        &mut self.terminal
    }

    /// Gives the terminal back to the shell, stops this process as Ctrl-Z does, and takes the terminal again when it is continued.
    ///
    /// # Errors
    /// When the terminal cannot be had again.
    pub fn suspend(self) -> io::Result<Screen> {
        drop(self);
        // Not SIGTSTP, which is caught here.
        raise(Signal::SIGSTOP)?;
        Screen::take()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to be told.
        let _ = ratatui::try_restore();
    }
}
