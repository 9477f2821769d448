//! Network namespaces, veth pairs and odd clients for tests; not part of the product.
//!
//! A test that needs a network makes one: it runs in a process of its own, in a user and a network namespace of its
//! own, and dies with it. Nothing outside is touched, several tests run at once, and root is not needed where the
//! kernel lets users make namespaces.
//!
//! What is here:
//! - [`isolated!`]: runs the body of a test in such a process.
//! - [`Namespace`], [`veth`], [`Tun`]: more namespaces inside, and the cables between them.
//! - [`Segment`] and [`Frame`]: TCP segments of any shape, out and in; [`Tap`] sends and captures them.
//! - [`RawHost`] and [`Script`]: a client that speaks TCP by script, without a kernel that interferes.
//! - [`connect_with_late_ack`]: a kernel's client whose first data completes the handshake.
//! - [`Flood`]: packets with spoofed sources, as fast as one core makes them. It takes an [`Interface`], which only
//!   [`veth`] makes: there is no way to point it at a real network.
//! - [`Counters`], [`states`], [`Metrics`], [`Process`]: what an outside observer can see.
//!
//! What is not: any code of the product. Headers are written and read here by code of their own, so that a mistake in
//! the product's parser cannot hide in its judge.
//!
//! ```no_run
//! use testnet::{Namespace, isolated, veth};
//!
//! // In a `#[test]` function:
//! isolated!(|| {
//!     let (server, client) = (Namespace::new(), Namespace::new());
//!     veth((&server, "srv0", &["198.18.0.1/24"]), (&client, "cli0", &["198.18.0.2/24"]));
//!     let listener = server.run(|| std::net::TcpListener::bind("198.18.0.1:80").unwrap());
//!     client.run(|| std::net::TcpStream::connect("198.18.0.1:80").unwrap());
//!     listener.accept().unwrap();
//! });
//! ```
#![deny(unsafe_code)] // `sys` alone allows it.

mod checksum;
mod client;
mod counters;
mod flood;
mod http;
mod isolated;
mod link;
mod namespace;
mod packet;
mod process;
mod random;
mod script;
mod sys;
mod tap;
mod wait;

pub use client::connect_with_late_ack;
pub use counters::{Counters, states};
pub use flood::{Flood, FloodKind, FloodReport, FloodSpec, Sources};
pub use http::{Metrics, http_get};
pub use isolated::{Turn, enter_namespaces, isolated, take_turns, test_name_of};
pub use link::{Interface, Tun, veth};
pub use namespace::Namespace;
pub use packet::{Checksum, Flags, Frame, Mac, Segment, Sum, options};
pub use process::{Process, Signal, own_socket};
pub use random::XorShift;
pub use script::{RawHost, Script};
pub use sys::{bind_packet, packet_socket, set_option};
pub use tap::Tap;
pub use wait::{eventually, eventually_seen, holds_for};
