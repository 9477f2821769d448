//! LISTEN and SYN-RECEIVED: SYN cookies, a bounded half-open queue, and the packet sockets around them.

mod accepted;
mod admission;
mod budget;
mod config;
pub mod cookie;
mod half_open;
mod held;
pub mod io;
mod listen;
mod pressure;
mod ration;
mod replies;
mod state;
mod stats;
mod time;
mod young;

pub use accepted::{Accepted, EARLY_DATA_MAX_BYTES, EarlyData, Establish, Negotiated, Refusal, Timestamps, Via};
pub use admission::{Arrival, LocalAddresses};
pub use config::{AcceptCookies, ConfigError, ListenConfig};
pub use cookie::{MasterKey, MasterKeyError};
pub use held::KernelSockets;
pub use listen::{Aftermath, Disposition, Listen, ListenShared, WorkerSeat};
pub use pressure::Mode;
pub use state::TcpState;
pub use stats::{Counter, DropReason, HANDSHAKE_BUCKETS, SharedStats, Stats};
pub use time::Time;
