//! What the crate promises, seen from outside. One binary, one module for each part.

mod checksums;
mod ethernet;
mod ipv4;
mod ipv6;
mod oracle;
mod outgoing;
mod properties;
mod reply;
mod segment;
mod support;
