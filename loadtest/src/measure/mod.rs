//! What is read from the kernel about the target, without asking the target.

mod cpu;
mod link;
mod memory;
mod slab;
mod threads;

pub use cpu::{CpuClock, CpuTime};
pub use link::{ClientTraffic, LINK_HEADER_LEN, LinkClock, LinkCounts};
pub use memory::resident_bytes;
pub use slab::RequestSocks;
pub use threads::{ran_for, tcp_memory_bytes};
