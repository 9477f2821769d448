//! Everything that touches the kernel: packet rings, raw sockets, netlink, threads and the clock.

mod bpf;
mod engine;
mod fail_closed;
mod filter;
mod host;
pub mod interfaces;
mod keys;
mod netlink;
mod reserve;
mod ring;
mod sieve;
pub mod sock_diag;
mod switches;
mod sys;
mod transmit;
mod urgency;
mod worker;

pub use bpf::{BpfConfig, BpfEngine, BpfHook};
pub use engine::{Engine, EngineConfig, EngineError, EngineView, check_reservable};
pub use switches::ModeSwitch;
