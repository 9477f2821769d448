//! The fast door: SYNs are answered, and handshakes completed, by programs in the kernel.

mod attach;
mod counts;
mod engine;
mod keeper;
mod layout;
mod lists;
mod object;
mod pins;
mod programs;
mod refresh;
mod rights;
mod settings;
mod sleeper;
mod targets;

pub use attach::BpfHook;
pub use engine::{BpfConfig, BpfEngine, BpfRemains, PreparedBpf, PreparedSources};
pub(super) use refresh::Refresh;
pub(super) use rights::{check_to_look, in_words};

#[cfg(test)]
mod tests;
