//! What a relay uses of the machine.

use std::time::Duration;

use nix::unistd::Pid;

use crate::measure::ran_for;

/// Reads the processor time of a relay: its process with all children, and the kernel's threads that receive its frames.
#[derive(Clone, Debug)]
pub struct CostClock {
    pids: Vec<u32>,
}

impl CostClock {
    /// Of this process and these threads.
    pub fn new(relay: u32, reception: &[Pid]) -> CostClock {
        let reception = reception.iter().filter_map(|pid| u32::try_from(pid.as_raw()).ok());
        CostClock { pids: std::iter::once(relay).chain(reception).collect() }
    }

    /// The time so far.
    pub fn now(&self) -> Duration {
        self.pids.iter().copied().map(ran_for).sum()
    }
}
