//! The fast door: SYNs are answered, and handshakes completed, by programs in the kernel.

mod attach;
mod counts;
mod engine;
mod keeper;
mod layout;
mod object;
mod pins;
mod programs;
mod rights;
mod settings;
mod targets;

pub use attach::BpfHook;
pub use engine::{BpfConfig, BpfEngine};

#[cfg(test)]
mod tests;
