//! Per-state counts and counters as Prometheus text, behind a small admin server.
//!
//! The [`Exporter`] asks its [`Source`]s, one per listener, what they have counted, counts the kernel's sockets by state, and
//! renders both. The [`Reporter`] makes one [`Status`](status::Status) of the same. The [`AdminServer`] gives all that to whoever asks, as
//! text, as JSON, as a stream of events and as a page, and answers `/healthz` and `/readyz`.
//!
//! Nothing here is on a packet's or a connection's path: listeners count on their own, and are read when somebody scrapes. There
//! is no push, no global recorder, no authentication and no TLS: bind the admin server where only operators reach it.
//!
//! ```
//! use std::sync::Arc;
//! use exporter::{AdminServer, Exporter, Readiness, Source};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let listeners: Vec<Arc<dyn Source>> = vec![];
//! let readiness = Arc::new(Readiness::default());
//! let exporter = Exporter::new("0.1.0", listeners, Arc::clone(&readiness))?;
//! let server = AdminServer::bind("127.0.0.1:0".parse().unwrap(), exporter).await?;
//! println!("metrics: http://{}/metrics", server.local_addr());
//! readiness.set_ready(true);
//! # let shutdown = async {};
//! server.run(shutdown).await;
//! # Ok::<(), exporter::ExporterError>(())
//! # }).unwrap();
//! ```

#![forbid(unsafe_code)]

mod admin;
mod build;
mod catalog;
mod census;
mod clerk;
mod collect;
mod error;
mod exporter;
mod listeners;
#[cfg(test)]
mod metrics_doc;
mod readiness;
mod registry;
mod reloads;
mod reporter;
mod source;
pub mod status;
mod surroundings;
#[cfg(test)]
mod testing;
mod text;
mod transitions;

pub use admin::AdminServer;
pub use build::Build;
pub use census::{Census, StateCounts};
pub use clerk::Unanswered;
pub use error::ExporterError;
pub use exporter::Exporter;
pub use readiness::{NotReady, Readiness};
pub use reloads::Reloads;
pub use reporter::Reporter;
pub use source::{ConnectionCounts, Histogram, KERNEL_TIER, Source};
pub use surroundings::{AccessLogCounts, KeyRotations, Surroundings, UpstreamCounts};
