//! Everything that touches the kernel: packet rings, raw sockets, netlink, threads and the clock.

mod bpf;
pub mod classic;
mod descriptors;
mod engine;
mod estate;
mod fail_closed;
mod filter;
mod host;
pub mod interfaces;
mod latest;
mod lock;
mod netlink;
mod reserve;
mod ring;
mod sieve;
pub mod sock_diag;
mod steps;
mod switches;
mod sys;
mod transmit;
mod urgency;
mod worker;

pub use bpf::{BpfConfig, BpfEngine, BpfHook, BpfRemains, PreparedBpf, PreparedSources};
pub use descriptors::{recv_descriptor, send_descriptor};
pub use engine::{Engine, EngineConfig, EngineError, EngineView, PreparedEngine, check_reservable};
pub use estate::{Bookmark, BpfEstate, Estate, TapEstate};
pub use fail_closed::find_nft;
pub use lock::lock_file;
pub use steps::{Handshakes, TransitionCounter};
pub use switches::ModeSwitch;
