//! LISTEN and SYN-RECEIVED: SYN cookies, a bounded half-open queue, and the packet sockets around them.
//!
//! [`Listen`] is the core: a function of packets and time that says what to do ([`Disposition`]), without I/O, clock or
//! thread, so that it can be tested, fuzzed and replayed from a seed. [`io`] puts it on the wire: one tap and one thread
//! for each core ([`io::Engine`]), which hand every finished handshake ([`Accepted`]) to an [`Establish`].
//!
//! Deliberately absent: everything after ESTABLISHED, which is the kernel's; tokio; metrics, which read [`Stats`].
//!
//! ```no_run
//! use listener::io::{Engine, EngineConfig};
//! use listener::{Accepted, EarlyData, Establish, ListenConfig, MasterKey, Refusal};
//!
//! /// Completes handshakes and makes nothing of them.
//! struct Count(u64);
//!
//! impl Establish for Count {
//!     type Connection = ();
//!
//!     fn establish(&mut self, accepted: &Accepted, _: &mut dyn EarlyData) -> Result<((), u32), Refusal> {
//!         self.0 += 1;
//!         println!("{} by {:?}", accepted.tuple, accepted.via);
//!         Err(Refusal::Closed) // The client gets a RST.
//!     }
//!
//!     fn hand_over(&mut self, (): ()) {}
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listen = ListenConfig { bind: vec!["0.0.0.0:8080".parse()?], ..ListenConfig::default() };
//! let engine = Engine::start(EngineConfig::new(listen, MasterKey::generate()?), |_worker| Ok(Count(0)))?;
//! println!("{} half-open", engine.view().half_open());
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)] // Allowed in `io::sys` alone.

mod accepted;
mod admission;
mod budget;
mod config;
pub mod cookie;
mod half_open;
mod held;
pub mod io;
mod listen;
mod prefix_list;
mod pressure;
mod ration;
mod replies;
mod sources;
mod state;
mod stats;
mod time;
mod transition;
mod young;

pub use accepted::{Accepted, EARLY_DATA_MAX_BYTES, EarlyData, Establish, Negotiated, Refusal, Timestamps, Via};
pub use admission::{Arrival, LocalAddresses};
pub use config::{AcceptCookies, ConfigError, ListenConfig};
pub use cookie::{KeySchedule, MasterKey, MasterKeyError, ScheduleFull};
pub use held::KernelSockets;
pub use listen::{Aftermath, Disposition, Listen, ListenShared, WorkerSeat};
pub use prefix_list::{PrefixList, PrefixListError, parse_prefix};
pub use pressure::{Mode, Watermarks};
pub use sources::{Denial, Sources};
pub use state::TcpState;
pub use stats::{Counter, DropReason, HANDSHAKE_BUCKETS, OCCUPANCY_BUCKETS, SharedStats, Stats};
pub use time::Time;
pub use transition::{Transition, TransitionCounts};
