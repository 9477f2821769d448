//! Rounds: one alternative under one flood, with legitimate clients, watched.

mod compare;
mod machine;
mod progress;
mod round;
mod search;
mod watch;

use crate::lab::Cores;
use crate::results::ScenarioResults;
use crate::scenario::ScenarioError;
use crate::target::{Binary, TargetError};
pub use compare::{Asked, Outcome, compare, run};
pub use machine::describe;
pub use progress::Progress;
pub use round::run_round;
pub use search::{Search, search};

/// Told of a scenario's rounds after each of them, so that what was measured outlives whatever comes.
pub type Keep<'a> = dyn FnMut(&ScenarioResults) -> std::io::Result<()> + 'a;

/// What all rounds share.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The Portcullis under test.
    pub binary: Binary,
    /// Who works where.
    pub cores: Cores,
    /// Whether labs receive the target's frames on its cores: see [`Lab`](crate::lab::Lab).
    pub receives_apart: bool,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The flood.
    #[error(transparent)]
    Flood(#[from] crate::flood::FloodError),
    /// A file or a system call.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}
