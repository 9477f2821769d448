//! What the process says at one moment.

use std::time::Instant;

use crate::control::{Answer, Caller, Request, Status, Top};
use crate::failure::Failure;

/// Prefixes that are asked for: as many as fit on a tall terminal.
const PREFIXES_MAX: usize = 50;

/// The answers to `status` and `top`.
#[derive(Clone, Debug)]
pub struct Sample {
    pub status: Status,
    pub top: Top,
    /// When they came, by our own clock.
    pub received: Instant,
}

impl Sample {
    /// Asks now.
    ///
    /// # Errors
    /// When nobody is there, or says no.
    pub fn take(caller: &Caller) -> Result<Sample, Failure> {
        let strange = || Failure::Runtime("the process answers something else than it was asked".to_owned());
        let Answer::Status(status) = caller.ask(&Request::Status {})? else { return Err(strange()) };
        let received = Instant::now();
        let Answer::Top(top) = caller.ask(&Request::Top { limit: PREFIXES_MAX })? else { return Err(strange()) };
        Ok(Sample { status, top, received })
    }
}
