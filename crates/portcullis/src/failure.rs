//! Why the program ends, and with which exit code.

use std::fmt::{self, Display};
use std::process::ExitCode;

/// An end that is not success. The message goes to standard error, the code to the caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Exit code 1.
    Runtime(String),
    /// Bad flags or configuration: exit code 2.
    Usage(String),
    /// Nobody is there to be asked: exit code 69, as `sysexits.h` has it for "service unavailable".
    Unavailable(String),
    /// A capability is missing, or a right to ask: exit code 77, as `sysexits.h` has it for "permission denied".
    Rights(String),
}

impl Failure {
    /// A failure while running, with what was being done.
    pub fn runtime(doing: impl Display, error: impl Display) -> Failure {
        Failure::Runtime(format!("{doing}: {error}"))
    }

    /// The code for the caller.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Runtime(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unavailable(_) => 69,
            Failure::Rights(_) => 77,
        })
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Runtime(message)
            | Failure::Usage(message)
            | Failure::Unavailable(message)
            | Failure::Rights(message) => message,
        })
    }
}
